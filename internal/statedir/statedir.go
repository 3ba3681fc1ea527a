// Package statedir makes and checks the state directory: the files that a node keeps over restarts.
package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
)

// Names of the files in a state directory.
const (
	KeyFile     = "node.key"     // identity of the node, see package mesh
	TargetsFile = "targets.json" // what the node dials, see package addressbook
	StoreFile   = "ipam.db"      // address ring and leases, see package ipam/store
	GuardFile   = "guard.json"   // which ports are bound to pods, see package guard
	ExposedFile = "exposed.json" // what was asked for the bridge's addresses, see package exposure
	NamesFile   = "names.json"   // names that this node publishes, see package dns
	RevokedFile = "revocations"  // lists of revoked nodes, see package identity
)

// flag is the subject of the errors of this package.
const flag = "--state-dir"

// minFree is how many bytes should be free for the state.
const minFree = 64 << 20

// Ensure makes the directory with mode 0700 where it is missing, and checks that a node can use it. A directory of other
// files that other users can read is refused: it would hold the node's key. Errors are *hint.Error.
func Ensure(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return hint.Refuse(flag, "Name a directory that can be created and written.", "%w", err)
	}
	open, err := check(dir)
	if err != nil || !open {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return hint.Refuse(flag, "Make it mode 0700: it holds the node's key.", "%w", err)
	}
	return nil
}

// Check reports whether Ensure would succeed, and changes nothing. For a directory that does not exist yet it checks the
// nearest parent. exists reports whether the directory itself is there.
func Check(dir string) (exists bool, err error) {
	_, err = os.Stat(dir)
	if !errors.Is(err, os.ErrNotExist) {
		_, err = check(dir)
		return true, err
	}
	for parent := dir; err != nil && parent != filepath.Dir(parent); {
		parent = filepath.Dir(parent)
		if _, err = os.Stat(parent); err == nil {
			return false, writable(parent)
		}
	}
	return false, nil
}

// check checks a directory that exists. open reports that other users can enter it although nothing but state is in it.
func check(dir string) (open bool, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return false, hint.Refuse(flag, "Name a directory that can be read.", "%w", err)
	}
	if !info.IsDir() {
		return false, hint.Refuse(flag, "Name a directory.", "%s is a file", dir)
	}
	if err := writable(dir); err != nil {
		return false, err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return false, nil
	}
	if !holdsOnlyState(dir) {
		return false, hint.Refuse(flag, "Name a directory for weft alone, or make it mode 0700: it holds the node's key.",
			"%s contains other files and is open to other users", dir)
	}
	return true, nil
}

// holdsOnlyState reports whether dir is empty or contains nothing but a node's state.
func holdsOnlyState(dir string) bool {
	known := []string{KeyFile, TargetsFile, StoreFile, NamesFile, GuardFile, ExposedFile, SealedFile, RevokedFile, "lost+found"}
	entries, err := os.ReadDir(dir)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !slices.Contains(known, e.Name()) })
}

// writable checks for what stops even root: a file system that is mounted read-only.
func writable(dir string) error {
	err := unix.Access(dir, unix.W_OK)
	if err == nil {
		return nil
	}
	return hint.Refuse(flag, "Mount its file system for writing, or name another directory.", "%w",
		&fs.PathError{Op: "write", Path: dir, Err: err})
}

// LowSpace reports whether the file system of dir has less free space than state needs, and the limit in bytes.
func LowSpace(dir string) (low bool, limit uint64) {
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	return err == nil && stat.Bavail*uint64(stat.Bsize) < minFree, minFree
}
