package sieve

import (
	"encoding/binary"
	"math"
)

const maxUint32 = math.MaxUint32

// reader reads msgpack from front to back, in the one form in which memberlist's encoder (go-msgpack v2 with its defaults)
// writes a value. The first error stays; everything read after it is zero.
type reader struct {
	b       []byte // what is left
	err     error
	highest uint32 // incarnation that passes
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// end returns the first error; bytes that are left are one.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return errTrailing
	}
	return r.err
}

// next reads n bytes.
func (r *reader) next(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail(errEncoding)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// head reads one byte, 0 after an error.
func (r *reader) head() byte {
	if b := r.next(1); b != nil {
		return b[0]
	}
	return 0
}

// fields reads the start of a map with n fields, at most 15.
func (r *reader) fields(n byte) {
	if r.head() != 0x80|n {
		r.fail(errEncoding)
	}
}

// key reads the name of a field, of at most 31 bytes.
func (r *reader) key(name string) {
	if r.head() != 0xa0|byte(len(name)) || string(r.next(len(name))) != name {
		r.fail(errEncoding)
	}
}

func (r *reader) bool() {
	if b := r.head(); b != 0xc2 && b != 0xc3 {
		r.fail(errEncoding)
	}
}

// uint reads an unsigned number up to limit.
func (r *reader) uint(limit uint64) (v uint64) {
	var least uint64
	switch h := r.head(); {
	case h <= 0x7f:
		v = uint64(h)
	case h == 0xcc:
		v, least = uint64(r.head()), 1<<7
	case h == 0xcd:
		v, least = r.number(2), 1<<8
	case h == 0xce:
		v, least = r.number(4), 1<<16
	default:
		r.fail(errEncoding)
	}
	return r.within(v, least, limit)
}

// int reads a signed number that is not negative, up to 31 bits.
func (r *reader) int() (v uint64) {
	var least uint64
	switch h := r.head(); {
	case h <= 0x7f:
		v = uint64(h)
	case h == 0xd1:
		v, least = r.number(2), 1<<7
	case h == 0xd2:
		v, least = r.number(4), 1<<15
	default:
		r.fail(errEncoding)
	}
	if least == 1<<7 {
		return r.within(v, least, math.MaxInt16)
	}
	return r.within(v, least, math.MaxInt32)
}

// bytes reads nil or at most limit bytes; more are tooLong.
func (r *reader) bytes(limit int, tooLong error) []byte {
	if len(r.b) > 0 && r.b[0] == 0xc0 {
		r.b = r.b[1:]
		return nil
	}
	return r.text(limit, tooLong)
}

// text reads a text of at most limit bytes; a longer one is tooLong.
func (r *reader) text(limit int, tooLong error) []byte {
	var n, least uint64
	switch h := r.head(); {
	case h >= 0xa0 && h <= 0xbf:
		n = uint64(h & 0x1f)
	case h == 0xda:
		n, least = r.number(2), 1<<5
	case h == 0xdb:
		n, least = r.number(4), 1<<16
	default:
		r.fail(errEncoding)
	}
	if n > uint64(limit) {
		r.fail(tooLong)
	}
	return r.next(int(r.within(n, least, math.MaxInt32)))
}

// number reads a big-endian number of 2 or 4 bytes.
func (r *reader) number(size int) uint64 {
	switch b := r.next(size); len(b) {
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	default:
		return 0
	}
}

// within returns v, or fails when a shorter form of v exists or v is above limit.
func (r *reader) within(v, least, limit uint64) uint64 {
	switch {
	case r.err != nil:
		return 0
	case v < least:
		r.fail(errEncoding)
		return 0
	case v > limit:
		r.fail(errValue)
		return 0
	default:
		return v
	}
}
