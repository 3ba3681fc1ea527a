// Package offheap allocates memory outside of the heap. The garbage collector does not count it: a large arena on the heap would allow for
// a share of its size in garbage.
package offheap

import "golang.org/x/sys/unix"

// Memory is a block of memory. Its owner frees it. A page of it takes memory of the host once it is first written.
type Memory struct {
	bytes  []byte
	mapped bool // else it is on the heap
}

// New returns zeroed memory of a positive size in bytes. If the kernel gives none, it lies on the heap.
func New(size int) *Memory {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &Memory{bytes: make([]byte, size)}
	}
	return &Memory{bytes: b, mapped: true}
}

// Bytes returns the memory. It must not be used after Free.
func (m *Memory) Bytes() []byte { return m.bytes }

// Free frees the memory. It may be called more than once, by one goroutine at a time.
func (m *Memory) Free() error {
	if !m.mapped {
		m.bytes = nil
		return nil
	}
	b := m.bytes
	m.bytes, m.mapped = nil, false
	return unix.Munmap(b)
}
