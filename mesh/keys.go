package mesh

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/mesh/seal"
)

// MaxKeys is how many keys a mesh can have: their fingerprints have to fit the node's metadata.
const MaxKeys = 8

// publishTimeout bounds how long new metadata is waited for to reach the first other node.
const publishTimeout = 2 * time.Second

// ErrKeys is wrapped by the errors about keys that a mesh cannot use.
var ErrKeys = errors.New("mesh: keys")

// GossipKey is a key from which those that seal gossip are derived (package seal).
type GossipKey struct {
	// Key is never printed.
	Key [32]byte
	// Fingerprint is the public name of the secret that the key is derived from. It is published to the other nodes.
	Fingerprint uint32
}

// Format implements fmt.Formatter: all verbs print the fingerprint only.
func (k GossipKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key(%08x)", k.Fingerprint) }

// keyring holds the keys of a mesh, and chooses the one that seals packets. All of them open packets and streams. A
// cluster can therefore rotate its secret in any order of its nodes: a node that has the new one continues to seal with
// the old one until every member that is alive has published that it can open the new one
// (docs/adr/0011-rotation-in-any-order.md). A stream is sealed with the key that its first message was sealed with.
type keyring struct {
	// constant
	sealed  bool            // false: the only key is the zero key, and protects nothing
	cluster string          // name of the network, bound to every key
	members func() []Member // called with mu held, so that the latest choice is based on the latest members

	mu     sync.Mutex
	own    []GossipKey // guarded by mu: the preferred one first
	sealer GossipKey   // guarded by mu: the one of own that seals

	// atomic
	inUse atomic.Pointer[keysInUse] // what own and sealer are at present, never nil
}

// keysInUse are the keys of a keyring at one moment. It is immutable.
type keysInUse struct {
	own     []GossipKey
	derived []*seal.Keys // of own, in its order
	sealer  *seal.Keys
}

// newKeyring returns the keyring of a mesh. Without keys gossip stays plain for the lifetime of the mesh.
func newKeyring(keys []GossipKey, cluster string, members func() []Member) (*keyring, error) {
	k := &keyring{sealed: len(keys) > 0, cluster: cluster, members: members, own: slices.Clone(keys)}
	if !k.sealed {
		k.own = []GossipKey{{}}
	} else if err := checkKeys(keys); err != nil {
		return nil, err
	}
	k.sealer = k.own[0]
	return k, k.derive()
}

func checkKeys(keys []GossipKey) error {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return fmt.Errorf("%w: %d keys, want 1 to %d", ErrKeys, len(keys), MaxKeys)
	}
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k GossipKey) bool { return k.Key == key.Key }) {
			return fmt.Errorf("%w: one of them is given twice", ErrKeys)
		}
	}
	return nil
}

// derive publishes own and sealer in inUse; mu is held, or the keyring is not used yet.
func (k *keyring) derive() error {
	before, next := k.inUse.Load(), &keysInUse{own: k.own}
	for _, key := range k.own {
		var keys *seal.Keys
		if i := before.index(key); i >= 0 {
			keys = before.derived[i]
		} else {
			var err error
			if keys, err = seal.Derive(key.Key, k.cluster); err != nil {
				return fmt.Errorf("%w: %w", ErrKeys, err)
			}
		}
		next.derived = append(next.derived, keys)
	}
	next.sealer = next.derived[slices.Index(k.own, k.sealer)]
	k.inUse.Store(next)
	return nil
}

// index returns the index of key, -1 if it is not there.
func (u *keysInUse) index(key GossipKey) int {
	if u == nil {
		return -1
	}
	return slices.Index(u.own, key)
}

// fingerprints returns the fingerprints of the keys, the preferred one first. Without a secret there are none.
func (k *keyring) fingerprints() []uint32 {
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

// choose seals packets with the first key that all members alive can open. Without such a key the present one stays: a
// new node that has too little in common with the others cannot separate them.
func (k *keyring) choose() error {
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

// forStream returns the keys to dial a node with, in the order in which to try them: the one that seals packets, then the
// other ones that all members alive can open. A member that is alive and has none of those is tried with the keys that it
// has published. With any other key a stream would join a node that some member cannot understand.
func (k *keyring) forStream(id peer.ID) (keys []GossipKey, derived []*seal.Keys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys = []GossipKey{k.sealer}
	for _, key := range append(k.common(), k.shared(id)...) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	inUse := k.inUse.Load()
	for _, key := range keys {
		derived = append(derived, inUse.derived[inUse.index(key)])
	}
	return keys, derived
}

// admits reports whether a node may open a stream under key: one that all members alive have, or any key if the node is a
// member alive. A node that has only a key which some member has not would be a member to a part of the network.
func (k *keyring) admits(key GossipKey, id peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.sealed || slices.Contains(k.common(), key) || slices.Contains(k.shared(id), key)
}

// shared returns the keys that a member alive has published; mu is held.
func (k *keyring) shared(id peer.ID) (keys []GossipKey) {
	for _, m := range k.members() {
		if m.ID == id && m.State == StateAlive && k.sealed {
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
func (k *keyring) common() []GossipKey {
	members := k.members()
	var list []GossipKey
	for _, key := range k.own {
		if !slices.ContainsFunc(members, func(m Member) bool {
			return m.State == StateAlive && !m.Self && k.sealed && !slices.Contains(m.Accepts, key.Fingerprint)
		}) {
			list = append(list, key)
		}
	}
	return list
}

// replace replaces all keys.
func (k *keyring) replace(keys []GossipKey) error {
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

// SetKeys replaces the keys while the mesh runs: 1 to MaxKeys, the preferred one first. All of them open the gossip of
// other nodes. The nodes of a cluster may do it in any order: as long as any two of them have one key in common, no member
// is lost. A mesh that was made without keys accepts none. Errors wrap ErrKeys. SetKeys waits at most publishTimeout until
// another node knows the new keys.
func (m *Mesh) SetKeys(keys []GossipKey) error {
	if err := m.keys.replace(keys); err != nil {
		return err
	}
	if err := m.keys.choose(); err != nil {
		return err
	}
	if list := m.list.Load(); list != nil {
		if err := list.UpdateNode(publishTimeout); err != nil { // the next push/pull publishes it too
			m.log.Debug("key fingerprints of this node not published", "err", err)
		}
	}
	return nil
}
