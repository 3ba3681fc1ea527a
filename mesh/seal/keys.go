// Package seal seals the gossip between nodes under keys that are derived from a shared secret: packets with
// XChaCha20-Poly1305, streams with a Noise handshake.
//
// A packet proves that its sender has the secret. A stream proves in addition that each end has the private key of its
// node, now, and stays secret when the secret is found later. docs/PROTOCOL.md, chapter 3, has all formats.
//
// The package starts no goroutine and reads no clock. It performs I/O only on the reader and the writer that are passed
// to ReadMessage and WriteMessage.
package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Version is the version of the formats of this package.
const Version = 2

// KeyLen is the length in bytes of every key.
const KeyLen = 32

// Labels of the derived keys.
const (
	labelStream = "weft 2 gossip stream"
	labelPacket = "weft 2 gossip packet"
)

// Errors about bytes from outside.
var (
	// ErrKey means that none of the keys opens the bytes: they were sealed under another secret, or are garbage.
	ErrKey = errors.New("seal: sealed under another key")
	// ErrMalformed means that the bytes have no format of this package.
	ErrMalformed = errors.New("seal: malformed")
	// ErrVersion means that the bytes are of another version, or are not weft's.
	ErrVersion = errors.New("seal: another version")
)

// Keys are the keys that one secret gives to gossip. They are immutable, and may be used concurrently.
type Keys struct {
	stream  [KeyLen]byte // pre-shared key of the Noise handshake
	packet  cipher.AEAD
	context []byte // of the network: bound to everything that is sealed
}

// Derive returns the keys of a gossip key, for the network named cluster. A node without a secret uses the zero gossip
// key: the formats are then the same, and protect nothing.
func Derive(gossip [KeyLen]byte, cluster string) (*Keys, error) {
	stream, err := hkdf.Key(sha256.New, gossip[:], nil, labelStream, KeyLen)
	if err != nil {
		return nil, fmt.Errorf("seal: deriving keys: %w", err)
	}
	packet, err := hkdf.Key(sha256.New, gossip[:], nil, labelPacket, KeyLen)
	if err != nil {
		return nil, fmt.Errorf("seal: deriving keys: %w", err)
	}
	aead, err := chacha20poly1305.NewX(packet)
	if err != nil {
		return nil, fmt.Errorf("seal: deriving keys: %w", err)
	}
	return &Keys{stream: [KeyLen]byte(stream), packet: aead, context: prologue(cluster)}, nil
}

// Format implements fmt.Formatter: no verb prints a key.
func (*Keys) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "gossip keys") }

// prologue returns what both ends must agree on, and is not sent.
func prologue(cluster string) []byte {
	return fmt.Appendf(nil, "weft gossip %d\x00%s", Version, cluster)
}
