// Package cadir keeps a certificate authority in a folder: its keys, what it has issued, and its latest list of revoked nodes.
//
//	ca.key       the private key, mode 0600
//	ca.pub       the public key, the line for identity files
//	issued       a line for each certificate: when, until when, key and name
//	revocations  the latest list of revoked nodes; missing before the first one
//
// The folder need not be on a node. Its owner admits nodes to the network and shuts them out.
package cadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"weft/internal/filelock"
	"weft/internal/hint"
	"weft/internal/identity"
	"weft/internal/peer"
)

// Names of the files in the folder.
const (
	keyFile         = "ca.key"
	publicFile      = "ca.pub"
	issuedFile      = "issued"
	revocationsFile = "revocations"
	lockFile        = "lock"
)

// flag is the subject of the errors of this package.
const flag = "--dir"

// Dir is an open folder. Its methods may not be called concurrently. Errors of all functions are *hint.Error about --dir or
// about what was asked for.
type Dir struct {
	path    string
	ca      identity.CA
	release func()
}

// Init makes a CA in a folder, which must not have one yet.
func Init(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, hint.Refuse(flag, "Name a folder that can be created.", "%w", err)
	}
	if _, err := os.Lstat(filepath.Join(path, keyFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Refuse(flag, "Name another folder. To replace the CA, see \"Replace the CA\" in docs/OPERATIONS.md.",
			"%s has a CA already", path)
	}
	ca := identity.GenerateCA()
	f, err := os.OpenFile(filepath.Join(path, keyFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, hint.Refuse(flag, "Name a folder that can be written.", "%w", err)
	}
	_, err = fmt.Fprintln(f, ca.Line())
	if err = errors.Join(err, f.Sync(), f.Close(), renameio.WriteFile(filepath.Join(path, publicFile),
		[]byte(ca.Key().String()+"\n"), 0o644)); err != nil {
		return nil, hint.Refuse(flag, "Name a folder that can be written.", "%w", err)
	}
	return Open(context.Background(), path)
}

// Open opens the folder of a CA and locks it until Close. It refuses a private key that other users can read.
func Open(ctx context.Context, path string) (*Dir, error) {
	key := filepath.Join(path, keyFile)
	info, err := os.Stat(key)
	switch {
	case err != nil:
		return nil, hint.Refuse(flag, "Name the folder that \"weft ca init\" has made.", "%w", err)
	case info.Mode().Perm()&0o077 != 0:
		return nil, hint.Refuse(flag, "Make it mode 0600 (chmod 600), and replace the CA if another user may have read it.",
			"%s can be read or written by other users: mode %#o", key, info.Mode().Perm())
	}
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, hint.Refuse(flag, "Run the command as the owner of the folder.", "%w", err)
	}
	ca, err := identity.ParseCA(string(text))
	if err != nil {
		return nil, hint.Refuse(flag, "Restore the file from a backup.", "%s: %w", key, err)
	}
	release, err := filelock.Acquire(ctx, filepath.Join(path, lockFile))
	if err != nil {
		return nil, hint.Refuse(flag, "Make the folder writable.", "%w", err)
	}
	return &Dir{path, ca, release}, nil
}

// Close releases the lock of the folder.
func (d *Dir) Close() { d.release() }

// Key returns the public key of the CA.
func (d *Dir) Key() identity.CAKey { return d.ca.Key() }

// Sign signs a request, records that, and returns the identity file of the node. It refuses a key that is revoked.
func (d *Dir) Sign(r identity.Request, terms identity.Terms, now time.Time) (identity.File, error) {
	list, err := d.Revocations()
	if err != nil {
		return identity.File{}, err
	}
	if at, revoked := list.Has(r.ID()); revoked {
		return identity.File{}, hint.New(hint.Refused, "Remove node.key from the node's state directory, and sign its new request.",
			"node %s was revoked on %s", r.ID(), at.Format(time.DateOnly))
	}
	certificate, err := d.ca.Sign(r.Public, terms)
	if err != nil {
		return identity.File{}, hint.New(hint.Usage, "Choose another --name, --addresses or --expires.", "%w", err)
	}
	if err := d.record(issued{now, terms.NotAfter, r}); err != nil {
		return identity.File{}, err
	}
	return identity.File{CAs: []identity.CAKey{d.Key()}, Certificate: certificate}, nil
}

// Revocations returns the latest list of the CA; the zero one if there is none.
func (d *Dir) Revocations() (identity.Revocations, error) {
	path := filepath.Join(d.path, revocationsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity.Revocations{}, nil
	}
	var list identity.Revocations
	if err == nil {
		list, err = identity.ParseRevocationsLine(string(text))
	}
	if err == nil && !list.SignedBy(d.Key()) {
		err = errors.New("it is not signed by this CA")
	}
	if err != nil {
		return identity.Revocations{}, hint.Refuse(flag, "Restore the file from a backup, or remove it on a host with a running node: "+
			"\"weft revoke\" gets the list from there.", "%s: %w", path, err)
	}
	return list, nil
}

// Revoke signs and stores the next list: the latest one that is known with one more node, without those that cannot have a valid
// certificate any more. known is a list of this CA that a node has; the zero one if there is none.
func (d *Dir) Revoke(node string, known identity.Revocations, now time.Time) (identity.Revocations, peer.ID, error) {
	id, err := d.find(node)
	if err != nil {
		return identity.Revocations{}, id, err
	}
	own, err := d.Revocations()
	if err != nil {
		return identity.Revocations{}, id, err
	}
	entries := append([]identity.Revocation{{ID: id, At: now}}, own.Entries...)
	if known.SignedBy(d.Key()) { // the folder may be an old copy
		entries = append(entries, known.Entries...)
	} else {
		known = identity.Revocations{}
	}
	if entries, err = d.withoutExpired(entries, id, now); err != nil {
		return identity.Revocations{}, id, err
	}
	list, err := d.ca.SignRevocations(max(own.Version, known.Version)+1, now, entries)
	if err != nil {
		return identity.Revocations{}, id, hint.New(hint.Refused, "Replace the CA.", "%w", err)
	}
	err = renameio.WriteFile(filepath.Join(d.path, revocationsFile), []byte(list.String()+"\n"), 0o644)
	if err != nil {
		return identity.Revocations{}, id, hint.Refuse(flag, "Make the folder writable.", "%w", err)
	}
	return list, id, nil
}

// find returns the ID of a node that is named by its ID, its public key, its request, or the name under which it was issued a
// certificate.
func (d *Dir) find(node string) (peer.ID, error) {
	if id, err := peer.ParseID(node); err == nil {
		return id, nil
	}
	if r, err := identity.ParseRequest(identity.RequestPrefix + " " + strings.TrimPrefix(node, identity.RequestPrefix+" ")); err == nil {
		return r.ID(), nil
	}
	all, err := d.issued()
	if err != nil {
		return peer.ID{}, err
	}
	found := map[peer.ID]bool{}
	var id peer.ID
	for _, i := range all {
		if i.request.Name == node {
			id, found[i.request.ID()] = i.request.ID(), true
		}
	}
	switch len(found) {
	case 0:
		return peer.ID{}, hint.New(hint.NotFound, "Give its ID; \"weft peers\" shows it.", "this CA has issued no certificate for a node %q",
			node)
	case 1:
		return id, nil
	default:
		return peer.ID{}, hint.New(hint.Invalid, "Give the ID of the node; \"weft peers\" shows it.", "%d nodes were issued a certificate as %q",
			len(found), node)
	}
}
