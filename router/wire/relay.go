package wire

import "weft/internal/peer"

// RelayLen is the length in bytes of the Relay before a relayed datagram, in the body of the datagram that carries it:
//
//	+------+----------+-----------------+-----------------+---------------------- - -
//	| hops | reserved | source          | destination     | datagram
//	| 1    | 1        | 8               | 8               |
//	+------+----------+-----------------+-----------------+---------------------- - -
const RelayLen = 2 + 2*idLen

const idLen = len(peer.ID{})

// RelayOverhead is the number of bytes that relaying adds to a datagram, for any number of hops: each relay unpacks it
// and packs it again.
const RelayOverhead = HeaderLen + RelayLen + TagLen

// MaxHops is the most links that a relayed datagram may pass, the first one included.
const MaxHops = 3

// Relay is the source and the destination of a relayed datagram. Only the relay vouches for the source; the seal of the
// datagram itself authenticates its sender.
type Relay struct {
	Hops                uint8 // further links that it may pass
	Source, Destination peer.ID
}

// Put writes r to the first RelayLen bytes of b; b must not be shorter.
func (r Relay) Put(b []byte) {
	_ = b[RelayLen-1]
	b[0], b[1] = r.Hops, 0
	copy(b[2:], r.Source[:])
	copy(b[2+idLen:], r.Destination[:])
}

// ParseRelay reads the body of a TypeRelay datagram and returns the datagram in it, which lies in b. The error is
// ErrShort, or ErrRelay if Hops is not below MaxHops, or if the inner datagram is a TypeRelay datagram as well.
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

// DialBackLen is the length of a TypeDialBack datagram: a header without a session. Its counter is the token in the
// receiver's request.
const DialBackLen = HeaderLen

// DialBack returns a TypeDialBack datagram with the given token.
func DialBack(token uint64) []byte {
	b := make([]byte, DialBackLen)
	Header{Type: TypeDialBack, Counter: token}.Put(b)
	return b
}

// Control is the body of a TypeControl datagram: the number of its receiver above the datapath, and a message.
//
//	+------+--------- - -
//	| to   | message
//	+------+--------- - -
type Control struct {
	To      uint8
	Message []byte
}

// ParseControl reads the body of a TypeControl datagram. The message lies in b. The error is ErrShort.
func ParseControl(b []byte) (Control, error) {
	if len(b) < 1 {
		return Control{}, ErrShort
	}
	return Control{To: b[0], Message: b[1:]}, nil
}

// Append appends c to dst.
func (c Control) Append(dst []byte) []byte { return append(append(dst, c.To), c.Message...) }
