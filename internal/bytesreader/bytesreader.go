// Package bytesreader decodes fields of untrusted bytes, such as datagrams, without panics.
package bytesreader

import "encoding/binary"

// Reader reads fields from the front of B. A read beyond the end sets Short and returns zeros; it does not panic or
// return an error, so a decoder checks Short once, after the last field. The zero Reader is empty. A Reader is for one
// goroutine.
type Reader struct {
	B     []byte // the bytes that are not read yet
	Short bool   // whether a read went beyond the end
}

// Bytes reads n bytes, or the rest if fewer are left. The result shares the memory of B. n must not be negative.
func (r *Reader) Bytes(n int) []byte {
	if n > len(r.B) {
		r.Short = true
		n = len(r.B)
	}
	b := r.B[:n]
	r.B = r.B[n:]
	return b
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if b := r.Bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// Uvarint reads an unsigned varint in the format of package encoding/binary. A value that does not fit 64 bits sets
// Short.
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
