package vaesgcm

import (
	"bytes"
	"crypto/cipher"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fence is memory between two pages that cannot be read or written: an access beside it ends the test.
type fence []byte

func newFence(t *testing.T, n int) fence {
	t.Helper()
	page := os.Getpagesize()
	inside := (n + page - 1) / page * page
	memory, err := unix.Mmap(-1, 0, inside+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	for _, guard := range [][]byte{memory[:page], memory[page+inside:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return fence(memory[page : page+inside : page+inside])
}

// place returns b in the fence: at its end, or at its start.
func (f fence) place(b []byte, atEnd bool) []byte {
	at := 0
	if atEnd {
		at = len(f) - len(b)
	}
	copy(f[at:], b)
	return f[at : at+len(b) : at+len(b)]
}

// TestNoAccessBeside places all arguments beside unmapped pages.
func TestNoAccessBeside(t *testing.T) {
	s := newSource(7)
	ours, standard := newPair(t, s.bytes(KeySize))
	nonces, texts, additionals, outs := newFence(t, 12), newFence(t, 5000), newFence(t, 5000), newFence(t, 5000)
	for n := range 700 {
		for _, atEnd := range []bool{true, false} {
			nonce, text, additional := nonces.place(s.bytes(12), atEnd), texts.place(s.bytes(n), atEnd), additionals.place(s.bytes(n%150), atEnd)
			want := standard.Seal(nil, nonce, text, additional)
			out := outs.place(make([]byte, n+16), atEnd)
			if got := ours.Seal(out[:0], nonce, text, additional); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: Seal differs", n)
			}
			plain := texts.place(make([]byte, n), atEnd)
			if _, err := ours.Open(plain[:0], nonce, out, additional); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			inPlace := outs.place(want, atEnd)
			if _, err := ours.Open(inPlace[:0], nonce, inPlace, additional); err != nil {
				t.Fatalf("%d bytes in place: %v", n, err)
			}
		}
	}
}

// TestNoAccessBesideBody does so for the assembly itself: in Open and Seal the tag follows the body.
func TestNoAccessBesideBody(t *testing.T) {
	s := newSource(8)
	aead, _ := newPair(t, s.bytes(KeySize))
	g := aead.(*gcm)
	from, to := newFence(t, 5000), newFence(t, 5000)
	for n := range 700 {
		for _, atEnd := range []bool{true, false} {
			text, nonce := s.bytes(n), s.bytes(12)
			want := aead.Seal(nil, nonce, text, nil)
			body, tag := want[:n], want[n:]
			for _, f := range []struct {
				name    string
				call    func(*key, *message, []byte, []byte, bool)
				in, out []byte
			}{{"seal", seal, text, body}, {"open", open, body, text}} {
				var m message
				g.start(&m, nonce, nil, n)
				out := to.place(make([]byte, n), atEnd)
				f.call(&g.key, &m, out, from.place(f.in, atEnd), true)
				if !bytes.Equal(out, f.out) || !bytes.Equal(m.tag[:], tag) {
					t.Fatalf("%s: %d bytes differ", f.name, n)
				}
			}
		}
	}
}

// TestTooLong compares what both do with messages beyond the limit of GCM. The memory is reserved only; nothing reads it.
func TestTooLong(t *testing.T) {
	ours, standard := newPair(t, make([]byte, KeySize))
	const n = maxLength + tagSize + 1
	address, err := unix.MmapPtr(-1, 0, nil, n, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.MunmapPtr(address, n) }()
	memory := unsafe.Slice((*byte)(address), n)
	nonce := make([]byte, 12)
	for _, aead := range []cipher.AEAD{ours, standard} {
		if got := panicOf(func() { aead.Seal(memory[:0], nonce, memory[:maxLength+1], nil) }); got != "crypto/cipher: message too large for GCM" {
			t.Errorf("Seal: panic %v", got)
		}
		if _, err := aead.Open(memory[:0], nonce, memory, nil); err == nil || err.Error() != errOpen.Error() {
			t.Errorf("Open: %v", err)
		}
	}
}
