// Package bytesreader reads fields off the front of bytes that nobody vouches for.
package bytesreader

import "encoding/binary"

// Reader takes fields off the front of B, and notes in Short where B holds too little instead of failing: who decodes
// asks once, after the last field. Reading goes on behind the end with zeros, without a panic. The zero Reader is empty.
type Reader struct {
	B     []byte // what is still to be read
	Short bool   // more was read than there was
}

// Bytes takes n bytes, fewer where there are no more. They are B's own.
func (r *Reader) Bytes(n int) []byte {
	if n > len(r.B) {
		r.Short = true
		n = len(r.B)
	}
	b := r.B[:n]
	r.B = r.B[n:]
	return b
}

// Byte takes one byte.
func (r *Reader) Byte() byte {
	if b := r.Bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// Uvarint takes an unsigned varint, as package encoding/binary writes it. One that does not fit 64 bits counts as short.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.Short = true
		r.B = nil
		return 0
	}
	r.B = r.B[n:]
	return v
}
