package vaesgcm

import (
	"crypto/cipher"
	"testing"
)

// panicOf returns the value that f panics with, nil for none.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

// TestPanics compares the panics of misuse with those of the standard library.
func TestPanics(t *testing.T) {
	ours, standard := newPair(t, make([]byte, KeySize))
	nonce, memory := make([]byte, 12), make([]byte, 400)
	tests := []struct {
		name   string
		panics bool
		call   func(cipher.AEAD)
	}{
		{"seal, short nonce", true, func(a cipher.AEAD) { a.Seal(nil, nonce[:11], nil, nil) }},
		{"seal, long nonce", true, func(a cipher.AEAD) { a.Seal(nil, make([]byte, 13), nil, nil) }},
		{"seal, no nonce", true, func(a cipher.AEAD) { a.Seal(nil, nil, nil, nil) }},
		{"open, short nonce", true, func(a cipher.AEAD) { _, _ = a.Open(nil, nonce[:11], memory, nil) }},
		{"seal, text one byte after the output", true, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[1:100], nil) }},
		{"seal, text one byte before the output", true, func(a cipher.AEAD) { a.Seal(memory[:1], nonce, memory[:100], nil) }},
		{"seal, text in the tag", true, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[99:199], nil) }},
		{"seal, text after the tag", false, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[116:216], nil) }},
		{"seal, additional data in the output", true, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[:100], memory[:10]) }},
		{"seal, additional data in the tag", true, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[:100], memory[115:120]) }},
		{"seal, additional data after the tag", false, func(a cipher.AEAD) { a.Seal(memory[:0], nonce, memory[:100], memory[116:120]) }},
		{"open, inexact", true, func(a cipher.AEAD) { _, _ = a.Open(memory[:0], nonce, memory[1:100], nil) }},
		{"open, output in the tag", true, func(a cipher.AEAD) { _, _ = a.Open(memory[99:99], nonce, memory[:100], nil) }},
		{"open, in place", false, func(a cipher.AEAD) { _, _ = a.Open(memory[:0], nonce, memory[:100], nil) }},
		{"open, additional data in the output", true, func(a cipher.AEAD) { _, _ = a.Open(memory[:0], nonce, memory[:100], memory[:10]) }},
		{"open, additional data in the tag", false, func(a cipher.AEAD) { _, _ = a.Open(memory[:0], nonce, memory[:100], memory[84:90]) }},
		{"open, no text", false, func(a cipher.AEAD) { _, _ = a.Open(memory[:0], nonce, memory[1:17], memory[:10]) }},
	}
	for _, tt := range tests {
		want := panicOf(func() { tt.call(standard) })
		if (want != nil) != tt.panics {
			t.Errorf("%s: the standard library panics with %v", tt.name, want)
		}
		if got := panicOf(func() { tt.call(ours) }); got != want {
			t.Errorf("%s: panic %v, want %v", tt.name, got, want)
		}
	}
}

func TestNewKeys(t *testing.T) {
	for _, n := range []int{0, 8, 15, 16, 24, 31, 32, 33, 64} {
		_, err := New(make([]byte, n))
		if accepted := n == 16 || n == 24 || n == 32; (err == nil) != accepted {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
	aead, err := New(make([]byte, KeySize))
	if err != nil || aead.NonceSize() != 12 || aead.Overhead() != 16 {
		t.Errorf("nonces of %d bytes, tags of %d: %v", aead.NonceSize(), aead.Overhead(), err)
	}
}
