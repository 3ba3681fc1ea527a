package paxos

import (
	"encoding/binary"
	"fmt"

	"weft/internal/bytesreader"
	"weft/internal/peer"
)

// Acceptor is one elector's part in a decree that names one node, of which all electors have to be asked one by one: what
// it promised and what it accepted. The caller must write it to disk after every call that changed it, before anybody
// hears of it. The zero Acceptor has promised nothing.
type Acceptor struct {
	Promised Ballot  // it takes no part in ballots below
	Accepted Ballot  // never above Promised
	Value    peer.ID // what was accepted; zero where nothing was
}

// Promise promises b if nothing higher was promised, and reports whether it did.
func (a *Acceptor) Promise(b Ballot) bool {
	if b.Less(a.Promised) {
		return false
	}
	a.Promised = b
	return true
}

// Accept accepts value under b if nothing higher was promised, and reports whether it did.
func (a *Acceptor) Accept(b Ballot, value peer.ID) bool {
	if !a.Promise(b) {
		return false
	}
	a.Accepted, a.Value = b, value
	return true
}

// Append appends the encoding of a to dst: two ballots, each a round (varint) and who proposed it (8 bytes), and the value.
func (a *Acceptor) Append(dst []byte) []byte {
	for _, b := range []Ballot{a.Promised, a.Accepted} {
		dst = binary.AppendUvarint(dst, b.Round)
		dst = append(dst, b.By[:]...)
	}
	return append(dst, a.Value[:]...)
}

// DecodeAcceptor reads what Append wrote and returns what follows it. The error wraps ErrEncoding.
func DecodeAcceptor(b []byte) (a Acceptor, rest []byte, err error) {
	r := bytesreader.Reader{B: b}
	a.Promised, a.Accepted, a.Value = readBallot(&r), readBallot(&r), readID(&r)
	if r.Short || a.Promised.Round > MaxCount || a.Promised.Less(a.Accepted) {
		return Acceptor{}, nil, fmt.Errorf("%w: part in a decree", ErrEncoding)
	}
	return a, r.B, nil
}

func readBallot(r *bytesreader.Reader) Ballot { return Ballot{Round: r.Uvarint(), By: readID(r)} }

func readID(r *bytesreader.Reader) (id peer.ID) {
	copy(id[:], r.Bytes(len(id)))
	return id
}

// Choice is what a proposer has heard of the electors under one ballot.
type Choice struct {
	Ballot   Ballot
	heard    map[peer.ID]bool
	accepted map[peer.ID]bool
	highest  Ballot
	value    peer.ID
}

// NewChoice returns a proposer's view of a ballot of which nobody has heard yet.
func NewChoice(b Ballot) *Choice {
	return &Choice{Ballot: b, heard: make(map[peer.ID]bool), accepted: make(map[peer.ID]bool)}
}

// Hear notes an elector's promise, or its acceptance, from what it says of itself. It reports false where the elector has
// promised another ballot: this one comes to nothing.
func (c *Choice) Hear(elector peer.ID, a Acceptor) bool {
	if a.Promised != c.Ballot {
		return false
	}
	if a.Accepted == c.Ballot {
		c.accepted[elector] = true
	}
	c.heard[elector] = true
	if !a.Value.IsZero() && c.highest.Less(a.Accepted) {
		c.highest, c.value = a.Accepted, a.Value
	}
	return true
}

// Missing returns those of electors that have not promised, or where accept is set not accepted.
func (c *Choice) Missing(electors []peer.ID, accept bool) (missing []peer.ID) {
	from := c.heard
	if accept {
		from = c.accepted
	}
	for _, id := range electors {
		if !from[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// Value returns what has to be proposed: what an elector has accepted under the highest ballot, or else what the proposer
// would like.
func (c *Choice) Value(liked peer.ID) peer.ID {
	if !c.value.IsZero() {
		return c.value
	}
	return liked
}
