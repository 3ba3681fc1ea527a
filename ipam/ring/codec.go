package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/bytesreader"
	"weft/internal/peer"
)

// ErrEncoding is wrapped by Decode for bytes that are not the encoding of a valid ring.
var ErrEncoding = errors.New("ring: bad encoding")

// The encoding of a ring, whole or in part. Numbers are unsigned varints (encoding/binary) unless stated otherwise:
//
//	+---------+--------+---------------+------+----------------+-------+----------
//	| version | length | first address | bits | cluster ID     | count | tokens …
//	| 1 byte  | 4 | 16 |  4 | 16 bytes  | byte | 8 bytes        |       |
//	+---------+--------+---------------+------+----------------+-------+----------
//
//	token: start - start of the token before | end - start | owner (8 bytes) | version | free
const (
	encodingVersion = 1
	minTokenLen     = 1 + 1 + 8 + 1 + 1
	maxTokenLen     = 4*binary.MaxVarintLen64 + 8
)

// Append appends the encoding of r to dst.
func (r *Ring) Append(dst []byte) []byte {
	dst = r.appendHeader(dst)
	dst = binary.AppendUvarint(dst, uint64(len(r.tokens)))
	var before uint64
	for _, t := range r.tokens {
		dst = appendToken(dst, t, before)
		before = t.Start
	}
	return dst
}

// Chunks returns encodings of at most limit bytes each that together hold all of r. Each may be merged alone and in any
// order. A ring without tokens returns none. The limit must be at least 100.
func (r *Ring) Chunks(limit int) [][]byte {
	var chunks [][]byte
	part := &Ring{prefix: r.prefix, clusterID: r.clusterID}
	head := len(r.appendHeader(nil)) + binary.MaxVarintLen32
	var size int
	for _, t := range r.tokens {
		var before uint64
		if n := len(part.tokens); n > 0 {
			before = part.tokens[n-1].Start
		}
		n := len(appendToken(make([]byte, 0, maxTokenLen), t, before))
		if len(part.tokens) > 0 && head+size+n > limit {
			chunks = append(chunks, part.Append(nil))
			part.tokens, size = nil, 0
			n = len(appendToken(make([]byte, 0, maxTokenLen), t, 0))
		}
		part.tokens = append(part.tokens, t)
		size += n
	}
	if len(part.tokens) > 0 {
		chunks = append(chunks, part.Append(nil))
	}
	return chunks
}

// Decode reads the encoding that Append or Chunks wrote. Whatever the bytes, it does not panic, allocates only in
// proportion to them, and returns a ring that passes Check or an error that wraps ErrEncoding.
func Decode(b []byte) (*Ring, error) {
	d := decoder{bytesreader.Reader{B: b}}
	if v := d.Byte(); v != encodingVersion && !d.Short {
		return nil, fmt.Errorf("%w: version %d, this node reads %d", ErrEncoding, v, encodingVersion)
	}
	addr, ok := netip.AddrFromSlice(d.Bytes(int(d.Byte())))
	prefix := netip.PrefixFrom(addr, int(d.Byte()))
	clusterID := d.Bytes(len(ClusterID{}))
	count := d.Uvarint()
	if d.Short || !ok {
		return nil, fmt.Errorf("%w: cut short", ErrEncoding)
	}
	r, err := New(prefix)
	if err != nil || r.prefix != prefix {
		return nil, fmt.Errorf("%w: range %q", ErrEncoding, prefix)
	}
	r.clusterID = ClusterID(clusterID)
	if count > MaxTokens || count > uint64(len(d.B)/minTokenLen) {
		return nil, fmt.Errorf("%w: %d tokens in %d bytes", ErrEncoding, count, len(d.B))
	}
	r.tokens = make([]Token, 0, count)
	var before uint64
	for range count {
		t := d.token(before)
		r.tokens = append(r.tokens, t)
		before = t.Start
	}
	if d.Short || len(d.B) > 0 {
		return nil, fmt.Errorf("%w: tokens cut short or followed by %d bytes", ErrEncoding, len(d.B))
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	return r, nil
}

func (r *Ring) appendHeader(dst []byte) []byte {
	addr := r.prefix.Addr().AsSlice()
	dst = append(dst, encodingVersion, byte(len(addr)))
	dst = append(dst, addr...)
	dst = append(dst, byte(r.prefix.Bits()))
	return append(dst, r.clusterID[:]...)
}

func appendToken(dst []byte, t Token, before uint64) []byte {
	dst = binary.AppendUvarint(dst, t.Start-before)
	dst = binary.AppendUvarint(dst, t.End-t.Start)
	dst = append(dst, t.Owner[:]...)
	dst = binary.AppendUvarint(dst, t.Version)
	return binary.AppendUvarint(dst, t.Free)
}

// decoder reads the parts of an encoding. Sums of the values may wrap: Check refuses those, because starts must grow
// and ends must be above starts.
type decoder struct{ bytesreader.Reader }

func (d *decoder) token(before uint64) Token {
	start := before + d.Uvarint()
	end := start + d.Uvarint()
	var owner peer.ID
	copy(owner[:], d.Bytes(len(owner)))
	return Token{Start: start, End: end, Owner: owner, Version: d.Uvarint(), Free: d.Uvarint()}
}
