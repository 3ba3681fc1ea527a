package wire

import "weft/internal/peer"

// RelayLen is the length in bytes of what stands before a relayed datagram in the body of the one that carries it:
//
//	+------+----------+-----------------+-----------------+---------------------- - -
//	| hops | reserved | source          | destination     | datagram
//	| 1    | 1        | 8               | 8               |
//	+------+----------+-----------------+-----------------+---------------------- - -
const RelayLen = 2 + 2*idLen

const idLen = len(peer.ID{})

// RelayOverhead is what a relay costs a datagram in bytes, whatever the number of hops: each unpacks it and packs it again.
const RelayOverhead = HeaderLen + RelayLen + TagLen

// MaxHops is how many links a relayed datagram may pass, its first included.
const MaxHops = 3

// Relay says where a relayed datagram comes from and where it goes. That its source is true is the relay's word alone;
// the datagram itself shows who sealed it.
type Relay struct {
	Hops                uint8 // links that it may still pass, that to its reader not counted
	Source, Destination peer.ID
}

// Put writes r to the first RelayLen bytes of b, which must be there.
func (r Relay) Put(b []byte) {
	_ = b[RelayLen-1]
	b[0], b[1] = r.Hops, 0
	copy(b[2:], r.Source[:])
	copy(b[2+idLen:], r.Destination[:])
}

// ParseRelay reads the body of a TypeRelay datagram and returns the datagram in it, which still lies in b. The error is
// ErrShort, or ErrRelay for one that has passed more links than there may be, or is itself one that carries another.
func ParseRelay(b []byte) (r Relay, datagram []byte, err error) {
	if len(b) < RelayLen+HeaderLen {
		return Relay{}, nil, ErrShort
	}
	r = Relay{Hops: b[0], Source: peer.ID(b[2:]), Destination: peer.ID(b[2+idLen:])}
	datagram = b[RelayLen:]
	if r.Hops >= MaxHops || Type(datagram[0]&0x0f) == TypeRelay {
		return Relay{}, nil, ErrRelay
	}
	return r, datagram, nil
}

// KnockLen is the length of a TypeKnock datagram: a header without a session, whose counter is what the receiver has asked
// somebody else to send it.
const KnockLen = HeaderLen

// Knock returns a TypeKnock datagram.
func Knock(token uint64) []byte {
	b := make([]byte, KnockLen)
	Header{Type: TypeKnock, Counter: token}.Put(b)
	return b
}

// Control is the body of a TypeControl datagram: who above the datapath it is for, and what it says.
//
//	+------+--------- - -
//	| to   | message
//	+------+--------- - -
type Control struct {
	To      uint8
	Message []byte
}

// ParseControl reads the body of a TypeControl datagram; the message lies in b. The error is ErrShort.
func ParseControl(b []byte) (Control, error) {
	if len(b) < 1 {
		return Control{}, ErrShort
	}
	return Control{To: b[0], Message: b[1:]}, nil
}

// Append appends c to dst.
func (c Control) Append(dst []byte) []byte { return append(append(dst, c.To), c.Message...) }
