package mesh

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// MaxKeys is how many keys a mesh takes: their fingerprints have to fit the node's metadata.
const MaxKeys = 8

// tellTimeout bounds how long SetKeys waits for the first of the others to hear which keys this node has.
const tellTimeout = 2 * time.Second

// ErrKeys is wrapped by the errors about keys that a mesh cannot take.
var ErrKeys = errors.New("mesh: keys")

// GossipKey is a key that seals gossip (AES-256-GCM).
type GossipKey struct {
	// Key is never printed.
	Key [32]byte
	// Fingerprint is the public name of the secret that the key comes from; the others are told it.
	Fingerprint uint32
}

// Format implements fmt.Formatter: all verbs show the fingerprint alone.
func (k GossipKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key(%08x)", k.Fingerprint) }

// keyring holds the keys of a mesh, and chooses with which one it seals. All of them open. That lets a cluster take a
// new secret in any order of its nodes: one that has it already goes on to seal with the old one until every member
// alive says in its metadata that it can open the new one.
type keyring struct {
	// constant
	ring    *memberlist.Keyring // nil: gossip is plain
	members func() []Member     // asked with mu held, so that whoever chooses last knows the latest

	mu     sync.Mutex
	own    []GossipKey // guarded by mu: the preferred one first
	seals  GossipKey   // guarded by mu: one of own
	trying bool        // guarded by mu: seals was set by try and stays while it can
}

// newKeyring returns the keyring of a mesh; without keys gossip stays plain for as long as the mesh lives.
func newKeyring(keys []GossipKey, members func() []Member) (*keyring, error) {
	if len(keys) == 0 {
		return &keyring{}, nil
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	k := &keyring{members: members, own: slices.Clone(keys), seals: keys[0]}
	raw := make([][]byte, len(keys))
	for i, key := range keys {
		raw[i] = key.Key[:]
	}
	var err error
	if k.ring, err = memberlist.NewKeyring(raw, raw[0]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	return k, nil
}

func checkKeys(keys []GossipKey) error {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return fmt.Errorf("%w: %d of them, want 1 to %d", ErrKeys, len(keys), MaxKeys)
	}
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k GossipKey) bool { return k.Key == key.Key }) {
			return fmt.Errorf("%w: one of them is there twice", ErrKeys)
		}
	}
	return nil
}

// sealed reports whether gossip is sealed.
func (k *keyring) sealed() bool { return k.ring != nil }

// fingerprints returns the names of the keys, the preferred one first.
func (k *keyring) fingerprints() []uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []uint32
	for _, key := range k.own {
		list = append(list, key.Fingerprint)
	}
	return list
}

// settle chooses the key to seal with: the first that all members alive can open. Where there is none, the present one
// stays: a newcomer that has too little in common with the others cannot come between them.
func (k *keyring) settle() error {
	if !k.sealed() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	common := k.common()
	if len(common) == 0 || k.trying && slices.Contains(common, k.seals) {
		return nil
	}
	return k.use(common[0])
}

// others returns the keys that a node at an address not reached with the present one may have; members can open all of
// them.
func (k *keyring) others() []GossipKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(k.common(), func(key GossipKey) bool { return key == k.seals })
}

// try seals with key from now on, until done.
func (k *keyring) try(key GossipKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.own, key) {
		return fmt.Errorf("%w: replaced meanwhile", ErrKeys)
	}
	k.trying = true
	return k.use(key)
}

// done ends what try began.
func (k *keyring) done() error {
	k.mu.Lock()
	k.trying = false
	k.mu.Unlock()
	return k.settle()
}

// replace takes keys in place of those that it has.
func (k *keyring) replace(keys []GossipKey) error {
	if !k.sealed() {
		return fmt.Errorf("%w: gossip is plain: a node takes its first secret, or drops its last, at a restart", ErrKeys)
	}
	if err := checkKeys(keys); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		if err := k.ring.AddKey(key.Key[:]); err != nil {
			return fmt.Errorf("%w: %w", ErrKeys, err)
		}
	}
	k.own = slices.Clone(keys)
	if !slices.Contains(k.own, k.seals) {
		k.seals = k.own[0]
	}
	return k.drop()
}

// drop takes keys off the ring that are not the mesh's any more. memberlist removes a key within the slice that its readers go through without a lock,
// which does no harm to them where it is the last. So each key that stays is made the first, for an instant, and in the
// end the one that seals: those that go are behind them then. mu is held.
func (k *keyring) drop() error {
	if len(k.ring.GetKeys()) > len(k.own) {
		for _, key := range k.own {
			if err := k.ring.UseKey(key.Key[:]); err != nil {
				return fmt.Errorf("%w: %w", ErrKeys, err)
			}
		}
	}
	if err := k.use(k.seals); err != nil {
		return err
	}
	for _, key := range slices.Backward(k.ring.GetKeys()[len(k.own):]) {
		if err := k.ring.RemoveKey(key); err != nil {
			return fmt.Errorf("%w: %w", ErrKeys, err)
		}
	}
	return nil
}

// common returns the keys that all members alive can open, the preferred one first; mu is held.
func (k *keyring) common() []GossipKey {
	members := k.members()
	var list []GossipKey
	for _, key := range k.own {
		if !slices.ContainsFunc(members, func(m Member) bool {
			return m.State == StateAlive && !m.Self && !slices.Contains(m.Accepts, key.Fingerprint)
		}) {
			list = append(list, key)
		}
	}
	return list
}

// use seals with key; mu is held.
func (k *keyring) use(key GossipKey) error {
	if err := k.ring.UseKey(key.Key[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrKeys, err)
	}
	k.seals = key
	return nil
}

// SetKeys replaces the keys while the mesh runs, in whatever order the nodes do it: as long as any two have one in
// common, no member is lost. keys are 1 to MaxKeys, the preferred one first; all of them open what the others send. A
// mesh that was made without keys takes none. Errors wrap ErrKeys and leave the keys as they were.
func (m *Mesh) SetKeys(keys []GossipKey) error {
	if err := m.keys.replace(keys); err != nil {
		return err
	}
	if err := m.keys.settle(); err != nil {
		return err
	}
	if list := m.list.Load(); list != nil {
		if err := list.UpdateNode(tellTimeout); err != nil { // they hear of it with the next exchange of states
			m.log.Debug("telling the others which secrets this node has", "err", err)
		}
	}
	return nil
}
