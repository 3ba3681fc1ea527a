package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Prefixes of the lines of a CA.
const (
	caPrefix  = "weft-ca-1"     // base64 of the public key
	keyPrefix = "weft-ca-key-1" // base64 of the seed of the private key (RFC 8032)
)

// Contexts of the signatures (RFC 8032, section 5.1).
const (
	certificateContext = "weft certificate 1"
	revocationsContext = "weft revocations 1"
)

// Labels of the values derived from the public key of a CA (the info of HKDF, RFC 5869).
const (
	labelGossip      = "weft 1 ca gossip"
	labelSession     = "weft 1 ca session"
	labelFingerprint = "weft 1 ca fingerprint"
)

// CAKey is the public key of a CA. It is no secret.
type CAKey [ed25519.PublicKeySize]byte

// ParseCAKey reads a line that String has returned.
func ParseCAKey(line string) (CAKey, error) {
	raw, err := decodeLine(line, caPrefix)
	if err != nil {
		return CAKey{}, err
	}
	if len(raw) != ed25519.PublicKeySize {
		return CAKey{}, fmt.Errorf("%w: the key of a CA has %d bytes, this one %d", ErrMalformed, ed25519.PublicKeySize, len(raw))
	}
	return CAKey(raw), nil
}

// String returns the line of the CA for identity files, without a line break.
func (k CAKey) String() string { return encodeLine(caPrefix, k[:]) }

// GossipKey returns the pre-shared key of gossip streams between nodes with certificates of this CA. It follows from the public key of
// the CA: it keeps networks apart, and proves nothing.
func (k CAKey) GossipKey() [32]byte { return [32]byte(k.derive(labelGossip, 32)) }

// SessionKey returns the pre-shared key of the datapath's handshakes; see GossipKey.
func (k CAKey) SessionKey() [32]byte { return [32]byte(k.derive(labelSession, 32)) }

// Fingerprint returns the number by which nodes recognize a CA that they have in common, like that of a secret.
func (k CAKey) Fingerprint() uint32 { return binary.BigEndian.Uint32(k.derive(labelFingerprint, 4)) }

func (k CAKey) derive(label string, length int) []byte {
	key, err := hkdf.Key(sha256.New, k[:], nil, label, length)
	if err != nil { // only for lengths that no caller uses
		panic(err)
	}
	return key
}

// verify reports whether the CA has made a signature.
func (k CAKey) verify(context string, message, signature []byte) bool {
	return ed25519.VerifyWithOptions(k[:], message, signature, &ed25519.Options{Context: context}) == nil
}

// CA is the key pair of a CA. The zero CA has no key, and its methods panic. All ways to print a CA show its public key only.
type CA struct {
	// private is a function because fmt prints the bytes of an unexported field, but only the address of a function.
	private func() ed25519.PrivateKey
}

// GenerateCA returns a new random CA.
func GenerateCA() CA {
	var seed [ed25519.SeedSize]byte
	_, _ = rand.Read(seed[:]) // never returns an error: it crashes the program instead
	return caOf(seed[:])
}

func caOf(seed []byte) CA {
	private := ed25519.NewKeyFromSeed(seed)
	return CA{func() ed25519.PrivateKey { return private }}
}

// ParseCA reads a line that Line has returned.
func ParseCA(line string) (CA, error) {
	seed, err := decodeLine(line, keyPrefix)
	if err != nil {
		return CA{}, err
	}
	if len(seed) != ed25519.SeedSize {
		return CA{}, fmt.Errorf("%w: the private key of a CA has %d bytes, this one %d", ErrMalformed, ed25519.SeedSize, len(seed))
	}
	return caOf(seed), nil
}

// Line returns the private key as the line of a file, without a line break. It is secret.
func (c CA) Line() string { return encodeLine(keyPrefix, c.private().Seed()) }

// Key returns the public key.
func (c CA) Key() CAKey { return CAKey(c.private().Public().(ed25519.PublicKey)) }

// Format implements fmt.Formatter: all verbs print the public key.
func (c CA) Format(f fmt.State, _ rune) {
	if c.private == nil {
		_, _ = fmt.Fprint(f, "ca(none)")
		return
	}
	_, _ = fmt.Fprint(f, c.Key())
}

// sign returns the signature of a message with a context.
func (c CA) sign(context string, message []byte) []byte {
	signature, err := c.private().Sign(nil, message, &ed25519.Options{Context: context})
	if err != nil { // only for contexts above 255 bytes
		panic(err)
	}
	return signature
}
