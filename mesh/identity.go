package mesh

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

// KeyFile is the name of the file in the state directory that holds a node's private key.
const KeyFile = "node.key"

// keyPrefix starts the one line of a key file; the base64 of the private key follows.
const keyPrefix = "weft-node-key-1 "

// ErrBadKey is wrapped by LoadIdentity's error for a key file that holds no key.
var ErrBadKey = errors.New("mesh: not a weft node key")

// Identity is who a node is: a static X25519 key pair (RFC 7748) made at its first start.
type Identity struct {
	ID      peer.ID
	Public  [peer.KeySize]byte
	private [peer.KeySize]byte
}

// NewIdentity makes a new random identity.
func NewIdentity() (Identity, error) {
	var private [peer.KeySize]byte
	if _, err := rand.Read(private[:]); err != nil {
		return Identity{}, fmt.Errorf("mesh: making a node key: %w", err)
	}
	return identityOf(private)
}

// Format implements fmt.Formatter: all verbs show the ID alone, so that no log has the private key.
func (id Identity) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, id.ID) }

// Private returns the private key, for the data plane's handshakes. It must never be logged.
func (id Identity) Private() [peer.KeySize]byte { return id.private }

// LoadIdentity reads the identity in folder dir, and makes one there at the first start. A file that holds no key is
// refused, never replaced: with another key the node would be another node, and its addresses nobody's.
func LoadIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, KeyFile)
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
	id, err := NewIdentity()
	if err != nil {
		return Identity{}, err
	}
	line := keyPrefix + base64.StdEncoding.EncodeToString(id.private[:]) + "\n"
	if err := renameio.WriteFile(path, []byte(line), 0o600); err != nil {
		return Identity{}, fmt.Errorf("mesh: writing the node key: %w", err)
	}
	return id, nil
}
