// Package wire encodes what weft puts into a datagram besides the frame: the header, in the clear, and the metadata of
// the frame, which is sealed with it where there is a secret.
//
//	 0        1                 4                                8 bytes
//	+--------+-----------------+--------------------------------+
//	|ver|type| session         | counter                        |  header, 12 bytes, clear, and authenticated
//	+--------+-----------------+                                +
//	| ... counter              |
//	+--------+--------+--------+--------+-----------------+-----------------+
//	| flags  |hdr len |csum st.|csum of.| segment size    | index           |  metadata, 8 bytes, sealed
//	+--------+--------+--------+--------+-----------------+-----------------+
//	| frame: destination, source, EtherType, payload ...                    |  sealed
//	+-----------------------------------------------------------------------+
//	| tag, 16 bytes, only where the datagram is sealed                      |
//	+-----------------------------------------------------------------------+
//
// A probe of the path MTU has its own body behind the header, and so has the answer to it, which ends after the size; both
// are sealed:
//
//	+-----------------------------------+-----------------+----------------- - -
//	| token                             | size            | zeros, up to size      body, 6 bytes and padding
//	+-----------------------------------+-----------------+----------------- - -
//
// The messages of the handshake are in handshake.go.
//
// All numbers are big-endian. Everything is pure: no I/O, no allocation, safe for concurrent use.
package wire

import (
	"encoding/binary"
	"errors"
)

// Version is the protocol version that this package speaks; it stands in the upper four bits of a datagram's first byte.
const Version = 1

// HeaderLen is the length of Header in bytes.
const HeaderLen = 12

// MaxSession is the highest session index that the header's 24 bits hold.
const MaxSession = 1<<24 - 1

// Errors of the parsers; each is a reason to drop a datagram and to count it.
var (
	ErrShort   = errors.New("wire: datagram cut short")
	ErrVersion = errors.New("wire: another protocol version")
	ErrType    = errors.New("wire: unknown type of datagram")
	ErrMeta    = errors.New("wire: metadata contradicts itself or the frame")
	ErrProbe   = errors.New("wire: probe of another size than it says")

	ErrHandshake = errors.New("wire: message of a handshake of another form")
	ErrRelay     = errors.New("wire: relayed too far, or twice")
)

// Type says what a datagram carries; it stands in the lower four bits of the first byte. The zero Type is invalid.
type Type uint8

// Types of datagram. All those of a session but TypePlain are sealed. A relayed datagram is sealed twice: for the relay,
// and by its sender for the node that it is for.
const (
	TypeFrame      Type = 1 // metadata and one frame, or one slice of a superframe
	TypeProbe      Type = 2 // a Probe, padded to its size
	TypeProbeReply Type = 3 // the Probe that arrived, not padded
	TypeKeepalive  Type = 4 // nothing: it says that the sender is there, and at which address
	TypePlain      Type = 5 // what TypeFrame has, not sealed, where both ends have agreed to that

	// Of no session yet: see Initiation, Response and Cookie.
	TypeInitiation Type = 6
	TypeResponse   Type = 7
	TypeCookie     Type = 8

	// TypeUnknown answers a datagram of a session that its receiver does not have, by that datagram's own session and
	// counter and nothing else: somebody who has not seen it cannot make this up.
	TypeUnknown Type = 9

	// Of a session again. See Relay and Control.
	TypeRelay   Type = 10 // a datagram on its way from one node to another through this one
	TypeControl Type = 11 // what the engines above tell each other

	// TypeKnock is of no session: it shows its receiver that datagrams reach it that it has not asked for. See Knock.
	TypeKnock Type = 12

	lastType = TypeKnock
)

// IsHandshake reports whether a datagram of this type is for those who make sessions, and of none itself.
func (t Type) IsHandshake() bool { return t >= TypeInitiation && t <= TypeUnknown }

// Header is the clear part of a datagram.
type Header struct {
	Type Type
	// Session is the index under which the receiver knows the session: it picks the key without a look at the source
	// address. 0 is no session. At most MaxSession.
	Session uint32
	// Counter never repeats within what the sender sends to a session: it is the nonce, and what a replay window
	// checks. The slices of one superframe have consecutive counters, so that counter - index names the superframe.
	Counter uint64
}

// Parse reads the header at the start of b and returns what follows it, which still lies in b. The errors are ErrShort,
// ErrVersion and ErrType, unwrapped.
func Parse(b []byte) (h Header, rest []byte, err error) {
	if len(b) < HeaderLen {
		return Header{}, nil, ErrShort
	}
	if b[0]>>4 != Version {
		return Header{}, nil, ErrVersion
	}
	first := binary.BigEndian.Uint32(b)
	h = Header{
		Type:    Type(b[0] & 0x0f),
		Session: first & MaxSession,
		Counter: binary.BigEndian.Uint64(b[4:]),
	}
	if h.Type < TypeFrame || h.Type > lastType {
		return Header{}, nil, ErrType
	}
	return h, b[HeaderLen:], nil
}

// Put writes h to the first HeaderLen bytes of b, which must be there. Of Session the lower 24 bits are written.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	first := uint32(Version)<<28 | uint32(h.Type&0x0f)<<24 | h.Session&MaxSession
	binary.BigEndian.PutUint32(b, first)
	binary.BigEndian.PutUint64(b[4:], h.Counter)
}
