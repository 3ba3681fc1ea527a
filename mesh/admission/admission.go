// Package admission decides which nodes are members by their signed identities: it judges certificates, spreads lists of revoked nodes,
// and keeps the epochs that seal the packets between nodes with identities (docs/PROTOCOL.md, chapter 13).
package admission

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh/epoch"
	"weft/mesh/keyring"
	"weft/mesh/seal"
)

// recheckMembers is how often the certificates of the members are judged again: they expire.
const recheckMembers = time.Second

// Store keeps the lists of revoked nodes over restarts. Its methods are called one at a time.
type Store interface {
	// Load returns the lists of the latest Save, none before the first.
	Load() ([]identity.Revocations, error)
	// Save replaces the lists. It returns when they are on disk.
	Save([]identity.Revocations) error
}

// Host is the mesh as an Admission sees it. Its methods are called from several goroutines, Certified with a lock of the Admission held.
type Host interface {
	epoch.Members
	// Recheck judges all members again at now. It returns when the latest certificate has expired, of the members that are not
	// admitted any more because of that; zero if there is none.
	Recheck(now time.Time) (expired time.Time)
	// Unicast and Broadcast send messages to the Admission of one other node, and of all.
	Unicast(to peer.ID, msg []byte) error
	Broadcast(msg []byte) error
}

// Config configures an Admission. All fields but Signed, Secrets and Store are required.
type Config struct {
	Self         peer.ID
	Cluster      string // name of the network
	Signed       identity.File
	Secrets      []keyring.Key // the keys beside those of CAs
	Store        Store         // nil: lists are lost at the end
	Keys         *keyring.Ring // made with WithCAs(Signed.CAs, Secrets)
	Host         Host
	MaxBroadcast int // length in bytes of the longest broadcast
	Logger       *slog.Logger
}

// Admission is what a node has to do with signed identities. Without a certificate of its own it admits all nodes. It implements
// mesh.Channel and mesh.Credentials. Its methods may be called concurrently.
//
// Lock order: storing, mu, then the locks of the keyring and of the Host.
type Admission struct {
	// constant
	cfg  Config
	log  *slog.Logger
	wake signal.Chan // makes Run look at once

	judging atomic.Pointer[judge] // never nil

	refused refusedNodes

	storing sync.Mutex // held while lists are stored

	mu      sync.Mutex
	keys    []keyring.Key                      // guarded by mu: without those of CAs
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

// New returns an idle Admission. The error is about the Store.
func New(cfg Config) (*Admission, error) {
	i := &Admission{cfg: cfg, log: cfg.Logger, wake: signal.New()}
	i.judging.Store(&judge{})
	if cfg.Store != nil {
		lists, err := cfg.Store.Load()
		if err != nil {
			return nil, fmt.Errorf("mesh: lists of revoked nodes: %w", err)
		}
		i.others = lists
	}
	i.setSigned(cfg.Signed, cfg.Secrets, time.Now())
	return i, nil
}

// CheckSigned returns an error about an identity that a node of a name cannot use.
func CheckSigned(f identity.File, name string) error {
	if !f.Certificate.IsZero() && len(name) > identity.MaxName {
		return fmt.Errorf("mesh: the name of a node with a certificate is longer than %d bytes", identity.MaxName)
	}
	return nil
}

// WithCAs returns the keys of CAs, and others after them.
func WithCAs(cas []identity.CAKey, others []keyring.Key) []keyring.Key {
	var keys []keyring.Key
	for _, ca := range cas {
		keys = append(keys, keyring.Key{Key: ca.GossipKey(), Fingerprint: ca.Fingerprint(), Epochs: true})
	}
	return append(keys, others...)
}

// SetCredentials replaces the identity and the keys beside those of CAs: at most keyring.Max with these, and at least one. A ring that
// was made without keys accepts none. Errors wrap keyring.ErrKeys. The caller publishes what has changed.
func (i *Admission) SetCredentials(keys []keyring.Key, f identity.File) error {
	before := i.judging.Load().signed
	if i.cfg.Keys.Sealed() && len(f.CAs) > 0 { // before a key of a CA may seal: it needs an epoch
		i.setSigned(f, i.secrets(), time.Now())
	}
	if err := i.cfg.Keys.Replace(WithCAs(f.CAs, keys)); err != nil {
		i.setSigned(before, i.secrets(), time.Now())
		return err
	}
	i.setSigned(f, slices.Clone(keys), time.Now())
	_ = i.with(func(k *epoch.Keeper, _ time.Time) error { k.Announce(); return nil })
	i.cfg.Host.Recheck(time.Now())
	i.wake.Set()
	return nil
}

// Signed returns the identity in use; zero if there is none.
func (i *Admission) Signed() identity.File { return i.judging.Load().signed }

// secrets returns the keys beside those of CAs.
func (i *Admission) secrets() []keyring.Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys
}

// setSigned replaces the certificate of this node and the CAs, with the lists that are known of them, and the other keys.
func (i *Admission) setSigned(f identity.File, keys []keyring.Key, now time.Time) {
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
			Self: i.cfg.Self, Trust: trust, Random: rand.Reader, MaxBroadcast: i.cfg.MaxBroadcast, Members: i.cfg.Host,
		}, now)
	default:
		i.keeper.SetTrust(trust, now)
	}
	i.judging.Store(&judge{signed: f, secrets: i.judging.Load().secrets})
	i.publishJudge()
	i.publishEpochs(now)
}

// publishJudge makes the present trust and keys count; mu is held.
func (i *Admission) publishJudge() {
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
func (i *Admission) publishEpochs(now time.Time) {
	var all []*seal.Keys
	sealers := map[[epoch.KeySize]byte]*seal.Keys{}
	use := func(key [epoch.KeySize]byte) {
		keys, known := i.sealers[key]
		if !known {
			var err error
			if keys, err = seal.Derive(key, i.cfg.Cluster); err != nil {
				i.log.Error("epoch key not derived", "err", err) // unreachable: keys have one length
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
	if err := i.cfg.Keys.SetEpochs(all); err != nil {
		i.log.Error("epoch keys not in use", "err", err)
	}
}

// with calls do with the keeper, unless this node has no certificate, and carries out what follows from it.
func (i *Admission) with(do func(*epoch.Keeper, time.Time) error) error {
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
			i.log.Info("list of revoked nodes adopted", "version", list.Version, "nodes", len(list.Entries))
		}
		i.cfg.Host.Recheck(now)
	}
	i.send(out)
	if out.Keys || len(out.Adopted) > 0 {
		i.wake.Set()
	}
	return err
}

// send sends what a keeper has put out.
func (i *Admission) send(out epoch.Output) {
	for _, u := range out.Unicasts {
		if err := i.cfg.Host.Unicast(u.To, u.Msg); err != nil {
			i.log.Debug("epoch not sent", "peer", u.To, "err", err)
		}
	}
	for _, b := range out.Broadcasts {
		if err := i.cfg.Host.Broadcast(b); err != nil {
			i.log.Debug("epoch not announced", "err", err)
		}
	}
}

// State implements mesh.Channel.
func (i *Admission) State() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keeper == nil {
		return nil
	}
	return i.keeper.State()
}

// Merge implements mesh.Channel.
func (i *Admission) Merge(msg []byte) error {
	return i.with(func(k *epoch.Keeper, now time.Time) error { return k.Merge(msg, now) })
}

// Message implements mesh.Channel.
func (i *Admission) Message(from peer.ID, msg []byte) error {
	return i.with(func(k *epoch.Keeper, now time.Time) error { return k.Message(from, msg, now) })
}

// Unopened handles a packet of a node that no key has opened.
func (i *Admission) Unopened(from peer.ID) {
	_ = i.with(func(k *epoch.Keeper, now time.Time) error { k.Unopened(from, now); return nil })
}

// Run stores lists, judges members again and makes epochs when they are due, until ctx ends.
func (i *Admission) Run(ctx context.Context) {
	for {
		var due <-chan time.Time // nil without a certificate
		if !i.judging.Load().signed.Certificate.IsZero() {
			due = time.After(i.look())
		}
		if err := i.store(); err != nil {
			i.log.Error("lists of revoked nodes not stored", "err", err)
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
func (i *Admission) look() time.Duration {
	now := time.Now()
	expired := i.cfg.Host.Recheck(now)
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
func (i *Admission) store() error {
	i.storing.Lock()
	defer i.storing.Unlock()
	i.mu.Lock()
	unsaved, lists := i.unsaved, i.stored()
	i.unsaved = false
	i.mu.Unlock()
	if !unsaved || i.cfg.Store == nil {
		return nil
	}
	err := i.cfg.Store.Save(lists)
	if err != nil {
		i.mu.Lock()
		i.unsaved = true // the next look tries again
		i.mu.Unlock()
	}
	return err
}

// stored returns the lists to store: those in force, and those of CAs that are not trusted at present; mu is held.
func (i *Admission) stored() []identity.Revocations {
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
func (i *Admission) Revoke(list identity.Revocations) (adopted bool, err error) {
	if i.Signed().Certificate.IsZero() {
		return false, ErrNoIdentity
	}
	err = i.with(func(k *epoch.Keeper, now time.Time) (listErr error) {
		adopted, listErr = k.AdoptList(list, now)
		return listErr
	})
	return adopted, errors.Join(err, i.store())
}

// Status is the state of signed identities at a node.
type Status struct {
	Signed identity.File  // zero: the node has none
	Trust  identity.Trust // the CAs with their lists
	Epoch  uint64         // number of the epoch that seals
}

// Status returns the state of signed identities at this node.
func (i *Admission) Status() Status {
	j := i.judging.Load()
	s := Status{Signed: j.signed, Trust: j.trust}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keeper != nil {
		s.Epoch = i.keeper.Present().Number
	}
	return s
}
