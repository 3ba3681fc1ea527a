// Package keyring holds the keys of one node's gossip, and chooses the one that seals.
//
// The package starts no goroutine and reads no clock.
package keyring

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"weft/internal/peer"
	"weft/mesh/seal"
)

// Max is how many keys a ring can have: their fingerprints have to fit the node's metadata.
const Max = 8

// ErrKeys is wrapped by the errors about keys that a ring cannot use.
var ErrKeys = errors.New("mesh: keys")

// Key is a key from which those that seal gossip are derived (package seal).
type Key struct {
	// Key is never printed.
	Key [seal.KeyLen]byte
	// Fingerprint is the public name of the secret that the key is derived from. It is published to the other nodes.
	Fingerprint uint32
	// Epochs means that everyone may know Key, as that of a CA: packets are sealed with the keys of SetEpochs instead.
	Epochs bool
}

// Format implements fmt.Formatter: all verbs print the fingerprint only.
func (k Key) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key(%08x)", k.Fingerprint) }

// Member is another member that is alive.
type Member struct {
	ID      peer.ID
	Accepts []uint32 // Fingerprints of the secrets under which it accepts gossip
}

// Members returns the other members.
type Members interface {
	// Others returns the other members that are alive. It is called from several goroutines, with a lock of the ring held,
	// and must not call the ring.
	Others() []Member
}

// Ring holds the keys of a node, and chooses the one that seals packets. All of them open packets and streams. A cluster
// can therefore rotate its secret in any order of its nodes: a node that has the new one continues to seal with
// the old one until every member that is alive has published that it can open the new one
// (docs/adr/0011-rotation-in-any-order.md). A stream is sealed with the key that its first message was sealed with.
type Ring struct {
	// constant
	sealed  bool    // false: the only key is the zero key, and protects nothing
	cluster string  // name of the network, bound to every key
	members Members // called with mu held, so that the latest choice is based on the latest members

	mu     sync.Mutex
	own    []Key        // guarded by mu: the preferred one first
	sealer Key          // guarded by mu: the one of own that seals
	epochs []*seal.Keys // guarded by mu: see SetEpochs

	// atomic
	inUse atomic.Pointer[InUse] // what own and sealer are at present, never nil
}

// InUse are the keys of a ring at one moment. It is immutable.
type InUse struct {
	Own     []Key        // the preferred one first
	Derived []*seal.Keys // of Own, in its order: they open streams
	Sealer  *seal.Keys   // seals packets; nil: none can be sealed, as no epoch is known
	Packets []*seal.Keys // open packets
}

// New returns the ring of a node in the network named cluster. Without keys gossip stays plain for the lifetime of the
// ring. Errors wrap ErrKeys.
func New(keys []Key, cluster string, members Members) (*Ring, error) {
	k := &Ring{sealed: len(keys) > 0, cluster: cluster, members: members, own: slices.Clone(keys)}
	if !k.sealed {
		k.own = []Key{{}}
	} else if err := checkKeys(keys); err != nil {
		return nil, err
	}
	k.sealer = k.own[0]
	return k, k.derive()
}

func checkKeys(keys []Key) error {
	if len(keys) == 0 || len(keys) > Max {
		return fmt.Errorf("%w: %d keys, want 1 to %d", ErrKeys, len(keys), Max)
	}
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k Key) bool { return k.Key == key.Key }) {
			return fmt.Errorf("%w: one of them is given twice", ErrKeys)
		}
	}
	return nil
}

// InUse returns the present keys.
func (k *Ring) InUse() *InUse { return k.inUse.Load() }

// Sealed reports whether gossip is sealed under a secret.
func (k *Ring) Sealed() bool { return k.sealed }

// derive publishes own and sealer in inUse; mu is held, or the ring is not used yet.
func (k *Ring) derive() error {
	before, next := k.inUse.Load(), &InUse{Own: k.own}
	for _, key := range k.own {
		var keys *seal.Keys
		if i := before.index(key); i >= 0 {
			keys = before.Derived[i]
		} else {
			var err error
			if keys, err = seal.Derive(key.Key, k.cluster); err != nil {
				return fmt.Errorf("%w: %w", ErrKeys, err)
			}
		}
		next.Derived = append(next.Derived, keys)
		if !key.Epochs {
			next.Packets = append(next.Packets, keys)
		}
	}
	next.Packets = append(next.Packets, k.epochs...)
	switch {
	case !k.sealer.Epochs:
		next.Sealer = next.Derived[slices.Index(k.own, k.sealer)]
	case len(k.epochs) > 0:
		next.Sealer = k.epochs[0]
	default: // nil: a key that everyone may know must not seal
	}
	k.inUse.Store(next)
	return nil
}

// index returns the index of key, -1 if it is not there.
func (u *InUse) index(key Key) int {
	if u == nil {
		return -1
	}
	return slices.Index(u.Own, key)
}

// Fingerprints returns the fingerprints of the keys, the preferred one first. Without a secret there are none.
func (k *Ring) Fingerprints() []uint32 {
	if !k.sealed {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []uint32
	for _, key := range k.own {
		list = append(list, key.Fingerprint)
	}
	return list
}

// Choose seals packets with the first key that all members alive can open. Without such a key the present one stays: a
// new node that has too little in common with the others cannot separate them.
func (k *Ring) Choose() error {
	if !k.sealed {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	common := k.common()
	if len(common) == 0 || common[0] == k.sealer {
		return nil
	}
	k.sealer = common[0]
	return k.derive()
}

// ForStream returns the keys to dial a node with, in the order in which to try them: the one that seals packets, then the
// other ones that all members alive can open. A member that is alive and has none of those is tried with the keys that it
// has published. With any other key a stream would join a node that some member cannot understand.
func (k *Ring) ForStream(id peer.ID) (keys []Key, derived []*seal.Keys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys = []Key{k.sealer}
	for _, key := range append(k.common(), k.shared(id)...) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	inUse := k.inUse.Load()
	for _, key := range keys {
		derived = append(derived, inUse.Derived[inUse.index(key)])
	}
	return keys, derived
}

// Admits reports whether a node may open a stream under key: one that all members alive have, or any key if the node is a
// member alive. A node that has only a key which some member has not would be a member to a part of the network.
func (k *Ring) Admits(key Key, id peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.sealed || slices.Contains(k.common(), key) || slices.Contains(k.shared(id), key)
}

// shared returns the keys that a member alive has published; mu is held.
func (k *Ring) shared(id peer.ID) (keys []Key) {
	for _, m := range k.members.Others() {
		if m.ID == id && k.sealed {
			for _, key := range k.own {
				if slices.Contains(m.Accepts, key.Fingerprint) {
					keys = append(keys, key)
				}
			}
		}
	}
	return keys
}

// common returns the keys that all members alive can open, the preferred one first; mu is held.
func (k *Ring) common() []Key {
	members := k.members.Others()
	var list []Key
	for _, key := range k.own {
		if !slices.ContainsFunc(members, func(m Member) bool {
			return k.sealed && !slices.Contains(m.Accepts, key.Fingerprint)
		}) {
			list = append(list, key)
		}
	}
	return list
}

// SetEpochs replaces the keys that seal and open packets in place of a Key with Epochs. The first one seals.
func (k *Ring) SetEpochs(keys []*seal.Keys) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epochs = keys
	return k.derive()
}

// Replace replaces all keys: 1 to Max, the preferred one first. Errors wrap ErrKeys.
func (k *Ring) Replace(keys []Key) error {
	if !k.sealed {
		return fmt.Errorf("%w: gossip is plain: a restart is needed to add the first secret or to remove the last one", ErrKeys)
	}
	if err := checkKeys(keys); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own = slices.Clone(keys)
	if !slices.Contains(k.own, k.sealer) {
		k.sealer = k.own[0]
	}
	return k.derive()
}
