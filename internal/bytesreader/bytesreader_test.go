package bytesreader

import (
	"encoding/binary"
	"testing"
)

func TestReader(t *testing.T) {
	b := append([]byte{7}, "abc"...)
	b = binary.AppendUvarint(b, 1<<63)
	r := Reader{B: append(b, 9)}
	if got := r.Byte(); got != 7 {
		t.Errorf("Byte = %d", got)
	}
	if got := string(r.Bytes(3)); got != "abc" {
		t.Errorf("Bytes = %q", got)
	}
	if got := r.Uvarint(); got != 1<<63 {
		t.Errorf("Uvarint = %d", got)
	}
	if r.Short || len(r.B) != 1 {
		t.Errorf("short %v with %d bytes left, want false with 1", r.Short, len(r.B))
	}
}

// TestReaderRunsShort: a read beyond the end sets Short, returns what is left and leaves nothing.
func TestReaderRunsShort(t *testing.T) {
	for name, read := range map[string]func(*Reader) bool{
		"Bytes":   func(r *Reader) bool { return len(r.Bytes(3)) == 2 },
		"Byte":    func(r *Reader) bool { r.B = nil; return r.Byte() == 0 },
		"Uvarint": func(r *Reader) bool { return r.Uvarint() == 0 },
	} {
		r := &Reader{B: []byte{0x80, 0x80}} // a varint without its last byte
		if !read(r) || !r.Short || len(r.B) != 0 {
			t.Errorf("%s: short %v, %d bytes left", name, r.Short, len(r.B))
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3}, 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		r := Reader{B: b}
		for range 4 {
			r.Uvarint()
			r.Byte()
			r.Bytes(n & 0xff)
		}
	})
}
