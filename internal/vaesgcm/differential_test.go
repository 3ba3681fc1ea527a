package vaesgcm

import (
	"bytes"
	"crypto/cipher"
	"math/rand/v2"
	"slices"
	"testing"
)

// The tests of this file compare the assembly with the standard library. The counter of blocks does not wrap in any test: with nonces of
// 12 bytes it begins at 1 and the longest message ends before 2^32.

// newPair returns the assembly and the standard library with one key. It skips the test on other CPUs.
func newPair(tb testing.TB, key []byte) (ours, standard cipher.AEAD) {
	tb.Helper()
	if !Supported() {
		tb.Skip("this CPU has no VAES")
	}
	ours, err := New(key)
	if err != nil {
		tb.Fatal(err)
	}
	if standard, err = NewStandard(key); err != nil {
		tb.Fatal(err)
	}
	return ours, standard
}

// source makes the bytes of the tests.
type source struct{ *rand.ChaCha8 }

func newSource(seed byte) source { return source{rand.NewChaCha8([32]byte{seed})} }

func (s source) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = s.Read(b)
	return b
}

// compare seals and opens one message with both, into new memory, in place, and after a prefix.
func compare(t *testing.T, ours, standard cipher.AEAD, nonce, text, additional []byte) {
	t.Helper()
	want := standard.Seal(nil, nonce, text, additional)
	if got := ours.Seal(nil, nonce, text, additional); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %d additional: Seal differs", len(text), len(additional))
	}
	if got, err := ours.Open(nil, nonce, want, additional); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes, %d additional: Open differs: %v", len(text), len(additional), err)
	}

	buffer := append(make([]byte, 0, len(want)), text...)
	if got := ours.Seal(buffer[:0], nonce, buffer, additional); !bytes.Equal(got, want) || &got[0] != &buffer[:1][0] {
		t.Fatalf("%d bytes, %d additional: Seal in place differs", len(text), len(additional))
	}
	buffer = buffer[:len(want)]
	if got, err := ours.Open(buffer[:0], nonce, buffer, additional); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%d bytes, %d additional: Open in place differs: %v", len(text), len(additional), err)
	}

	for _, spare := range []int{0, len(want), len(want) + 40} {
		prefix := append(make([]byte, 0, 5+spare), "hello"...)
		if got := ours.Seal(prefix, nonce, text, additional); !bytes.Equal(got, slices.Concat(prefix, want)) {
			t.Fatalf("%d bytes, %d additional: Seal with %d bytes of capacity differs", len(text), len(additional), spare)
		}
		if got, err := ours.Open(prefix, nonce, want, additional); err != nil || !bytes.Equal(got, slices.Concat(prefix, text)) {
			t.Fatalf("%d bytes, %d additional: Open with %d bytes of capacity differs: %v", len(text), len(additional), spare, err)
		}
		if rest := prefix[:cap(prefix)][min(cap(prefix), 5+len(want)):]; bytes.Count(rest, []byte{0}) != len(rest) {
			t.Fatalf("%d bytes, %d additional: bytes after the message were written", len(text), len(additional))
		}
	}
}

func TestLengths(t *testing.T) {
	s := newSource(1)
	for n := range 2101 {
		ours, standard := newPair(t, s.bytes(KeySize))
		compare(t, ours, standard, s.bytes(12), s.bytes(n), s.bytes(n%101))
	}
}

func TestLongLengths(t *testing.T) {
	const chunk = 64 << 10 // that of gcm_amd64.go
	s := newSource(2)
	ours, standard := newPair(t, s.bytes(KeySize))
	for _, n := range []int{
		4095, 8900, 9001, chunk - 1, chunk, chunk + 1, chunk + 15, chunk + 128, 2*chunk - 16, 2 * chunk, 2*chunk + 17, 3*chunk + 127, 200_000,
	} {
		compare(t, ours, standard, s.bytes(12), s.bytes(n), s.bytes(13))
	}
}

func TestAdditionalLengths(t *testing.T) {
	const chunk = 64 << 10
	s := newSource(3)
	ours, standard := newPair(t, s.bytes(KeySize))
	for n := range 400 {
		for _, text := range []int{0, 1, 33, 128, 300} {
			compare(t, ours, standard, s.bytes(12), s.bytes(text), s.bytes(n))
		}
	}
	for _, n := range []int{4096, chunk - 1, chunk, chunk + 1, 2 * chunk, 2*chunk + 200, 200_000} {
		compare(t, ours, standard, s.bytes(12), s.bytes(100), s.bytes(n))
	}
}

// TestAlignments moves each argument over the positions in a cache line.
func TestAlignments(t *testing.T) {
	s := newSource(4)
	ours, standard := newPair(t, s.bytes(KeySize))
	from := func(at, n int) []byte { return s.bytes(at + n)[at:] }
	for _, n := range []int{7, 64, 255, 1400} {
		for at := range 64 {
			nonce, text, additional := from(at%13, 12), from(at, n), from((at+5)%64, 21)
			want := standard.Seal(nil, nonce, text, additional)
			for out := range 64 {
				dst := make([]byte, out, out+n+16)
				sealed := ours.Seal(dst, nonce, text, additional)
				if !bytes.Equal(sealed[out:], want) {
					t.Fatalf("%d bytes from offset %d to %d: Seal differs", n, at, out)
				}
				opened, err := ours.Open(make([]byte, at, at+n), nonce, sealed[out:], additional)
				if err != nil || !bytes.Equal(opened[at:], text) {
					t.Fatalf("%d bytes from offset %d to %d: Open differs: %v", n, out, at, err)
				}
			}
		}
	}
}
