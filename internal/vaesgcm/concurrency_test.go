package vaesgcm

import (
	"bytes"
	"sync"
	"testing"
)

// TestConcurrentUse shares one AEAD among goroutines.
func TestConcurrentUse(t *testing.T) {
	s := newSource(6)
	ours, standard := newPair(t, s.bytes(KeySize))
	var group sync.WaitGroup
	for i := range 8 {
		nonce, text := s.bytes(12), s.bytes(1000+i)
		want := standard.Seal(nil, nonce, text, nonce)
		group.Go(func() {
			for range 500 {
				sealed := ours.Seal(nil, nonce, text, nonce)
				opened, err := ours.Open(nil, nonce, sealed, nonce)
				if !bytes.Equal(sealed, want) || err != nil || !bytes.Equal(opened, text) {
					t.Errorf("%d bytes: wrong, %v", len(text), err)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestNoAllocation: neither Seal nor Open allocates if the destination has room.
func TestNoAllocation(t *testing.T) {
	ours, _ := newPair(t, make([]byte, KeySize))
	nonce, memory := make([]byte, 12), make([]byte, 1400, 1416)
	if n := testing.AllocsPerRun(100, func() {
		sealed := ours.Seal(memory[:0], nonce, memory, nonce)
		if _, err := ours.Open(sealed[:0], nonce, sealed, nonce); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
