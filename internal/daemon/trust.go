package daemon

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router"
	"weft/router/session"
)

// trusts reports whether frames need not be encrypted on the way to and from an address, as far as this node is concerned:
// where it has no secret anyway, and in the subnets that it was told to trust.
func (d *Daemon) trusts(addr netip.Addr) bool {
	return !d.sealed() || slices.ContainsFunc(*d.trusted.Load(), func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// onAgreed takes from the router that a peer has come to another agreement with this node.
func (d *Daemon) onAgreed(peer.ID) { d.syncPeers() }

// unsealed reports whether frames for a member may leave this host as they are, by the kernel: both nodes have agreed to
// that, or have no secret.
func (d *Daemon) unsealed(m mesh.Member) bool {
	if !d.sealed() {
		return true
	}
	p := d.plane.Load()
	return p != nil && d.trusts(m.Addr) && p.router.PlainAgreed(m.ID)
}

// encryption returns whether frames to a live peer are encrypted, and by which cipher: as their session has it, and
// before there is one as it will have it.
func (d *Daemon) encryption(m mesh.Member, s router.PeerStats) (encrypted bool, cipher api.Cipher) {
	encrypted = d.sealed() && !d.unsealed(m)
	if s.Cipher != 0 {
		encrypted = !s.Plain
	}
	if !encrypted {
		return false, ""
	}
	if s.Cipher != 0 {
		return true, api.Cipher(s.Cipher.String())
	}
	chosen, err := session.Choose(d.cfg.offer(), session.Offer(m.Capabilities))
	if err != nil {
		return true, ""
	}
	return true, api.Cipher(chosen.String())
}
