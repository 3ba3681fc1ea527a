package vaesgcm

import (
	"testing"
	"unsafe"
)

// TestOffsets compares the structs with the offsets in ghash_amd64.h.
func TestOffsets(t *testing.T) {
	var k key
	var m message
	for _, f := range []struct {
		name         string
		offset, want uintptr
	}{
		{"key.rounds", unsafe.Offsetof(k.rounds), 0},
		{"key.powers", unsafe.Offsetof(k.powers), 240},
		{"key.middles", unsafe.Offsetof(k.middles), 400},
		{"message.counter", unsafe.Offsetof(m.counter), 0},
		{"message.hash", unsafe.Offsetof(m.hash), 16},
		{"message.lengths", unsafe.Offsetof(m.lengths), 32},
		{"message.mask", unsafe.Offsetof(m.mask), 48},
		{"message.tag", unsafe.Offsetof(m.tag), 64},
	} {
		if f.offset != f.want {
			t.Errorf("%s has offset %d, want %d", f.name, f.offset, f.want)
		}
	}
}
