package datapath

import (
	"errors"
	"net/netip"
	"slices"

	"weft/internal/hostnet"
	"weft/internal/pairs"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// controlPair is the channel of messages about pairs among the control messages between nodes.
const controlPair = controlTunnel + 1

// pairRole returns what this node does in a pair with a member: there is one where an address translator is between the two, or where their
// addresses are of different families. The node behind the translator begins, or the one with the address of IPv6: so the pair is on IPv4,
// if that leads to the other node, and frames of the MTU of an overlay on IPv4 fit.
func (d *Datapath) pairRole(m Member) pairs.Role {
	if m.VNI == 0 || d.vni.Load() == 0 || !d.unsealed(m) {
		return pairs.None
	}
	switch own := d.reach.DialOut(); {
	case own && m.DialOut:
		return pairs.Beside
	case own:
		return pairs.Begins
	case m.DialOut:
		return pairs.Answers
	case d.sameFamily(m.Addr.Addr()):
		return pairs.None
	case d.ownAddr().Is6():
		return pairs.Begins
	}
	return pairs.Answers
}

// vxlanPeer returns a member, if frames to it may use VXLAN without a seal where it is reached directly: by the common device, which needs
// the VNI of this node, or by a pair.
func (d *Datapath) vxlanPeer(m Member) (carrier.Peer, bool) {
	common := carrier.Peer{ID: m.ID, Addr: m.Addr.Addr()}
	mayUse := m.VNI != 0 && m.VNI == d.vni.Load() && d.sameFamily(common.Addr) && d.unsealed(m)
	switch d.pairRole(m) {
	case pairs.None:
		return common, mayUse
	case pairs.Beside:
		return common, mayUse && d.pairs.Addr(m.ID) == common.Addr.Unmap()
	case pairs.Begins, pairs.Answers:
	}
	pair, ok := d.pairs.Peer(m.ID)
	return pair, ok && d.trusts(pair.Addr)
}

// pairHost is this node in the form of package pairs.
type pairHost struct{ d *Datapath }

var _ pairs.Host = pairHost{}

func (h pairHost) Members() map[peer.ID]pairs.Member {
	members := map[peer.ID]pairs.Member{}
	var asked, has bool
	reaches := func(to netip.Addr) bool { // an address of the other family, as any
		if !asked {
			asked, has = true, h.sendsTo(to)
		}
		return has
	}
	for _, m := range h.d.cfg.Membership.Members() {
		if at := h.member(m, reaches); at.Role != pairs.None {
			members[m.ID] = at
		}
	}
	return members
}

func (h pairHost) Member(id peer.ID) pairs.Member {
	m, ok := h.d.cfg.Membership.Member(id)
	if !ok {
		return pairs.Member{}
	}
	return h.member(m, h.sendsTo)
}

// sendsTo reports whether this node has an address from which it sends to another one.
func (h pairHost) sendsTo(to netip.Addr) bool { return h.Source(to).IsValid() }

// member returns a member in the form of package pairs. reaches reports whether this host sends to an address of the other family.
func (h pairHost) member(m Member, reaches func(netip.Addr) bool) pairs.Member {
	at := pairs.Member{Role: h.d.pairRole(m)}
	if at.Role == pairs.None || m.Hops != 1 && !h.Carries(m.ID) {
		return pairs.Member{}
	}
	if to := m.Addr.Addr().Unmap(); at.Role == pairs.Begins && !h.d.sameFamily(to) && reaches(to) {
		at.Addr = to // which the session may have left
	}
	return at
}

func (h pairHost) MayBe(id peer.ID, addr netip.Addr) bool {
	if own, err := hostnet.IsLocal(addr); err != nil || own || !vxlan.Usable(addr) || addr.IsLoopback() {
		return false
	}
	return !slices.ContainsFunc(h.d.cfg.Membership.Members(), func(m Member) bool { return m.ID != id && m.Addr.Addr().Unmap() == addr })
}

func (h pairHost) Source(to netip.Addr) netip.Addr {
	switch u := h.d.underlay.Load(); {
	case h.d.reach.DialOut() || !u.Local || !to.IsValid():
		return netip.Addr{}
	case h.d.sameFamily(to):
		return u.Addr
	}
	source, _ := hostnet.SourceTo(to)
	return source
}

func (h pairHost) Carries(id peer.ID) bool {
	e := h.d.current.Load()
	return e != nil && e.kernel.path(carrier.VXLAN).carries(id)
}

func (h pairHost) Changed() { h.d.SyncPeers() }

// pairPorts makes the devices of pairs ports of the bridge.
type pairPorts struct{ d *Datapath }

// AddPort implements vxlan.Ports.
func (p pairPorts) AddPort(device string) error {
	d := p.d
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	if d.cleared {
		return errors.New("datapath: the node leaves")
	}
	br, err := bridge.Ensure(d.bridgeConfig())
	if err != nil {
		return err
	}
	defer br.Close()
	return br.AddPort(device)
}
