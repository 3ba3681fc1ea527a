package router

import (
	"net/netip"

	"weft/internal/peer"
	"weft/router/endpoint"
	"weft/router/session"
)

// Trusted returns the addresses to which frames need not be sealed where there is a secret: those in prefixes, but no
// relayed endpoint, whatever the prefixes are. A relay is a peer that must not read what it carries.
func Trusted(prefixes []netip.Prefix) session.TrustList {
	return session.TrustPrefixes(prefixes, endpoint.RelayPrefix)
}

// trustedBy returns Trusted; without secrets, where a seal has no tail, all addresses.
func trustedBy(prefixes []netip.Prefix, tailroom int) session.TrustList {
	if tailroom == 0 {
		return session.TrustAll()
	}
	return Trusted(prefixes)
}

// SetTrusted replaces Config.Trusted. It does not keep the slice. It takes effect at once for the frames that this node
// sends; sessions that were agreed on otherwise are renewed.
func (e *Engine) SetTrusted(prefixes []netip.Prefix) {
	trusted := trustedBy(prefixes, e.tailroom)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusted.Store(&trusted)
	for _, v := range e.peers.Load().sorted {
		v.updateEgress(func(out egress) egress { return e.egressTo(out.session, out.addr) })
	}
	e.handshakes.with(func(n *session.Node) { n.SetTrusted(trusted, e.now()) })
}

// trusts reports whether, as far as this node is concerned, frames to and from an address need not be sealed.
func (e *Engine) trusts(addr netip.Addr) bool { return e.trusted.Load().Contains(addr) }

// PlainAgreed reports whether this node and a peer agreed, in their last handshake, that frames between them need not
// be sealed. The result stays the same when the session expires.
func (e *Engine) PlainAgreed(id peer.ID) bool {
	v := e.peers.Load().byID[id]
	return v != nil && v.plainAgreed.Load()
}
