// Package wire encodes the parts of a datagram besides the frame: the header, which is not encrypted, and the metadata
// of the frame, which is sealed together with it if the session seals.
//
//	 0        1                 4                                8 bytes
//	+--------+-----------------+--------------------------------+
//	|ver|type| session         | counter                        |  header, 12 bytes, not encrypted, authenticated
//	+--------+-----------------+                                +
//	| ... counter              |
//	+--------+--------+--------+--------+-----------------+-----------------+
//	| flags  |hdr len |csum st.|csum of.| segment size    | index           |  metadata, 8 bytes, sealed
//	+--------+--------+--------+--------+-----------------+-----------------+
//	| frame: destination, source, EtherType, payload ...                    |  sealed
//	+-----------------------------------------------------------------------+
//	| tag, 16 bytes, only in sealed datagrams                               |
//	+-----------------------------------------------------------------------+
//
// A probe of the path MTU has another body behind the header, and so has the reply to it, which ends after the size.
// Both are sealed:
//
//	+-----------------------------------+-----------------+----------------- - -
//	| token                             | size            | zeros, up to size      body, 6 bytes and padding
//	+-----------------------------------+-----------------+----------------- - -
//
// The messages of the handshake are in handshake.go.
//
// All numbers are big-endian. Everything is pure: no I/O, no allocation in parsers, safe for concurrent use.
package wire

import (
	"encoding/binary"
	"errors"
)

// Version is the protocol version of this package: the upper four bits of the first byte of a datagram.
const Version = 1

// HeaderLen is the length of Header in bytes.
const HeaderLen = 12

// MaxSession is the highest session index: the header has 24 bits for it.
const MaxSession = 1<<24 - 1

// Errors of the parsers: each is a reason to drop a datagram and to count it.
var (
	ErrShort   = errors.New("wire: datagram truncated")
	ErrVersion = errors.New("wire: another protocol version")
	ErrType    = errors.New("wire: unknown type of datagram")
	ErrMeta    = errors.New("wire: metadata contradicts itself or the frame")
	ErrProbe   = errors.New("wire: probe with a wrong size")

	ErrHandshake = errors.New("wire: malformed handshake message")
	ErrRelay     = errors.New("wire: too many hops, or relayed in a relayed datagram")
)

// Type is the kind of a datagram: the lower four bits of the first byte. The zero Type is invalid.
type Type uint8

// Types of datagram. All types of a session except TypePlain are sealed. A relayed datagram is sealed twice: for the
// relay, and by its sender for its destination.
const (
	TypeFrame      Type = 1 // metadata and one frame, or one segment of a superframe
	TypeProbe      Type = 2 // a Probe, padded to its size
	TypeProbeReply Type = 3 // the received Probe, not padded
	TypeKeepalive  Type = 4 // no body: it shows that the sender is alive, and its address
	TypePlain      Type = 5 // the body of TypeFrame, not sealed, if both ends have agreed on it

	// Handshake messages, without a session: see Initiation, Response and Cookie.
	TypeInitiation Type = 6
	TypeResponse   Type = 7
	TypeCookie     Type = 8

	// TypeUnknown is an unknown-session notice: the reply to a datagram of a session that its receiver does not have.
	// It repeats only the session and the counter of the datagram, so that a host that has not seen the datagram cannot
	// forge it.
	TypeUnknown Type = 9

	// Further types of a session: see Relay and Control.
	TypeRelay   Type = 10 // a datagram from one node to another through the receiver
	TypeControl Type = 11 // a message between the engines above the datapath

	// TypeDialBack has no session: it shows its receiver that unsolicited datagrams reach it (AutoNAT). See DialBack.
	TypeDialBack Type = 12

	// TypePortProbe is a type of a session: a Probe, padded to its size, from an entropy port. The reply to it is a TypeProbeReply. It
	// says nothing about the endpoint of its sender.
	TypePortProbe Type = 13

	lastType = TypePortProbe
)

// IsHandshake reports whether a datagram of this type belongs to the making of sessions, and to no session itself.
func (t Type) IsHandshake() bool { return t >= TypeInitiation && t <= TypeUnknown }

// Header is the part of a datagram that is not encrypted.
type Header struct {
	Type Type
	// Session is the receiver's index of the session, at most MaxSession; 0 stands for no session. The receiver finds
	// the key by it, whatever the source address.
	Session uint32
	// Counter never repeats among the datagrams that a node sends in a session: it is the nonce, and the input of the
	// replay window. The segments of one superframe have consecutive counters, so counter - index identifies the
	// superframe.
	Counter uint64
}

// Parse reads the header at the start of b and returns the rest of b. The errors are ErrShort, ErrVersion and ErrType,
// unwrapped.
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

// Put writes h to the first HeaderLen bytes of b; b must not be shorter. It writes the lower 24 bits of Session.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	first := uint32(Version)<<28 | uint32(h.Type&0x0f)<<24 | h.Session&MaxSession
	binary.BigEndian.PutUint32(b, first)
	binary.BigEndian.PutUint64(b[4:], h.Counter)
}
