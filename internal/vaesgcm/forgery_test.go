package vaesgcm

import (
	"bytes"
	"crypto/cipher"
	"testing"
)

// refuse checks that both refuse a message with one error, and leave the same destination: zeros after its prefix.
func refuse(t *testing.T, ours, standard cipher.AEAD, nonce, sealed, additional []byte) {
	t.Helper()
	results := [2][]byte{}
	texts := [2]string{}
	for i, aead := range []cipher.AEAD{ours, standard} {
		dst := bytes.Repeat([]byte{0xAA}, len(sealed)+10)
		got, err := aead.Open(dst[:3], nonce, sealed, additional)
		if got != nil || err == nil {
			t.Fatalf("a forged message of %d bytes was opened", len(sealed))
		}
		results[i], texts[i] = dst, err.Error()
	}
	if !bytes.Equal(results[0], results[1]) {
		t.Fatalf("the destination is\n%x, want\n%x", results[0], results[1])
	}
	if texts[0] != texts[1] {
		t.Fatalf("the error is %q, want %q", texts[0], texts[1])
	}
}

// TestForgeries changes each bit of messages, of the nonce and of the additional data, and their lengths.
func TestForgeries(t *testing.T) {
	s := newSource(5)
	ours, standard := newPair(t, s.bytes(KeySize))
	for _, n := range []int{0, 1, 15, 16, 31, 64, 130, 300} {
		nonce, additional := s.bytes(12), s.bytes(20)
		sealed := ours.Seal(nil, nonce, s.bytes(n), additional)
		for _, part := range [][]byte{nonce, additional, sealed} {
			for bit := range 8 * len(part) {
				part[bit/8] ^= 1 << (bit % 8)
				refuse(t, ours, standard, nonce, sealed, additional)
				part[bit/8] ^= 1 << (bit % 8)
			}
		}
		for short := range len(sealed) {
			refuse(t, ours, standard, nonce, sealed[:short], additional)
		}
		refuse(t, ours, standard, nonce, append(bytes.Clone(sealed), 0), additional)
		refuse(t, ours, standard, nonce, sealed, additional[1:])
		refuse(t, ours, standard, nonce, sealed, append(bytes.Clone(additional), 0))
	}
}
