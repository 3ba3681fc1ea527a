// Package secret parses the secrets that the nodes of a cluster share, and derives keys from them.
package secret

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/argon2"
)

// Size is the length of a secret, and of each key derived from one, in bytes.
const Size = 32

// prefix begins a generated line. A space and the standard base64 encoding of Size bytes follow.
const prefix = "weft-secret-1"

// Labels of the derived keys (the info parameter of HKDF, RFC 5869). The meaning of a label never changes, because nodes
// of different versions share a secret.
const (
	labelGossip      = "weft 1 gossip"
	labelSession     = "weft 1 session"
	labelFingerprint = "weft 1 fingerprint"
)

// Parameters of argon2id (RFC 9106), which derives the key of a passphrase. They exceed the recommendation of OWASP. All
// are fixed, including the number of threads, because the key must be the same on every machine and in every version.
// The salt is fixed and public, because nodes share nothing but the passphrase; it makes tables that were computed for
// other systems useless.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 1
	argonSalt    = "weft 1 passphrase of cluster weft"
)

// Secret is one secret of a secret file. Parse returns Secrets; the zero Secret has no keys, and its methods that return
// keys panic. All ways to print a Secret show only its fingerprint. Its methods may be called concurrently.
type Secret struct {
	// master returns the key from which all others are derived; it is nil for the zero Secret. It is a function because
	// fmt prints the bytes of an unexported field without calling its methods, but prints only the address of a function.
	master func() [Size]byte
}

func newSecret(master [Size]byte) Secret { return Secret{func() [Size]byte { return master }} }

// Generate returns a new line for a secret file, without a line break.
func Generate() string {
	var raw [Size]byte
	_, _ = rand.Read(raw[:]) // never returns an error: it crashes the program instead
	return prefix + " " + base64.StdEncoding.EncodeToString(raw[:])
}

// fromPassphrase derives the master key from a passphrase, in a tenth of a second and with 64 MiB of memory.
func fromPassphrase(text string) Secret {
	key := argon2.IDKey([]byte(text), []byte(argonSalt), argonTime, argonMemory, argonThreads, Size)
	return newSecret([Size]byte(key))
}

// GossipKey returns the key that encrypts gossip.
func (s Secret) GossipKey() [Size]byte { return [Size]byte(s.derive(labelGossip, Size)) }

// SessionKey returns the pre-shared key of the datapath's handshakes.
func (s Secret) SessionKey() [Size]byte { return [Size]byte(s.derive(labelSession, Size)) }

// Fingerprint returns a number by which nodes identify the secrets that they share. It is not confidential.
func (s Secret) Fingerprint() uint32 { return binary.BigEndian.Uint32(s.derive(labelFingerprint, 4)) }

func (s Secret) derive(label string, length int) []byte {
	master := s.master()
	key, err := hkdf.Key(sha256.New, master[:], nil, label, length)
	if err != nil { // only for lengths that no caller uses
		panic(err)
	}
	return key
}

// String returns the fingerprint, such as "secret(0fc8cd66)".
func (s Secret) String() string {
	if s.master == nil {
		return "secret(none)"
	}
	return fmt.Sprintf("secret(%08x)", s.Fingerprint())
}

// Format implements fmt.Formatter: all verbs show what String returns.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, s.String()) }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler with the text of String, from which the secret cannot be restored.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var (
	_ fmt.Formatter  = Secret{}
	_ fmt.GoStringer = Secret{}
	_ slog.LogValuer = Secret{}
)
