package vaesgcm

import (
	"bytes"
	"testing"
)

// FuzzGCM compares Seal and Open with the standard library, then Open of the message with one bit changed.
func FuzzGCM(f *testing.F) {
	f.Add([]byte("key"), []byte("nonce"), []byte("text"), []byte("additional"), uint(0))
	f.Add([]byte{}, []byte{}, bytes.Repeat([]byte("0123456789abcdef"), 9), []byte{}, uint(1000))
	f.Add([]byte{1}, []byte{2}, make([]byte, 255), make([]byte, 129), uint(2100))
	f.Fuzz(func(t *testing.T, key, nonce, text, additional []byte, bit uint) {
		var fullKey [KeySize]byte
		var fullNonce [12]byte
		copy(fullKey[:], key)
		copy(fullNonce[:], nonce)
		ours, standard := newPair(t, fullKey[:])
		compare(t, ours, standard, fullNonce[:], text, additional)

		sealed := standard.Seal(nil, fullNonce[:], text, additional)
		bit %= 8 * uint(len(sealed))
		sealed[bit/8] ^= 1 << (bit % 8)
		refuse(t, ours, standard, fullNonce[:], sealed, additional)
	})
}
