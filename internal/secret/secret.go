// Package secret is what the nodes of a network have in common and strangers do not: how its lines are written, and
// the keys that are derived from one.
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

// prefix starts a generated line; the standard base64 of Size bytes follows, after a space.
const prefix = "weft-secret-1"

// Labels of the derived keys (info of HKDF, RFC 5869). A label never changes its meaning: nodes of different versions
// share a secret.
const (
	labelGossip      = "weft 1 gossip"
	labelSession     = "weft 1 session"
	labelFingerprint = "weft 1 fingerprint"
)

// Cost of turning a passphrase into a key, argon2id (RFC 9106) with more than what OWASP asks for. All of it is fixed,
// the number of threads too: the outcome must be the same on every machine and in every version. The salt is public
// and fixed, as a cluster has no other common knowledge; it keeps the work of other attackers from being of use here.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 1
	argonSalt    = "weft 1 passphrase of cluster weft"
)

// Secret is one line of a secret file. Parse makes it; the zero Secret has no keys. However it is printed, only its
// fingerprint shows. Its methods may be called concurrently.
type Secret struct {
	// master returns the key that all others are derived from; nil for the zero Secret. It is a function because fmt
	// prints the bytes of a field that it cannot call methods of, and of a function no more than its address.
	master func() [Size]byte
}

func newSecret(master [Size]byte) Secret { return Secret{func() [Size]byte { return master }} }

// Generate returns a new line for a secret file, without a line break.
func Generate() string {
	var raw [Size]byte
	_, _ = rand.Read(raw[:]) // never fails: it ends the program first
	return prefix + " " + base64.StdEncoding.EncodeToString(raw[:])
}

// fromPassphrase takes a tenth of a second and 64 MiB of memory.
func fromPassphrase(text string) Secret {
	key := argon2.IDKey([]byte(text), []byte(argonSalt), argonTime, argonMemory, argonThreads, Size)
	return newSecret([Size]byte(key))
}

// GossipKey returns the key that seals gossip.
func (s Secret) GossipKey() [Size]byte { return [Size]byte(s.derive(labelGossip, Size)) }

// SessionKey returns the pre-shared key of the data plane's handshakes.
func (s Secret) SessionKey() [Size]byte { return [Size]byte(s.derive(labelSession, Size)) }

// Fingerprint returns the secret's name among nodes that share one. It is no secret itself.
func (s Secret) Fingerprint() uint32 { return binary.BigEndian.Uint32(s.derive(labelFingerprint, 4)) }

func (s Secret) derive(label string, length int) []byte {
	master := s.master()
	key, err := hkdf.Key(sha256.New, master[:], nil, label, length)
	if err != nil { // only for lengths that no label has
		panic(err)
	}
	return key
}

// String returns the fingerprint in hexadecimal.
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

// MarshalText implements encoding.TextMarshaler; there is no way back from the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var (
	_ fmt.Formatter  = Secret{}
	_ fmt.GoStringer = Secret{}
	_ slog.LogValuer = Secret{}
)
