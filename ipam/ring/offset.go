package ring

import (
	"encoding/binary"
	"net/netip"
)

// maxHostBits bounds how much of a range is divided: 2^40 addresses. Only the start of a longer IPv6 range is used.
const maxHostBits = 40

// Size returns the number of addresses that r divides: all of its range, at most 2^40.
func (r *Ring) Size() uint64 { return sizeOf(r.prefix) }

// Usable returns the offsets of r's range that may be allocated. IPv4 ranges reserve the first address (network) and
// the last (broadcast), IPv6 ranges the first (subnet-router anycast, RFC 4291 section 2.6.1). Ranges of one or two
// addresses (RFC 3021, RFC 6164) reserve none.
func (r *Ring) Usable() Span {
	span, _ := r.Hosts(r.prefix)
	return span
}

// Offset returns the distance of addr from the first address of r; false where r does not divide addr.
func (r *Ring) Offset(addr netip.Addr) (uint64, bool) {
	if !r.prefix.Contains(addr) {
		return 0, false
	}
	hi, lo := words(addr)
	baseHi, baseLo := words(r.prefix.Addr())
	offset := lo - baseLo
	if lo < baseLo {
		hi--
	}
	return offset, hi == baseHi && offset < r.Size()
}

// Addr returns the address at offset, which must be below Size.
func (r *Ring) Addr(offset uint64) netip.Addr {
	hi, lo := words(r.prefix.Addr())
	sum := lo + offset
	if sum < lo {
		hi++
	}
	if r.prefix.Addr().Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(sum))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], sum)
	return netip.AddrFrom16(b)
}

// Hosts returns the offsets within in that may be allocated: without the first and last addresses of r and of in, by
// the rules of Usable. It returns false where in starts outside of the part that r divides, or reaches out of the
// range.
func (r *Ring) Hosts(in netip.Prefix) (Span, bool) {
	if !in.IsValid() {
		return Span{}, false
	}
	all, ok := r.Span(in)
	if !ok {
		return Span{}, false
	}
	span := trim(in, all)
	return span.Intersect(trim(r.prefix, Span{0, r.Size()})), true
}

// Span returns the offsets of all addresses of a part of r's range, as far as r divides them; false where r divides none of them.
func (r *Ring) Span(part netip.Prefix) (Span, bool) {
	start, ok := r.Offset(part.Masked().Addr())
	if !ok || part.Bits() < r.prefix.Bits() {
		return Span{}, false
	}
	return Span{start, min(start+sizeOf(part), r.Size())}, true
}

// trim removes the addresses that p reserves from span, which is the span of p.
func trim(p netip.Prefix, span Span) Span {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return span
	}
	span.Start++
	if p.Addr().Is4() {
		span.End--
	}
	return span
}

// capacity returns how many addresses of s may be allocated.
func (r *Ring) capacity(s Span) uint64 { return r.Usable().Intersect(s).Len() }

func sizeOf(p netip.Prefix) uint64 {
	return 1 << min(p.Addr().BitLen()-p.Bits(), maxHostBits)
}

// words returns addr as a 128-bit number; an IPv4 address is in the low 32 bits.
func words(addr netip.Addr) (hi, lo uint64) {
	if addr.Is4() {
		b := addr.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}
