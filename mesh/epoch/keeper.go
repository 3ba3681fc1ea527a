package epoch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
)

// ErrSender is wrapped by the errors about a message of a node that must not send it.
var ErrSender = errors.New("epoch: not from an admitted node")

// Config configures a Keeper.
type Config struct {
	Self  peer.ID
	Trust identity.Trust
	// Random is the source of unpredictable bytes. It must not return errors, as crypto/rand does not.
	Random io.Reader
	// MaxBroadcast is the length in bytes of the longest broadcast.
	MaxBroadcast int
	Members      Members
}

// Members are the other nodes as a Keeper sees them.
type Members interface {
	// Certified returns the other nodes that are alive and were admitted by a certificate, in any order. The callee owns the slice.
	Certified() []peer.ID
}

// Keeper is one node's side of the protocol. Its methods may not be called concurrently. After any call, Drain returns what
// resulted from it, and Next when Tick has to be called.
type Keeper struct {
	self   peer.ID
	cfg    Config
	trust  identity.Trust
	ring   ring
	makeAt time.Time // when this node makes an epoch, unless one arrives before; zero: never
	ask    asks
	out    Output
}

// Output is what a call has changed, and what has to be sent.
type Output struct {
	Broadcasts [][]byte
	Unicasts   []Unicast
	// Adopted are lists that the node did not have: they have to be stored, and members be judged again.
	Adopted []identity.Revocations
	// Keys is set if Opening or Present returns other keys than before.
	Keys bool
}

// Unicast is a message to one node.
type Unicast struct {
	To  peer.ID
	Msg []byte
}

// New returns the Keeper of a node at its start, which has made a first epoch.
func New(cfg Config, now time.Time) *Keeper {
	k := &Keeper{self: cfg.Self, cfg: cfg, trust: cfg.Trust}
	k.applyLists(now)
	k.ring.adopt(k.newEpoch(now), now)
	return k
}

// Trust returns the CAs with the lists in force.
func (k *Keeper) Trust() identity.Trust { return k.trust }

// Present returns the epoch that seals.
func (k *Keeper) Present() Epoch { return k.ring.present }

// Opening returns the keys that open packets at now, the one that seals first.
func (k *Keeper) Opening(now time.Time) []Key { return k.ring.opening(now) }

// Drain returns and removes the output since the last call.
func (k *Keeper) Drain() Output {
	out := k.out
	k.out = Output{}
	return out
}

// SetTrust replaces the CAs and their lists at now. Nodes that only a CA that is gone has admitted know the present epoch: it ends.
func (k *Keeper) SetTrust(t identity.Trust, now time.Time) {
	gone := slices.ContainsFunc(k.trust.CAs(), func(ca identity.CAKey) bool { return !slices.Contains(t.CAs(), ca) })
	k.trust = t
	k.applyLists(now)
	if gone {
		k.ring.end(now)
	}
	k.scheduleMake(k.makeDelay(), now)
}

// Expired ends the present epoch at now if it was made before the time at which the certificate of a member has expired. An epoch made
// later was never handed to that node.
func (k *Keeper) Expired(at, now time.Time) {
	if k.ring.present.Made.Before(at) && !k.ring.isStale() {
		k.ring.end(now)
		k.scheduleMake(k.makeDelay(), now)
	}
}

// AdoptList applies a list that an operator has handed to this node. It reports whether the list was newer than the one in force.
// This node makes the next epoch at once. The error is about a list that no CA has signed.
func (k *Keeper) AdoptList(list identity.Revocations, now time.Time) (adopted bool, err error) {
	adopted, err = k.adoptLists([]identity.Revocations{list}, now)
	if adopted {
		k.makeEpoch(now)
	}
	return adopted, err
}

// adoptLists applies lists. The error is about those that no CA has signed; the others are applied.
func (k *Keeper) adoptLists(lists []identity.Revocations, now time.Time) (adopted bool, err error) {
	for _, list := range lists {
		next, isNew, listErr := k.trust.Adopt(list)
		err = errors.Join(err, listErr)
		if isNew {
			k.trust, adopted = next, true
			k.out.Adopted = append(k.out.Adopted, list)
		}
	}
	if adopted {
		k.applyLists(now)
	}
	return adopted, err
}

func (k *Keeper) isRevoked(id peer.ID) bool {
	_, revoked := k.trust.Revoked(id)
	return revoked
}

// applyLists passes the lists in force to the ring.
func (k *Keeper) applyLists(now time.Time) {
	k.ring.setLists(listsOf(k.trust), now)
	k.out.Keys = true
}

// Merge applies a broadcast or a state. Its sender is not known, so it must not contain the key of an epoch.
func (k *Keeper) Merge(msg []byte, now time.Time) error {
	m, err := parseMessage(msg)
	if err != nil {
		return err
	}
	if m.request || m.epoch != nil {
		return fmt.Errorf("%w: a request or an epoch in a broadcast", ErrMalformed)
	}
	adopted, err := k.adoptLists(m.lists, now)
	if m.announce != nil && m.announce.holder != k.self && !k.isRevoked(m.announce.holder) {
		k.heard(*m.announce, now)
	}
	if adopted {
		k.scheduleMake(k.makeDelay(), now)
		k.spread()
	}
	return err
}

// Message applies a message that only this node has received. The caller has proven that it is from the node from, and that the node
// was admitted. A list in it may revoke that very node; then the epoch in it does not count.
func (k *Keeper) Message(from peer.ID, msg []byte, now time.Time) error {
	m, err := parseMessage(msg)
	if err != nil {
		return err
	}
	adopted, err := k.adoptLists(m.lists, now)
	if adopted {
		k.scheduleMake(k.makeDelay(), now)
	}
	if !k.admits(from) {
		return errors.Join(err, fmt.Errorf("%w: %s", ErrSender, from))
	}
	spread := adopted
	if m.epoch != nil {
		spread = k.offer(from, *m.epoch, now) || spread
	}
	if m.request {
		k.handOver(from)
	}
	if spread {
		k.spread()
	}
	return err
}

// offer applies an epoch of another node, and reports whether it is the present one from now on.
func (k *Keeper) offer(from peer.ID, e Epoch, now time.Time) (adopted bool) {
	standing := k.ring.compare(e.Number, e.Name(), e.Lists)
	if standing != newer && k.ring.knows(e.Name()) {
		return false
	}
	switch standing {
	case newer:
		k.ring.adopt(e, now)
		k.makeAt, k.out.Keys = time.Time{}, true
		return true
	case stale:
		k.handOver(from)
		k.outdo(e.Number, e.Lists, now)
	case older, beyond:
		k.handOver(from)
	default: // ahead: without the list nothing proves that it exists
	}
	return false
}

// outdo handles an epoch of another node that is stale here. If the other node does not trust the CA of the list that makes it stale,
// its epoch may go on to count there. Then this node makes one with a higher number, which counts for both.
func (k *Keeper) outdo(number uint64, lists []List, now time.Time) {
	if !k.ring.unaware(lists) || number < k.ring.present.Number || number-k.ring.present.Number > maxOutdo {
		return
	}
	k.ring.challenged, k.ring.floor = true, max(k.ring.floor, number)
	k.scheduleMake(k.makeDelay(), now)
}
