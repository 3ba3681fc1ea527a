package offheap

import (
	"bytes"
	"math"
	"testing"
)

// TestMemory: memory is zeroed and writable, whatever it consists of, and is freed once.
func TestMemory(t *testing.T) {
	const size = 1<<20 + 1
	for _, m := range []*Memory{New(size), {bytes: make([]byte, size)}} {
		b := m.Bytes()
		if len(b) != size || !bytes.Equal(b, make([]byte, size)) {
			t.Fatalf("%d bytes, or not zeros", len(b))
		}
		b[0], b[size-1] = 1, 2
		for range 2 {
			if err := m.Free(); err != nil {
				t.Error(err)
			}
		}
		if m.Bytes() != nil {
			t.Error("memory after Free")
		}
	}
}

// TestFallback: where the kernel gives no memory, it lies on the heap.
func TestFallback(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no address space is large enough")
		}
	}()
	New(math.MaxInt)
}
