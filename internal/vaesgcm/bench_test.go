package vaesgcm

import (
	"crypto/cipher"
	"fmt"
	"testing"
)

func benchmark(b *testing.B, f func(b *testing.B, aead cipher.AEAD, n int)) {
	ours, standard := newPair(b, make([]byte, KeySize))
	for _, n := range []int{64, 1400, 8900} {
		b.Run(fmt.Sprintf("standard/%d", n), func(b *testing.B) { f(b, standard, n) })
		b.Run(fmt.Sprintf("vaes/%d", n), func(b *testing.B) { f(b, ours, n) })
	}
}

// The nonce is the additional data too, as in package session.

func BenchmarkSeal(b *testing.B) {
	benchmark(b, func(b *testing.B, aead cipher.AEAD, n int) {
		text, nonce, out := make([]byte, n), make([]byte, 12), make([]byte, 0, n+16)
		b.SetBytes(int64(n))
		for b.Loop() {
			aead.Seal(out, nonce, text, nonce)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	benchmark(b, func(b *testing.B, aead cipher.AEAD, n int) {
		nonce, out := make([]byte, 12), make([]byte, 0, n)
		sealed := aead.Seal(nil, nonce, make([]byte, n), nonce)
		b.SetBytes(int64(n))
		for b.Loop() {
			if _, err := aead.Open(out, nonce, sealed, nonce); err != nil {
				b.Fatal(err)
			}
		}
	})
}
