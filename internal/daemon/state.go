package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"weft/ipam/store"
	"weft/mesh"
)

// state is what a node keeps over restarts, in its state directory.
type state struct {
	identity  mesh.Identity
	targets   *mesh.Targets
	addresses store.Store
}

// openState opens the state directory and what is in it, and makes both at the first start. What cannot be read is
// refused and left as it is.
func openState(dir string) (*state, error) {
	if err := ensureStateDir(dir); err != nil {
		return nil, err
	}
	// The store comes first: it holds the lock that keeps a second daemon out.
	addresses, err := store.Open(dir)
	if err != nil {
		return nil, refuse(filepath.Join(dir, store.FileName), storeHint(err), "%w", err)
	}
	s := &state{addresses: addresses}
	if s.identity, err = mesh.LoadIdentity(dir); err != nil {
		path := filepath.Join(dir, mesh.KeyFile)
		return nil, errors.Join(refuse(path, "Restore the file, or remove it and "+store.FileName+": the node then comes back as a new "+
			"one, without its old address space.", "%w", err), addresses.Close())
	}
	if s.targets, err = mesh.LoadTargets(dir); err != nil {
		path := filepath.Join(dir, mesh.TargetsFile)
		return nil, errors.Join(refuse(path, "Remove the file and give the targets again with \"weft connect\".", "%w", err), addresses.Close())
	}
	return s, nil
}

func ensureStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return refuse("--state-dir", "Name a folder that can be made and written.", "%w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return refuse("--state-dir", "Name a folder that can be read.", "%w", err)
	}
	if !info.IsDir() {
		return refuse("--state-dir", "Name a folder.", "%s is a file", dir)
	}
	if err := checkWritable(dir); err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if !holdsOnlyState(dir) {
		return refuse("--state-dir", "Name a folder of its own, or make it mode 0700: it will hold the node's key.",
			"%s holds other files and is open to other users", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return refuse("--state-dir", "Make it mode 0700: it holds the node's key.", "%w", err)
	}
	return nil
}

// holdsOnlyState reports whether dir is empty or has nothing but a node's state in it.
func holdsOnlyState(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !slices.Contains([]string{mesh.KeyFile, mesh.TargetsFile, store.FileName, namesFile, "lost+found"}, e.Name())
	})
}

// checkWritable looks for what stops even root: a file system that is mounted read-only.
func checkWritable(dir string) error {
	err := unix.Access(dir, unix.W_OK)
	if err == nil {
		return nil
	}
	return refuse("--state-dir", "Mount its file system for writing, or name another folder.", "%w",
		&fs.PathError{Op: "write", Path: dir, Err: err})
}

// storeHint returns the mend for an error of store.Open.
func storeHint(err error) string {
	switch {
	case errors.Is(err, store.ErrInUse):
		return "Stop the other weft, or give this one a --state-dir of its own."
	case errors.Is(err, store.ErrVersion):
		return "Start the version that wrote it, or a later one."
	case errors.Is(err, store.ErrCorrupt):
		return "Restore the file, or move it away: the node then joins as a new one and asks the others for space."
	default:
		return "Mend what is said, or name another --state-dir."
	}
}
