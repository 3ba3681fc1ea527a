package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"weft/internal/peer"
)

// corrupt returns an error for a file that cannot be read, with the remedy.
func corrupt(path string, err error) error {
	return fmt.Errorf("%w: %s (%w): move it away: this node then joins as a new one and requests addresses of the others",
		ErrCorrupt, path, err)
}

// probe reads all of the file at path without writing to it, and returns why it cannot be used.
func probe(path string) error {
	db, err := openFile(path, true)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := load(db); errors.Is(err, ErrVersion) {
		return fmt.Errorf("%s: %w", path, err)
	} else if err != nil {
		return corrupt(path, err)
	}
	return nil
}

// HasLeases reports whether the store in the directory dir contains leases, or is in use by a daemon. It changes nothing. Without a
// store, or with one that cannot be read, it returns false.
func HasLeases(dir string) bool {
	path := filepath.Join(dir, FileName)
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return false
	}
	db, err := openFile(path, true)
	if err != nil {
		return errors.Is(err, ErrInUse)
	}
	defer db.Close()
	state, err := load(db)
	return err == nil && len(state.Leases) > 0
}

// openFile opens the database. Panics and faults of bbolt on broken files are returned as errors.
func openFile(path string, readOnly bool) (db *bbolt.DB, err error) {
	var file *os.File
	options := *bbolt.DefaultOptions
	options.Timeout = lockPatience
	options.ReadOnly = readOnly
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		file = f
		return f, err
	}
	err = guard(func() error {
		db, err = bbolt.Open(path, 0o600, &options)
		return err
	})
	var pathError *fs.PathError
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s is locked: stop that one, or use another state directory", ErrInUse, path)
	case errors.As(err, &pathError): // its text contains the path
		return nil, fmt.Errorf("store: %w", err)
	}
	if file != nil {
		file.Close() // a panic leaves it open and locked; a second close does no harm
	}
	return nil, corrupt(path, err)
}

// guard runs f and returns an error for a panic in it, or for a fault from a memory map that is longer than its file.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

// load reads everything in db.
func load(db *bbolt.DB) (State, error) {
	state := State{Ranges: make(map[netip.Prefix]Range)}
	err := guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			if err := loadMeta(tx, &state); err != nil {
				return err
			}
			if err := loadRanges(tx, &state); err != nil {
				return err
			}
			return loadLeases(tx, &state)
		})
	})
	return state, err
}

// loadMeta reads the version and the ID of the node. A file of which only the creation is durable has no buckets: it is
// empty.
func loadMeta(tx *bbolt.Tx, state *State) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return nil
	}
	if version := meta.Get(versionKey); string(version) != formatVersion {
		return fmt.Errorf("%w: version %q, this weft reads %s: install the one that wrote it", ErrVersion, version, formatVersion)
	}
	text := meta.Get(selfKey)
	if text == nil {
		return nil
	}
	self, err := peer.ParseID(string(text))
	if err != nil {
		return err
	}
	state.Self = self
	return nil
}

func loadRanges(tx *bbolt.Tx, state *State) error {
	each := func(name []byte, set func(r *Range, value []byte)) error {
		bucket := tx.Bucket(name)
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(k, v []byte) error {
			cidr, err := netip.ParsePrefix(string(k))
			if err != nil {
				return err
			}
			r := state.Ranges[cidr]
			set(&r, slices.Clone(v))
			state.Ranges[cidr] = r
			return nil
		})
	}
	if err := each(ringsBucket, func(r *Range, value []byte) { r.Ring = value }); err != nil {
		return err
	}
	if err := each(bootstrapBucket, func(r *Range, value []byte) { r.BootstrapState = value }); err != nil {
		return err
	}
	return loadReclaimStates(tx, state)
}

func loadReclaimStates(tx *bbolt.Tx, state *State) error {
	bucket := tx.Bucket(reclaimBucket)
	if bucket == nil {
		return nil
	}
	return bucket.ForEach(func(k, v []byte) error {
		text, id, _ := strings.Cut(string(k), " ")
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		dead, err := peer.ParseID(id)
		if err != nil {
			return err
		}
		r := state.Ranges[cidr]
		if r.ReclaimStates == nil {
			r.ReclaimStates = make(map[peer.ID][]byte)
		}
		r.ReclaimStates[dead] = slices.Clone(v)
		state.Ranges[cidr] = r
		return nil
	})
}

func loadLeases(tx *bbolt.Tx, state *State) error {
	bucket := tx.Bucket(leasesBucket)
	if bucket == nil {
		return nil
	}
	err := bucket.ForEach(func(k, v []byte) error {
		addr, err := netip.ParseAddr(string(k))
		if err != nil {
			return err
		}
		var value leaseValue
		if err := json.Unmarshal(v, &value); err != nil {
			return fmt.Errorf("lease of %s: %w", addr, err)
		}
		state.Leases = append(state.Leases, Lease{Holder: value.Owner, Addr: addr, In: value.In, Since: value.Since})
		return nil
	})
	slices.SortFunc(state.Leases, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return err
}

// syncDir makes the directory entry of a new file in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
