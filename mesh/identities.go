package mesh

import (
	"net/netip"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/admission"
	"weft/mesh/metadata"
)

// channelIdentity is the channel of the lists of revoked nodes and of the epochs.
const channelIdentity ChannelID = 4

// ErrNoIdentity is returned by Revoke on a node without a certificate.
var ErrNoIdentity = admission.ErrNoIdentity

var (
	_ Channel     = (*admission.Admission)(nil)
	_ Credentials = (*admission.Admission)(nil)
)

// identityHost is a mesh as its admission sees it. It implements admission.Host.
type identityHost struct{ mesh *Mesh }

// Certified implements epoch.Members.
func (h identityHost) Certified() []peer.ID { return h.mesh.roster.certified() }

// Recheck implements admission.Host.
func (h identityHost) Recheck(now time.Time) time.Time { return h.mesh.roster.recheck(now) }

// Unicast implements admission.Host.
func (h identityHost) Unicast(to peer.ID, msg []byte) error {
	return h.mesh.Sender(channelIdentity).Unicast(to, msg)
}

// Broadcast implements admission.Host.
func (h identityHost) Broadcast(msg []byte) error {
	return h.mesh.Sender(channelIdentity).Broadcast(msg)
}

// identify implements admitter.
func (m *Mesh) identify(md metadata.Node, at netip.Addr, now time.Time) (identity.Certificate, *identity.Error) {
	return m.identities.Judge(md.Certificate, identity.Holder{Public: md.Public, Name: md.Name, Named: true, Addr: at}, now)
}

// revoked implements admitter.
func (m *Mesh) revoked(id peer.ID) bool { return m.identities.IsRevoked(id) }

// SetCredentials replaces the keys and the identity while the mesh runs: at most MaxKeys, those of CAs included, and at least one. As
// long as any two nodes have one of them in common, no member is lost. A mesh that was made without any accepts none. Errors wrap
// ErrKeys. SetCredentials waits until another node knows, for publishTimeout at most after earlier publications.
func (m *Mesh) SetCredentials(keys []GossipKey, f identity.File) error {
	if err := admission.CheckSigned(f, m.cfg.Name); err != nil {
		return err
	}
	if err := m.identities.SetCredentials(keys, f); err != nil {
		return err
	}
	m.roster.change.Set()
	m.dialer.redialAll()
	return m.publishKeys()
}

// SetKeys replaces the keys beside those of CAs, as SetCredentials does.
func (m *Mesh) SetKeys(keys []GossipKey) error { return m.SetCredentials(keys, m.identities.Signed()) }

// Revoke adopts a list of revoked nodes; see admission.Admission.Revoke.
func (m *Mesh) Revoke(list identity.Revocations) (adopted bool, err error) {
	return m.identities.Revoke(list)
}

// IdentityStatus returns the state of signed identities at this node.
func (m *Mesh) IdentityStatus() admission.Status { return m.identities.Status() }

// RefusedNodes returns the nodes that were refused lately because of their certificates.
func (m *Mesh) RefusedNodes() []admission.Refused { return m.identities.Refused() }
