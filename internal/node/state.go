package node

import (
	"errors"
	"path/filepath"

	"weft/internal/hint"
	"weft/internal/statedir"
	"weft/ipam/store"
	"weft/mesh"
	"weft/mesh/addressbook"
)

// state is what a node keeps over restarts, in its state directory.
type state struct {
	identity  mesh.Identity
	targets   *addressbook.Book
	addresses store.Store
}

// openState opens the state directory and its files, and creates them at the first start. It refuses files that it cannot read,
// and leaves them unchanged. protectedBy is the file that protects the node's traffic, empty for none; the directory remembers it.
func openState(dir, protectedBy string) (*state, error) {
	if err := statedir.Ensure(dir); err != nil {
		return nil, err
	}
	// The store comes first: its lock keeps a second daemon out.
	addresses, err := store.Open(dir)
	if err != nil {
		return nil, hint.Refuse(filepath.Join(dir, statedir.StoreFile), storeHint(err), "%w", err)
	}
	s := &state{addresses: addresses}
	if s.identity, err = mesh.LoadIdentity(dir); err != nil {
		return nil, errors.Join(hint.Refuse(filepath.Join(dir, statedir.KeyFile), "Restore the file, or remove it and "+statedir.StoreFile+
			": the node then comes back as a new one, without its old address space.", "%w", err), addresses.Close())
	}
	if s.targets, err = addressbook.Load(dir); err != nil {
		return nil, errors.Join(hint.Refuse(filepath.Join(dir, statedir.TargetsFile),
			"Remove the file and add the targets again with \"weft connect\".", "%w", err), addresses.Close())
	}
	if protectedBy != "" {
		if err := statedir.MarkSealed(dir, protectedBy); err != nil {
			return nil, errors.Join(err, addresses.Close())
		}
	}
	return s, nil
}

// storeHint returns the remedy for an error of store.Open.
func storeHint(err error) string {
	switch {
	case errors.Is(err, store.ErrInUse):
		return "Stop the other weft, or give this one its own --state-dir."
	case errors.Is(err, store.ErrVersion):
		return "Start the version that wrote it, or a later one."
	case errors.Is(err, store.ErrCorrupt):
		return "Restore the file, or move it away: the node then joins as a new one and requests address space from the others."
	default:
		return "Fix the error, or name another --state-dir."
	}
}
