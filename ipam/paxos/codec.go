package paxos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"weft/internal/bytesreader"
	"weft/internal/peer"
)

// ErrEncoding is wrapped by Decode for bytes that are not the encoding of valid states.
var ErrEncoding = errors.New("paxos: bad encoding")

// The encoding of states; numbers are unsigned varints (encoding/binary) unless stated otherwise:
//
//	+---------+-------+----------
//	| version | count | states …
//	| 1 byte  |       |
//	+---------+-------+----------
//
//	state:  node (8 bytes) | seq | needed | floor | promised | accepted | value
//	ballot: round | proposer (8 bytes, left out for round 0)
//	value:  0 where nothing is accepted; or 1 + the number of nodes in it, and these, 8 bytes each;
//	        or 1 + MaxValue + i for the value of the state i places before
const (
	encodingVersion = 1
	lookBack        = 64 // how many preceding states are searched for the same value
	minStateLen     = 8 + 1 + 1 + 1 + 1 + 1 + 1
)

// Append appends the encoding of states to dst.
func Append(dst []byte, states []State) []byte {
	dst = append(dst, encodingVersion)
	dst = binary.AppendUvarint(dst, uint64(len(states)))
	for i, s := range states {
		dst = appendState(dst, s, states[:i])
	}
	return dst
}

// Chunks returns encodings of at most limit bytes that together hold all states. Each may be merged alone. The limit
// must be at least 900, which is more than any one state needs.
func Chunks(states []State, limit int) [][]byte {
	var chunks [][]byte
	for len(states) > 0 {
		n := 1
		for size := len(Append(nil, states[:1])); n < len(states); n++ {
			size += len(appendState(nil, states[n], states[:n])) + 1
			if size > limit {
				break
			}
		}
		chunks = append(chunks, Append(nil, states[:n]))
		states = states[n:]
	}
	return chunks
}

// Decode reads the encoding that Append wrote. Whatever the bytes, it does not panic, allocates only in proportion to
// them, and returns states that an acceptor can be in or an error that wraps ErrEncoding.
func Decode(b []byte) ([]State, error) {
	d := decoder{bytesreader.Reader{B: b}}
	if v := d.Bytes(1); len(v) == 1 && v[0] != encodingVersion {
		return nil, fmt.Errorf("%w: version %d, this node reads %d", ErrEncoding, v[0], encodingVersion)
	}
	count := d.Uvarint()
	if d.Short || count > MaxAcceptors || count > uint64(len(d.B)/minStateLen) {
		return nil, fmt.Errorf("%w: %d states in %d bytes", ErrEncoding, count, len(d.B))
	}
	states := make([]State, 0, count)
	for range count {
		s := d.state(states)
		if d.Short || !s.valid() {
			return nil, fmt.Errorf("%w: state %d", ErrEncoding, len(states))
		}
		states = append(states, s)
	}
	if len(d.B) > 0 {
		return nil, fmt.Errorf("%w: followed by %d bytes", ErrEncoding, len(d.B))
	}
	return states, nil
}

// valid reports whether an acceptor can be in state s.
func (s State) valid() bool {
	if s.Node.IsZero() || s.Seq == 0 || max(s.Seq, s.Promised.Round) > MaxCount || max(s.Needed, s.Floor) > MaxAcceptors {
		return false
	}
	if s.Promised.Less(s.Accepted) || s.Accepted.IsZero() != (len(s.Value) == 0) {
		return false
	}
	for i, id := range s.Value {
		if id.IsZero() || i > 0 && s.Value[i-1].Compare(id) >= 0 {
			return false
		}
	}
	return true
}

func appendState(dst []byte, s State, before []State) []byte {
	dst = append(dst, s.Node[:]...)
	dst = binary.AppendUvarint(dst, s.Seq)
	dst = binary.AppendUvarint(dst, s.Needed)
	dst = binary.AppendUvarint(dst, s.Floor)
	dst = appendBallot(dst, s.Promised)
	dst = appendBallot(dst, s.Accepted)
	for i := 1; i <= min(len(before), lookBack) && len(s.Value) > 0; i++ {
		if slices.Equal(before[len(before)-i].Value, s.Value) {
			return binary.AppendUvarint(dst, uint64(1+MaxValue+i))
		}
	}
	if len(s.Value) == 0 {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(1+len(s.Value)))
	for _, id := range s.Value {
		dst = append(dst, id[:]...)
	}
	return dst
}

func appendBallot(dst []byte, b Ballot) []byte {
	dst = binary.AppendUvarint(dst, b.Round)
	if b.Round == 0 {
		return dst
	}
	return append(dst, b.By[:]...)
}

// decoder reads the parts of an encoding.
type decoder struct{ bytesreader.Reader }

func (d *decoder) id() (id peer.ID) {
	copy(id[:], d.Bytes(len(id)))
	return id
}

func (d *decoder) ballot() (b Ballot) {
	if b.Round = d.Uvarint(); b.Round != 0 {
		b.By = d.id()
	}
	return b
}

func (d *decoder) state(before []State) State {
	s := State{Node: d.id(), Seq: d.Uvarint(), Needed: d.Uvarint(), Floor: d.Uvarint(), Promised: d.ballot(), Accepted: d.ballot()}
	switch v := d.Uvarint(); {
	case v == 0:
	case v <= 1+MaxValue:
		if v-1 > uint64(len(d.B)/len(peer.ID{})) {
			d.Short = true
			return s
		}
		for range v - 1 {
			s.Value = append(s.Value, d.id())
		}
	case v-1-MaxValue <= uint64(len(before)):
		s.Value = before[uint64(len(before))-(v-1-MaxValue)].Value
	default:
		d.Short = true
	}
	return s
}
