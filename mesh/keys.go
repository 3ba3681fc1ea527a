package mesh

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// MaxKeys is how many keys a mesh can have: their fingerprints have to fit the node's metadata.
const MaxKeys = 8

// publishTimeout bounds how long new metadata is waited for to reach the first other node.
const publishTimeout = 2 * time.Second

// ErrKeys is wrapped by the errors about keys that a mesh cannot use.
var ErrKeys = errors.New("mesh: keys")

// GossipKey is a key that seals gossip (AES-256-GCM).
type GossipKey struct {
	// Key is never printed.
	Key [32]byte
	// Fingerprint is the public name of the secret that the key is derived from. It is published to the other nodes.
	Fingerprint uint32
}

// Format implements fmt.Formatter: all verbs print the fingerprint only.
func (k GossipKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key(%08x)", k.Fingerprint) }

// keyring holds the keys of a mesh, and chooses the one that seals gossip. All of them open gossip. A cluster can
// therefore rotate its secret in any order of its nodes: a node that has the new one continues to seal with the old one
// until every member that is alive has published that it can open the new one (docs/adr/0011-rotation-in-any-order.md).
type keyring struct {
	// constant
	ring    *memberlist.Keyring // nil: gossip is plain
	members func() []Member     // called with mu held, so that the latest choice is based on the latest members

	// switching is held by exchangeWithAnyKey, over network I/O. Lock order: switching, then mu.
	switching sync.Mutex

	mu     sync.Mutex
	own    []GossipKey // guarded by mu: the preferred one first
	sealer GossipKey   // guarded by mu: the one of own that seals
	pinned bool        // guarded by mu: exchangeWithAnyKey has set sealer, and choose keeps it while all members can open it
}

// newKeyring returns the keyring of a mesh. Without keys gossip stays plain for the lifetime of the mesh.
func newKeyring(keys []GossipKey, members func() []Member) (*keyring, error) {
	if len(keys) == 0 {
		return &keyring{}, nil
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	k := &keyring{members: members, own: slices.Clone(keys), sealer: keys[0]}
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
		return fmt.Errorf("%w: %d keys, want 1 to %d", ErrKeys, len(keys), MaxKeys)
	}
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k GossipKey) bool { return k.Key == key.Key }) {
			return fmt.Errorf("%w: one of them is given twice", ErrKeys)
		}
	}
	return nil
}

// sealed reports whether gossip is sealed.
func (k *keyring) sealed() bool { return k.ring != nil }

// fingerprints returns the fingerprints of the keys, the preferred one first.
func (k *keyring) fingerprints() []uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []uint32
	for _, key := range k.own {
		list = append(list, key.Fingerprint)
	}
	return list
}

// choose seals gossip with the first key that all members alive can open. Without such a key the present one stays: a new
// node that has too little in common with the others cannot separate them.
func (k *keyring) choose() error {
	if !k.sealed() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	common := k.common()
	if len(common) == 0 || k.pinned && slices.Contains(common, k.sealer) {
		return nil
	}
	return k.sealWith(common[0])
}

// exchangeWithAnyKey switches the gossip key of the whole node, for all of its gossip, while it tries to reach one other
// node: memberlist seals everything with one key, so there is no way to seal a single exchange with another one. It calls
// exchange first with the present key, and while that fails because the other node has none of this node's keys in use, once
// with each other key that all members alive can open. Before it returns it restores the choice that choose makes. Calls
// wait for each other.
func (k *keyring) exchangeWithAnyKey(exchange func() error) error {
	err := exchange()
	if !isOtherSecret(err) {
		return err
	}
	k.switching.Lock()
	defer k.switching.Unlock()
	for _, key := range k.alternatives() {
		keyErr := k.pin(key)
		if keyErr == nil {
			keyErr = exchange()
		}
		if !isOtherSecret(keyErr) {
			err = keyErr
			break
		}
	}
	return errors.Join(err, k.unpin())
}

// isOtherSecret reports whether err means that both nodes have secrets, and that the one in use here is unknown there or
// the other way round.
func isOtherSecret(err error) bool {
	e, ok := errors.AsType[*SecretError](err)
	return ok && e.Reason == MismatchOther
}

// alternatives returns the keys other than the present one that all members alive can open.
func (k *keyring) alternatives() []GossipKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(k.common(), func(key GossipKey) bool { return key == k.sealer })
}

// pin seals gossip with key until unpin.
func (k *keyring) pin(key GossipKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.own, key) {
		return fmt.Errorf("%w: replaced meanwhile", ErrKeys)
	}
	k.pinned = true
	return k.sealWith(key)
}

// unpin ends pin and chooses the key as usual.
func (k *keyring) unpin() error {
	k.mu.Lock()
	k.pinned = false
	k.mu.Unlock()
	return k.choose()
}

// replace replaces all keys.
func (k *keyring) replace(keys []GossipKey) error {
	if !k.sealed() {
		return fmt.Errorf("%w: gossip is plain: a restart is needed to add the first secret or to remove the last one", ErrKeys)
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
	if !slices.Contains(k.own, k.sealer) {
		k.sealer = k.own[0]
	}
	return k.dropReplaced()
}

// dropReplaced removes the keys from the ring that the mesh no longer has; mu is held. memberlist removes a key within
// the slice that its readers iterate over without a lock. That is harmless to them only when it is the last key. So each
// key that stays is made the first one for an instant, and at the end the one that seals: the keys to remove are then
// behind all others.
func (k *keyring) dropReplaced() error {
	if len(k.ring.GetKeys()) > len(k.own) {
		for _, key := range k.own {
			if err := k.ring.UseKey(key.Key[:]); err != nil {
				return fmt.Errorf("%w: %w", ErrKeys, err)
			}
		}
	}
	if err := k.sealWith(k.sealer); err != nil {
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

// sealWith seals gossip with key; mu is held.
func (k *keyring) sealWith(key GossipKey) error {
	if err := k.ring.UseKey(key.Key[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrKeys, err)
	}
	k.sealer = key
	return nil
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
