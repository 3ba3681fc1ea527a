package mesh

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

// RefusedNode is a node that was refused because of its certificate.
type RefusedNode struct {
	ID   peer.ID
	Name string     // empty: not known
	Addr netip.Addr // invalid: not known
	Err  *identity.Error
	Last time.Time // when it was refused last
}

// Bounds of the nodes that are kept: anyone that knows the CA can be one.
const (
	maxRefused = 32
	refusedTTL = 5 * time.Minute
)

// refusedNodes keeps the nodes that were refused lately, at most maxRefused. Its methods may be called concurrently.
type refusedNodes struct {
	mu   sync.Mutex
	byID map[peer.ID]RefusedNode // guarded by mu
}

// record records a refusal at now, and reports whether it is new.
func (r *refusedNodes) record(n RefusedNode, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = make(map[peer.ID]RefusedNode)
	}
	old, known := r.byID[n.ID]
	if !known && len(r.byID) >= maxRefused {
		r.dropOldest()
	}
	if n.Name == "" {
		n.Name = old.Name
	}
	if !n.Addr.IsValid() {
		n.Addr = old.Addr
	}
	n.Last = now
	r.byID[n.ID] = n
	return !known || old.Err.Refusal != n.Err.Refusal || now.Sub(old.Last) > refusedTTL
}

// dropOldest removes the node that was refused the longest time ago; mu is held.
func (r *refusedNodes) dropOldest() {
	var oldest RefusedNode
	for _, n := range r.byID {
		if oldest.ID.IsZero() || n.Last.Before(oldest.Last) {
			oldest = n
		}
	}
	delete(r.byID, oldest.ID)
}

// forget removes a node that is admitted now.
func (r *refusedNodes) forget(id peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}

// list returns the nodes that were refused lately at now, ordered by ID.
func (r *refusedNodes) list(now time.Time) []RefusedNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []RefusedNode
	for _, n := range r.byID {
		if now.Sub(n.Last) <= refusedTTL {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b RefusedNode) int { return a.ID.Compare(b.ID) })
	return all
}

// RefusedNodes returns the nodes that were refused lately because of their certificates: at most 32, ordered by ID.
func (m *Mesh) RefusedNodes() []RefusedNode { return m.identities.refused.list(time.Now()) }

// Show implements Credentials.
func (i *identities) Show() []byte {
	if c := i.judging.Load().signed.Certificate; !c.IsZero() {
		return c.Encode()
	}
	return nil
}

// Check implements Credentials. Name and address of the node are not known yet; its metadata has them.
func (i *identities) Check(public [peer.KeySize]byte, shown []byte, fingerprint uint32) error {
	j, now := i.judging.Load(), time.Now()
	_, err := j.check(shown, identity.Holder{Public: public}, !j.cas[fingerprint], now)
	if err == nil {
		return nil
	}
	i.report(RefusedNode{ID: peer.FromPublicKey(public), Err: err}, now)
	return err
}

// identify implements admission for the mesh.
func (m *Mesh) identify(md meta, at netip.Addr, now time.Time) (identity.Certificate, *identity.Error) {
	i := m.identities
	j, id := i.judging.Load(), peer.FromPublicKey(md.public)
	cert, err := j.check(md.certificate, identity.Holder{Public: md.public, Name: md.name, Named: true, Addr: at}, j.secrets, now)
	if err != nil {
		i.report(RefusedNode{ID: id, Name: md.name, Addr: at, Err: err}, now)
	} else if !j.signed.Certificate.IsZero() {
		i.refused.forget(id)
	}
	return cert, err
}

// check returns the certificate that admits a node at now; zero if it needs none. A node of which it is known that it has a common
// secret needs none, but must not be revoked.
func (j *judge) check(shown []byte, h identity.Holder, secret bool, now time.Time) (identity.Certificate, *identity.Error) {
	if j.signed.Certificate.IsZero() {
		return identity.Certificate{}, nil
	}
	cert, err := j.trust.Check(shown, h, now)
	if err == nil || err.Refusal != identity.Revoked && secret {
		return cert, nil
	}
	return identity.Certificate{}, err
}

// report records a refusal, and logs it when it is new.
func (i *identities) report(n RefusedNode, now time.Time) {
	if i.refused.record(n, now) {
		i.mesh.log.Warn("node refused because of its identity", "peer", n.ID, "name", n.Name, "addr", n.Addr, "reason", n.Err.Refusal.Code())
	}
}

// isRevoked reports whether a CA of this node has revoked a node.
func (i *identities) isRevoked(id peer.ID) bool {
	_, revoked := i.judging.Load().trust.Revoked(id)
	return revoked
}
