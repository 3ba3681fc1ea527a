package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"weft/internal/peer"
)

// FileName is the name of the file in the state directory.
const FileName = "ipam.db"

// formatVersion is the version of the layout below. A file of a later one is refused.
//
//	meta:    "version" -> formatVersion in decimal, "self" -> the node's ID in hexadecimal
//	rings:   range as text -> ring
//	votes:   range as text -> state in the bootstrap instance
//	decrees: range as text, a space, the ID of the dead node -> acceptor state in the reclaim instance
//	leases:  address as text -> {"owner", "in", "since"} in JSON
const formatVersion = "1"

// lockPatience is how long Open waits for another process to release the file.
const lockPatience = time.Second

var (
	metaBucket      = []byte("meta")
	ringsBucket     = []byte("rings")
	bootstrapBucket = []byte("votes")
	leasesBucket    = []byte("leases")
	reclaimBucket   = []byte("decrees")

	versionKey = []byte("version")
	selfKey    = []byte("self")
)

// Bolt is a Store in a bbolt file.
type Bolt struct {
	db   *bbolt.DB
	path string
}

var _ Store = (*Bolt)(nil)

// Open opens the file ipam.db in the directory dir, which must exist, or creates it with mode 0600. It never changes a
// file that it cannot read. Each error names the file and, where there is one, the remedy; it wraps ErrInUse,
// ErrCorrupt, ErrVersion or an error of the file system.
func Open(dir string) (*Bolt, error) {
	path := filepath.Join(dir, FileName)
	info, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0
	if !fresh {
		if err := probe(path); err != nil {
			return nil, err
		}
	}
	db, err := openFile(path, false)
	if err != nil {
		return nil, err
	}
	if err := initialize(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	if fresh {
		if err := syncDir(dir); err != nil {
			db.Close()
			return nil, err
		}
	}
	return &Bolt{db: db, path: path}, nil
}

// Load implements Store.
func (b *Bolt) Load() (State, error) {
	state, err := load(b.db)
	if err != nil {
		return State{}, corrupt(b.path, err)
	}
	state.Source = b.path
	return state, nil
}

// Update implements Store.
func (b *Bolt) Update(f func(Tx) error) error {
	return b.db.Update(func(tx *bbolt.Tx) error { return f(boltTx{tx}) })
}

// Close implements Store.
func (b *Bolt) Close() error {
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("store: %s: %w", b.path, err)
	}
	return nil
}

// initialize writes the buckets and the version that a new file lacks.
func initialize(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, ringsBucket, bootstrapBucket, reclaimBucket, leasesBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(versionKey, []byte(formatVersion))
	})
}

// leaseValue is the stored form of a lease, without its address.
type leaseValue struct {
	Owner string       `json:"owner"`
	In    netip.Prefix `json:"in"`
	Since time.Time    `json:"since"`
}

type boltTx struct{ tx *bbolt.Tx }

func (t boltTx) SetSelf(self peer.ID) error {
	return t.tx.Bucket(metaBucket).Put(selfKey, []byte(self.String()))
}

func (t boltTx) SetRing(cidr netip.Prefix, ring []byte) error {
	return t.tx.Bucket(ringsBucket).Put([]byte(cidr.String()), ring)
}

func (t boltTx) SetBootstrapState(cidr netip.Prefix, state []byte) error {
	return t.tx.Bucket(bootstrapBucket).Put([]byte(cidr.String()), state)
}

func (t boltTx) SetReclaimState(cidr netip.Prefix, dead peer.ID, state []byte) error {
	key := []byte(cidr.String() + " " + dead.String())
	if state == nil {
		return t.tx.Bucket(reclaimBucket).Delete(key)
	}
	return t.tx.Bucket(reclaimBucket).Put(key, state)
}

func (t boltTx) PutLease(lease Lease) error {
	value, err := json.Marshal(leaseValue{Owner: lease.Holder, In: lease.In, Since: lease.Since.UTC()})
	if err != nil {
		return fmt.Errorf("store: lease of %s: %w", lease.Addr, err)
	}
	return t.tx.Bucket(leasesBucket).Put([]byte(lease.Addr.String()), value)
}

func (t boltTx) DeleteLease(addr netip.Addr) error {
	return t.tx.Bucket(leasesBucket).Delete([]byte(addr.String()))
}
