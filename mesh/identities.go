package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh/epoch"
	"weft/mesh/seal"
)

// channelIdentity is the channel of the lists of revoked nodes and of the epochs.
const channelIdentity ChannelID = 4

// recheckMembers is how often the certificates of the members are judged again: they expire.
const recheckMembers = time.Second

// RevokedStore keeps the lists of revoked nodes over restarts. Its methods are called one at a time.
type RevokedStore interface {
	// Load returns the lists of the latest Save, none before the first.
	Load() ([]identity.Revocations, error)
	// Save replaces the lists. It returns when they are on disk.
	Save([]identity.Revocations) error
}

// identities is what a node has to do with signed identities: it judges those of other nodes, spreads the lists of revoked nodes, and
// keeps the epochs. It implements Channel and Credentials. Without a certificate of its own it admits all nodes. Its methods may be
// called concurrently.
//
// Lock order: storing, mu, then the locks of the keyring and of the roster.
type identities struct {
	// constant
	mesh *Mesh
	wake signal.Chan // makes run look at once

	judging atomic.Pointer[judge] // never nil

	refused refusedNodes

	storing sync.Mutex // held while lists are stored

	mu      sync.Mutex
	keys    []GossipKey                        // guarded by mu: without those of CAs
	keeper  *epoch.Keeper                      // guarded by mu; nil without a certificate
	unsaved bool                               // guarded by mu: lists were adopted since they were stored
	others  []identity.Revocations             // guarded by mu: stored lists of CAs that are not trusted at present
	sealers map[[epoch.KeySize]byte]*seal.Keys // guarded by mu: of the keys in use
}

// judge is by what a node judges certificates. It is immutable.
type judge struct {
	signed  identity.File
	trust   identity.Trust
	secrets bool            // nodes with a common secret are admitted as well
	cas     map[uint32]bool // fingerprints of the CAs
}

var (
	_ Channel       = (*identities)(nil)
	_ Credentials   = (*identities)(nil)
	_ epoch.Members = (*identities)(nil)
)

func newIdentities(m *Mesh) (*identities, error) {
	i := &identities{mesh: m, wake: signal.New()}
	i.judging.Store(&judge{})
	if m.cfg.Revoked != nil {
		lists, err := m.cfg.Revoked.Load()
		if err != nil {
			return nil, fmt.Errorf("mesh: lists of revoked nodes: %w", err)
		}
		i.others = lists
	}
	i.setSigned(m.cfg.Signed, m.cfg.Keys, time.Now())
	return i, nil
}

// checkSigned returns an error about an identity that a node of a name cannot use.
func checkSigned(f identity.File, name string) error {
	if !f.Certificate.IsZero() && len(name) > identity.MaxName {
		return fmt.Errorf("mesh: the name of a node with a certificate is longer than %d bytes", identity.MaxName)
	}
	return nil
}

// withCAs returns the keys of CAs, and others after them.
func withCAs(cas []identity.CAKey, others []GossipKey) []GossipKey {
	var keys []GossipKey
	for _, ca := range cas {
		keys = append(keys, GossipKey{Key: ca.GossipKey(), Fingerprint: ca.Fingerprint(), Epochs: true})
	}
	return append(keys, others...)
}

// SetCredentials replaces the keys and the identity while the mesh runs: at most MaxKeys, those of CAs included, and at least one. As
// long as any two nodes have one of them in common, no member is lost. A mesh that was made without any accepts none. Errors wrap
// ErrKeys. SetCredentials waits at most publishTimeout until another node knows.
func (m *Mesh) SetCredentials(keys []GossipKey, f identity.File) error {
	if err := checkSigned(f, m.cfg.Name); err != nil {
		return err
	}
	i := m.identities
	before := i.judging.Load().signed
	if m.keys.Sealed() && len(f.CAs) > 0 { // before a key of a CA may seal: it needs an epoch
		i.setSigned(f, i.secrets(), time.Now())
	}
	if err := m.keys.Replace(withCAs(f.CAs, keys)); err != nil {
		i.setSigned(before, i.secrets(), time.Now())
		return err
	}
	i.setSigned(f, slices.Clone(keys), time.Now())
	_ = i.with(func(k *epoch.Keeper, _ time.Time) error { k.Announce(); return nil })
	m.roster.recheck(time.Now())
	m.roster.change.Set()
	i.wake.Set()
	return m.publishKeys()
}

// SetKeys replaces the keys beside those of CAs, as SetCredentials does.
func (m *Mesh) SetKeys(keys []GossipKey) error {
	return m.SetCredentials(keys, m.identities.judging.Load().signed)
}

// secrets returns the keys beside those of CAs.
func (i *identities) secrets() []GossipKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys
}

// setSigned replaces the certificate of this node and the CAs, with the lists that are known of them, and the other keys.
func (i *identities) setSigned(f identity.File, keys []GossipKey, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
	lists := i.stored()
	trust := identity.NewTrust(f.CAs)
	i.others = nil
	for _, list := range lists {
		if next, _, err := trust.Adopt(list); err != nil {
			i.others = append(i.others, list)
		} else {
			trust = next
		}
	}
	switch {
	case f.Certificate.IsZero():
		i.keeper = nil
	case i.keeper == nil:
		i.keeper = epoch.New(epoch.Config{
			Self: i.mesh.cfg.Identity.ID, Trust: trust, Random: rand.Reader, MaxBroadcast: MaxBroadcast, Members: i,
		}, now)
	default:
		i.keeper.SetTrust(trust, now)
	}
	i.judging.Store(&judge{signed: f, secrets: i.judging.Load().secrets})
	i.publishJudge()
	i.publishEpochs(now)
}

// publishJudge makes the present trust and keys count; mu is held.
func (i *identities) publishJudge() {
	j := &judge{signed: i.judging.Load().signed, secrets: len(i.keys) > 0, cas: map[uint32]bool{}}
	if i.keeper != nil {
		j.trust = i.keeper.Trust()
	}
	for _, ca := range j.signed.CAs {
		j.cas[ca.Fingerprint()] = true
	}
	i.judging.Store(j)
}

// publishEpochs seals and opens packets with the present epochs; mu is held.
func (i *identities) publishEpochs(now time.Time) {
	var all []*seal.Keys
	sealers := map[[epoch.KeySize]byte]*seal.Keys{}
	use := func(key [epoch.KeySize]byte) {
		keys, known := i.sealers[key]
		if !known {
			var err error
			if keys, err = seal.Derive(key, i.mesh.cfg.cluster()); err != nil {
				i.mesh.log.Error("epoch key not derived", "err", err) // unreachable: keys have one length
				return
			}
		}
		sealers[key] = keys
		all = append(all, keys)
	}
	if i.keeper != nil {
		present := i.keeper.Present().Key
		use(present)
		for _, key := range i.keeper.Opening(now) {
			if key.Key != present {
				use(key.Key)
			}
		}
	}
	i.sealers = sealers
	if err := i.mesh.keys.SetEpochs(all); err != nil {
		i.mesh.log.Error("epoch keys not in use", "err", err)
	}
}

// with calls do with the keeper, unless this node has no certificate, and carries out what follows from it.
func (i *identities) with(do func(*epoch.Keeper, time.Time) error) error {
	now := time.Now()
	i.mu.Lock()
	if i.keeper == nil {
		i.mu.Unlock()
		return nil
	}
	err := do(i.keeper, now)
	out := i.keeper.Drain()
	if len(out.Adopted) > 0 {
		i.unsaved = true
		i.publishJudge()
	}
	if out.Keys || len(i.keeper.Opening(now)) != len(i.sealers) { // a key may not open any more
		i.publishEpochs(now)
	}
	i.mu.Unlock()
	if len(out.Adopted) > 0 {
		for _, list := range out.Adopted {
			i.mesh.log.Info("list of revoked nodes adopted", "version", list.Version, "nodes", len(list.Entries))
		}
		i.mesh.roster.recheck(now)
	}
	i.send(out)
	if out.Keys || len(out.Adopted) > 0 {
		i.wake.Set()
	}
	return err
}

// send sends what a keeper has put out.
func (i *identities) send(out epoch.Output) {
	sender := i.mesh.Sender(channelIdentity)
	for _, u := range out.Unicasts {
		if err := sender.Unicast(u.To, u.Msg); err != nil {
			i.mesh.log.Debug("epoch not sent", "peer", u.To, "err", err)
		}
	}
	for _, b := range out.Broadcasts {
		if err := sender.Broadcast(b); err != nil {
			i.mesh.log.Debug("epoch not announced", "err", err)
		}
	}
}

// Certified implements epoch.Members.
func (i *identities) Certified() []peer.ID { return i.mesh.roster.certified() }

// State implements Channel.
func (i *identities) State() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keeper == nil {
		return nil
	}
	return i.keeper.State()
}

// Merge implements Channel.
func (i *identities) Merge(msg []byte) error {
	return i.with(func(k *epoch.Keeper, now time.Time) error { return k.Merge(msg, now) })
}

// Message implements Channel.
func (i *identities) Message(from peer.ID, msg []byte) error {
	return i.with(func(k *epoch.Keeper, now time.Time) error { return k.Message(from, msg, now) })
}

// unopened handles a packet of a node that no key has opened.
func (i *identities) unopened(from peer.ID) {
	_ = i.with(func(k *epoch.Keeper, now time.Time) error { k.Unopened(from, now); return nil })
}

// run stores lists, judges members again and makes epochs when they are due, until ctx ends.
func (i *identities) run(ctx context.Context) {
	for {
		var due <-chan time.Time // nil without a certificate
		if !i.judging.Load().signed.Certificate.IsZero() {
			due = time.After(i.look())
		}
		if err := i.store(); err != nil {
			i.mesh.log.Error("lists of revoked nodes not stored", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-i.wake.C():
		case <-due:
		}
	}
}

// look does what is due, and returns how long nothing will be.
func (i *identities) look() time.Duration {
	now := time.Now()
	expired := i.mesh.roster.recheck(now)
	next := now.Add(recheckMembers)
	_ = i.with(func(k *epoch.Keeper, now time.Time) error {
		if !expired.IsZero() {
			k.Expired(expired, now)
		}
		if !now.Before(k.Next(now)) {
			k.Tick(now)
		}
		if at := k.Next(now); at.Before(next) {
			next = at
		}
		return nil
	})
	return max(time.Until(next), time.Millisecond)
}

// store stores the lists, if there are new ones.
func (i *identities) store() error {
	i.storing.Lock()
	defer i.storing.Unlock()
	i.mu.Lock()
	unsaved, lists := i.unsaved, i.stored()
	i.unsaved = false
	i.mu.Unlock()
	if !unsaved || i.mesh.cfg.Revoked == nil {
		return nil
	}
	err := i.mesh.cfg.Revoked.Save(lists)
	if err != nil {
		i.mu.Lock()
		i.unsaved = true // the next look tries again
		i.mu.Unlock()
	}
	return err
}

// stored returns the lists to store: those in force, and those of CAs that are not trusted at present; mu is held.
func (i *identities) stored() []identity.Revocations {
	lists := slices.Clone(i.others)
	if i.keeper != nil {
		for _, ca := range i.keeper.Trust().CAs() {
			if list := i.keeper.Trust().List(ca); !list.IsZero() {
				lists = append(lists, list)
			}
		}
	}
	return lists
}

// ErrNoIdentity is returned by Revoke on a node without a certificate.
var ErrNoIdentity = errors.New("mesh: this node has no identity")

// Revoke adopts a list of revoked nodes, if it is newer than the one in force, stores it, and spreads it to the other nodes. adopted
// is false if the node had it or a newer one. The error is ErrNoIdentity, about a list that no CA has signed, or about the disk; in
// the last case the list is in force nevertheless.
func (m *Mesh) Revoke(list identity.Revocations) (adopted bool, err error) {
	if m.identities.judging.Load().signed.Certificate.IsZero() {
		return false, ErrNoIdentity
	}
	err = m.identities.with(func(k *epoch.Keeper, now time.Time) (listErr error) {
		adopted, listErr = k.AdoptList(list, now)
		return listErr
	})
	return adopted, errors.Join(err, m.identities.store())
}

// IdentityStatus is the state of signed identities at a node.
type IdentityStatus struct {
	Signed identity.File  // zero: the node has none
	Trust  identity.Trust // the CAs with their lists
	Epoch  uint64         // number of the epoch that seals
}

// IdentityStatus returns the state of signed identities at this node.
func (m *Mesh) IdentityStatus() IdentityStatus {
	i := m.identities
	j := i.judging.Load()
	s := IdentityStatus{Signed: j.signed, Trust: j.trust}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keeper != nil {
		s.Epoch = i.keeper.Present().Number
	}
	return s
}
