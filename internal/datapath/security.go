package datapath

import (
	"net/netip"

	"weft/router"
	"weft/router/carrier"
	"weft/router/session"
)

// SetSecrets replaces the secrets that seal frames: one or more, where the datapath was made with some.
func (d *Datapath) SetSecrets(list []session.Secret) {
	d.securityMu.Lock()
	d.secrets.Store(&list)
	e := d.current.Load()
	if e != nil {
		e.router.SetSecrets(list)
	}
	if e != nil {
		d.tunnels.SetSecrets(fingerprints(list), e.router)
	}
	d.securityMu.Unlock()
	d.SyncPeers()
}

// fingerprints returns those of secrets.
func fingerprints(list []session.Secret) (f []uint32) {
	for _, s := range list {
		f = append(f, s.Fingerprint)
	}
	return f
}

// SetTrusted replaces the subnets to which frames need not be sealed.
func (d *Datapath) SetTrusted(list []netip.Prefix) {
	d.securityMu.Lock()
	d.trusted.Store(&list)
	if e := d.current.Load(); e != nil {
		e.router.SetTrusted(list)
	}
	d.securityMu.Unlock()
	d.SyncPeers()
}

// sealed reports whether this node has a secret. It does not change while the node runs.
func (d *Datapath) sealed() bool { return len(*d.secrets.Load()) > 0 }

// trusts reports whether frames to and from an address need not be sealed, as far as this node is concerned: where it has no
// secret, and in trusted subnets.
func (d *Datapath) trusts(addr netip.Addr) bool {
	return !d.sealed() || router.Trusted(*d.trusted.Load()).Contains(addr)
}

// unsealed reports whether frames to a member may leave this host unsealed, through the kernel: both nodes have agreed to that,
// or have no secret.
func (d *Datapath) unsealed(m Member) bool {
	if !d.sealed() {
		return true
	}
	e := d.current.Load()
	return e != nil && d.trusts(m.Addr.Addr()) && e.router.PlainAgreed(m.ID)
}

// Encryption returns whether frames to a member are encrypted, and the name of the cipher: those of its session, or before there
// is one those that the session will have.
func (d *Datapath) Encryption(m Member, s router.PeerStats) (encrypted bool, cipher string) {
	encrypted = d.sealed() && !d.unsealed(m)
	if s.Cipher != 0 {
		encrypted = !s.Plain
	}
	if !encrypted {
		return false, ""
	}
	if d.Carrier(m.ID) == carrier.WireGuard {
		return true, session.ChaCha20Poly1305.String()
	}
	if s.Cipher != 0 {
		return true, s.Cipher.String()
	}
	chosen, err := session.Choose(d.settings.Offer(), m.Offer)
	if err != nil {
		return true, ""
	}
	return true, chosen.String()
}
