// Package nodekey keeps the key pair of a node in its state directory.
package nodekey

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/curve25519"

	"weft/internal/peer"
)

// File is the name of the file in the state directory that holds a node's private key.
const File = "node.key"

// keyPrefix begins the only line of a key file. The private key follows in base64.
const keyPrefix = "weft-node-key-1 "

// ErrBadKey is wrapped by Load's error for a key file that holds no key.
var ErrBadKey = errors.New("mesh: not a weft node key")

// Identity identifies a node: a static X25519 key pair (RFC 7748), made at its first start, and the ID derived from it.
type Identity struct {
	ID      peer.ID
	Public  [peer.KeySize]byte
	private [peer.KeySize]byte
}

// New returns a new random identity.
func New() (Identity, error) {
	var private [peer.KeySize]byte
	if _, err := rand.Read(private[:]); err != nil {
		return Identity{}, fmt.Errorf("mesh: making a node key: %w", err)
	}
	return identityOf(private)
}

// Format implements fmt.Formatter: all verbs print the ID only, so that no log contains the private key.
func (id Identity) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, id.ID) }

// Private returns the private key, for the handshakes of the datapath. It must never be logged.
func (id Identity) Private() [peer.KeySize]byte { return id.private }

// Load reads the identity in folder dir, and makes one there at the first start. A file that holds no key is an
// error (ErrBadKey), and is never replaced: with another key the node would be another node, and its addresses would have
// no owner.
func Load(dir string) (Identity, error) {
	path := filepath.Join(dir, File)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createIdentity(path)
	case err != nil:
		return Identity{}, fmt.Errorf("mesh: reading the node key: %w", err)
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), strings.TrimSpace(keyPrefix))
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if !ok || err != nil || len(raw) != peer.KeySize {
		return Identity{}, fmt.Errorf("%w: %s", ErrBadKey, path)
	}
	return identityOf([peer.KeySize]byte(raw))
}

func identityOf(private [peer.KeySize]byte) (Identity, error) {
	public, err := curve25519.X25519(private[:], curve25519.Basepoint)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	id := Identity{private: private, Public: [peer.KeySize]byte(public)}
	id.ID = peer.FromPublicKey(id.Public)
	return id, nil
}

func createIdentity(path string) (Identity, error) {
	id, err := New()
	if err != nil {
		return Identity{}, err
	}
	line := keyPrefix + base64.StdEncoding.EncodeToString(id.private[:]) + "\n"
	if err := renameio.WriteFile(path, []byte(line), 0o600); err != nil {
		return Identity{}, fmt.Errorf("mesh: writing the node key: %w", err)
	}
	return id, nil
}
