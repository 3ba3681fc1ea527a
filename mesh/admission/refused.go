package admission

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

// Refused is a node that was refused because of its certificate.
type Refused struct {
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
	byID map[peer.ID]Refused // guarded by mu
}

// record records a refusal at now, and reports whether it is new.
func (r *refusedNodes) record(n Refused, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = make(map[peer.ID]Refused)
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
	var oldest Refused
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
func (r *refusedNodes) list(now time.Time) []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Refused
	for _, n := range r.byID {
		if now.Sub(n.Last) <= refusedTTL {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b Refused) int { return a.ID.Compare(b.ID) })
	return all
}

// Refused returns the nodes that were refused lately because of their certificates: at most 32, ordered by ID.
func (i *Admission) Refused() []Refused { return i.refused.list(time.Now()) }

// Show implements mesh.Credentials.
func (i *Admission) Show() []byte {
	if c := i.judging.Load().signed.Certificate; !c.IsZero() {
		return c.Encode()
	}
	return nil
}

// Check implements mesh.Credentials. Name and address of the node are not known yet; its metadata has them.
func (i *Admission) Check(public [peer.KeySize]byte, shown []byte, fingerprint uint32) error {
	j, now := i.judging.Load(), time.Now()
	_, err := j.check(shown, identity.Holder{Public: public}, !j.cas[fingerprint], now)
	if err == nil {
		return nil
	}
	i.report(Refused{ID: peer.FromPublicKey(public), Err: err}, now)
	return err
}

// Judge returns the certificate that admits a node with what its metadata shows at now; zero if it needs none. The error is about a
// node that is not admitted.
func (i *Admission) Judge(shown []byte, h identity.Holder, now time.Time) (identity.Certificate, *identity.Error) {
	j, id := i.judging.Load(), peer.FromPublicKey(h.Public)
	cert, err := j.check(shown, h, j.secrets, now)
	if err != nil {
		i.report(Refused{ID: id, Name: h.Name, Addr: h.Addr, Err: err}, now)
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
func (i *Admission) report(n Refused, now time.Time) {
	if i.refused.record(n, now) {
		i.log.Warn("node refused because of its identity", "peer", n.ID, "name", n.Name, "addr", n.Addr, "reason", n.Err.Refusal.Code())
	}
}

// IsRevoked reports whether a CA of this node has revoked a node.
func (i *Admission) IsRevoked(id peer.ID) bool {
	_, revoked := i.judging.Load().trust.Revoked(id)
	return revoked
}
