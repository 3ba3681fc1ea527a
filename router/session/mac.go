package session

import (
	"crypto/subtle"

	"golang.org/x/crypto/blake2s"

	"weft/router/wire"
)

// Labels of the keys of the handshake's MACs.
const (
	labelMAC    = "weft 1 handshake mac"
	labelCookie = "weft 1 handshake cookie"
)

// receiverKey returns the key with the given label for messages to a node. Only nodes that know its public key and the
// secret have it.
func receiverKey(label string, public, secret [KeyLen]byte) [KeyLen]byte {
	b := append([]byte(label), public[:]...)
	return blake2s.Sum256(append(b, secret[:]...))
}

// mac returns the keyed BLAKE2s of b (RFC 7693).
func mac(key [KeyLen]byte, b []byte) (sum [wire.MACLen]byte) {
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err) // the key is never too long
	}
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

func equalMAC(sum [wire.MACLen]byte, received []byte) bool {
	return subtle.ConstantTimeCompare(sum[:], received) == 1
}
