package paxos

import (
	"encoding/binary"
	"fmt"

	"weft/internal/bytesreader"
	"weft/internal/peer"
)

// Acceptor is the state of one acceptor in an instance that decides on one node, and in which the proposer asks every
// acceptor by message (see Proposal). The caller must write it to disk after every call that changed it, before it sends
// the state. The zero Acceptor has promised nothing.
type Acceptor struct {
	Promised Ballot  // ballots below are refused
	Accepted Ballot  // never above Promised
	Value    peer.ID // the accepted value; zero where none was accepted
}

// Promise records the promise to refuse ballots below b, and reports false where a higher ballot was promised before.
func (a *Acceptor) Promise(b Ballot) bool {
	if b.Less(a.Promised) {
		return false
	}
	a.Promised = b
	return true
}

// Accept records the acceptance of value under b, and reports false where a higher ballot was promised before.
func (a *Acceptor) Accept(b Ballot, value peer.ID) bool {
	if !a.Promise(b) {
		return false
	}
	a.Accepted, a.Value = b, value
	return true
}

// Append appends the encoding of a to dst: the promised and the accepted ballot, each a round (varint) and its proposer
// (8 bytes), and the value.
func (a *Acceptor) Append(dst []byte) []byte {
	for _, b := range []Ballot{a.Promised, a.Accepted} {
		dst = binary.AppendUvarint(dst, b.Round)
		dst = append(dst, b.By[:]...)
	}
	return append(dst, a.Value[:]...)
}

// DecodeAcceptor reads the encoding that Append wrote and returns the bytes behind it. The error wraps ErrEncoding.
func DecodeAcceptor(b []byte) (a Acceptor, rest []byte, err error) {
	r := bytesreader.Reader{B: b}
	a.Promised, a.Accepted, a.Value = readBallot(&r), readBallot(&r), readID(&r)
	if r.Short || a.Promised.Round > MaxCount || a.Promised.Less(a.Accepted) {
		return Acceptor{}, nil, fmt.Errorf("%w: acceptor state", ErrEncoding)
	}
	return a, r.B, nil
}

func readBallot(r *bytesreader.Reader) Ballot { return Ballot{Round: r.Uvarint(), By: readID(r)} }

func readID(r *bytesreader.Reader) (id peer.ID) {
	copy(id[:], r.Bytes(len(id)))
	return id
}
