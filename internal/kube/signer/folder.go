package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weft/internal/hint"
	"weft/internal/identity"
)

// Names of the files in a Folder.
const (
	keyFile         = "ca.key"
	publicFile      = "ca.pub"
	revocationsFile = "revocations"
	deniedFile      = "denied"
)

// Folder is the path of a folder with the CA, from a Secret and a ConfigMap:
//
//	ca.key       the private key, as "weft ca init" writes it
//	ca.pub       the CAs that nodes trust; the CA of the key is one of them
//	revocations  the latest list of "weft revoke"; may be missing: no key is refused
//	denied       names of nodes that get no certificate, one a line; may be missing: all may get one
//
// The signer reads it again for each decision. It signs nothing while a file cannot be read.
type Folder string

// authority is the content of a Folder.
type authority struct {
	ca      identity.CA
	revoked identity.Revocations
	denied  []string
}

// load reads the folder. Errors are *hint.Error.
func (f Folder) load() (a authority, err error) {
	const secret = "Create the Secret (kubectl -n kube-system create secret generic weft-ca --from-file=ca.key=ca/ca.key)."
	text, err := f.read(keyFile)
	if err == nil {
		a.ca, err = identity.ParseCA(text)
	}
	if err != nil {
		return authority{}, hint.Refuse(f.path(keyFile), secret, "%w", err)
	}
	text, err = f.read(publicFile)
	var trusted []identity.CAKey
	if err == nil {
		trusted, err = identity.ParseCAs(text)
	}
	if err == nil && !slices.Contains(trusted, a.ca.Key()) {
		err = fmt.Errorf("nodes do not trust the CA of %s", keyFile)
	}
	if err != nil {
		return authority{}, hint.Refuse(f.path(publicFile),
			"Create the ConfigMap (kubectl -n kube-system create configmap weft-ca --from-file=ca.pub=ca/ca.pub).", "%w", err)
	}
	return a, f.exceptions(&a)
}

// exceptions reads which keys and nodes get no certificate.
func (f Folder) exceptions(a *authority) error {
	text, err := f.read(revocationsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil:
		if a.revoked, err = identity.ParseRevocationsLine(text); err == nil && !a.revoked.SignedBy(a.ca.Key()) {
			err = errors.New("the list is not signed by this CA")
		}
	}
	if err != nil {
		return hint.Refuse(f.path(revocationsFile), "Replace it by the file of that name in the folder of the CA.", "%w", err)
	}
	text, err = f.read(deniedFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hint.Refuse(f.path(deniedFile), "Make it readable.", "%w", err)
	}
	a.denied = strings.Fields(text)
	return nil
}

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

func (f Folder) read(name string) (string, error) {
	text, err := os.ReadFile(f.path(name))
	return string(text), err
}
