package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"weft/internal/peer"
)

const (
	revocationsPrefix  = "weft-revocations-1"
	revocationsVersion = 1
	revocationsFixed   = 1 + 8 + 8 + 2
	entrySize          = 8 + 8
)

// MaxRevocations is the largest number of entries of a list. An entry can be left out of later lists once all certificates of its
// node have expired.
const MaxRevocations = 2000

// Revocation is an entry of a list: a node that must not be admitted, whatever certificate it has.
type Revocation struct {
	ID peer.ID
	At time.Time // when it was revoked, by the clock of the CA; for people
}

// Revocations is a list of revoked nodes, signed by a CA. Of two lists of a CA the newer one counts.
//
//	 0   1         9      17      19                              -64
//	+---+---------+------+-------+------------------------------+-----------+
//	| 1 | version | time | count | entries: ID 8, revoked at 8  | signature |
//	| 1 | 8       | 8    | 2     | 16 each                      | 64        |
//	+---+---------+------+-------+------------------------------+-----------+
//
// Numbers are big endian, times are seconds of Unix time. The entries are ordered by ID, each ID once. The signature covers all that
// precedes it.
type Revocations struct {
	Version   uint64
	Time      time.Time // when it was signed
	Entries   []Revocation
	signature [ed25519.SignatureSize]byte
}

// SignRevocations returns a signed list with the given entries, in any order. If a node is in them twice, its earlier time counts.
func (c CA) SignRevocations(version uint64, at time.Time, entries []Revocation) (Revocations, error) {
	list := Revocations{Version: version, Time: at.UTC().Truncate(time.Second)}
	for _, e := range entries {
		list.Entries = append(list.Entries, Revocation{e.ID, e.At.UTC().Truncate(time.Second)})
	}
	slices.SortFunc(list.Entries, func(a, b Revocation) int {
		if c := a.ID.Compare(b.ID); c != 0 {
			return c
		}
		return a.At.Compare(b.At)
	})
	list.Entries = slices.CompactFunc(list.Entries, func(a, b Revocation) bool { return a.ID == b.ID })
	if err := list.checkFields(); err != nil {
		return Revocations{}, err
	}
	list.signature = [ed25519.SignatureSize]byte(c.sign(revocationsContext, list.body()))
	return list, nil
}

// checkFields returns an error about a field that cannot be encoded.
func (r Revocations) checkFields() error {
	if r.Version == 0 || len(r.Entries) > MaxRevocations {
		return fmt.Errorf("%w: a list of version %d with %d revoked nodes", ErrMalformed, r.Version, len(r.Entries))
	}
	if !inRange(r.Time) || slices.ContainsFunc(r.Entries, func(e Revocation) bool { return !inRange(e.At) }) {
		return fmt.Errorf("%w: a list of revoked nodes with a time out of range", ErrMalformed)
	}
	for i, e := range r.Entries {
		if e.ID.IsZero() || i > 0 && r.Entries[i-1].ID.Compare(e.ID) >= 0 {
			return fmt.Errorf("%w: a list of revoked nodes that is not in order", ErrMalformed)
		}
	}
	return nil
}

func (r Revocations) body() []byte {
	b := make([]byte, 0, revocationsFixed+entrySize*len(r.Entries)+ed25519.SignatureSize)
	b = append(b, revocationsVersion)
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.Unix()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Entries)))
	for _, e := range r.Entries {
		b = append(b, e.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(e.At.Unix()))
	}
	return b
}

// Encode returns the wire form.
func (r Revocations) Encode() []byte { return append(r.body(), r.signature[:]...) }

// String returns the list as the line of a file, without a line break.
func (r Revocations) String() string { return encodeLine(revocationsPrefix, r.Encode()) }

// IsZero reports whether r is the zero Revocations: no list.
func (r Revocations) IsZero() bool { return r.Version == 0 }

// ParseRevocationsLine reads a line that String has returned. It does not check the signature; see SignedBy.
func ParseRevocationsLine(line string) (Revocations, error) {
	raw, err := decodeLine(line, revocationsPrefix)
	if err != nil {
		return Revocations{}, err
	}
	return ParseRevocations(raw)
}

// ParseRevocations reads the wire form. It does not check the signature; see SignedBy. Errors wrap ErrMalformed.
func ParseRevocations(b []byte) (Revocations, error) {
	r := reader{rest: b}
	version := r.byte()
	list := Revocations{Version: r.uint64(), Time: r.time()}
	var count int
	if c := r.bytes(2); c != nil {
		count = int(binary.BigEndian.Uint16(c))
	}
	if count > MaxRevocations || len(r.rest) != count*entrySize+len(list.signature) {
		r.short = true
	}
	for range count {
		if r.short {
			break
		}
		var e Revocation
		copy(e.ID[:], r.bytes(len(e.ID)))
		e.At = r.time()
		list.Entries = append(list.Entries, e)
	}
	copy(list.signature[:], r.bytes(len(list.signature)))
	switch {
	case r.short:
		return Revocations{}, fmt.Errorf("%w: a list of revoked nodes that is cut short or too long", ErrMalformed)
	case version != revocationsVersion:
		return Revocations{}, fmt.Errorf("%w: a list of format %d, this build reads %d", ErrMalformed, version, revocationsVersion)
	}
	return list, list.checkFields()
}

// SignedBy reports whether the CA has signed the list.
func (r Revocations) SignedBy(ca CAKey) bool {
	return ca.verify(revocationsContext, r.body(), r.signature[:])
}

// Newer reports whether r counts rather than other, a list of the same CA. A CA signs each version once. If its folder was copied, it
// may sign one twice; then the later one counts, so that all nodes agree.
func (r Revocations) Newer(other Revocations) bool {
	switch {
	case r.Version != other.Version:
		return r.Version > other.Version
	case !r.Time.Equal(other.Time):
		return r.Time.After(other.Time)
	default:
		return bytes.Compare(r.Encode(), other.Encode()) > 0
	}
}

// Has returns when a node was revoked, and whether it was.
func (r Revocations) Has(id peer.ID) (time.Time, bool) {
	i, found := slices.BinarySearchFunc(r.Entries, id, func(e Revocation, id peer.ID) int { return e.ID.Compare(id) })
	if !found {
		return time.Time{}, false
	}
	return r.Entries[i].At, true
}
