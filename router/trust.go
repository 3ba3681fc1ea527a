package router

import (
	"net/netip"
	"slices"

	"weft/internal/peer"
	"weft/router/session"
)

// trustList is a set of addresses to and from which frames need not be sealed. It is immutable.
type trustList struct {
	all      bool // every address: there are no secrets
	prefixes []netip.Prefix
}

func (t *trustList) contains(addr netip.Addr) bool {
	if t.all {
		return true
	}
	addr = addr.Unmap()
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// SetTrusted replaces Config.Trusted. It does not keep the slice. It takes effect at once for the frames that this node
// sends; sessions that were agreed on otherwise are renewed.
func (e *Engine) SetTrusted(prefixes []netip.Prefix) {
	trusted := &trustList{all: e.tailroom == 0, prefixes: slices.Clone(prefixes)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusted.Store(trusted)
	for _, v := range e.peers.Load().sorted {
		v.updateEgress(func(out egress) egress { return e.egressTo(out.session, out.addr) })
	}
	e.handshakes.with(func(n *session.Node) { n.SetTrusts(trusted.contains, e.now()) })
}

// trusts reports whether, as far as this node is concerned, frames to and from an address need not be sealed.
func (e *Engine) trusts(addr netip.Addr) bool { return e.trusted.Load().contains(addr) }

// PlainAgreed reports whether this node and a peer agreed, in their last handshake, that frames between them need not
// be sealed. The result stays the same when the session expires.
func (e *Engine) PlainAgreed(id peer.ID) bool {
	v := e.peers.Load().byID[id]
	return v != nil && v.plainAgreed.Load()
}
