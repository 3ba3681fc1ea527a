package packet

import "encoding/binary"

// IPv6Len is the length of the fixed IPv6 header in bytes.
const IPv6Len = 40

// Offsets of the fields of an IPv6 header in bytes (RFC 8200, section 3):
//
//	  0       1       2       3       4       5       6       7
//	+---+-------+-------------------+---------------+-------+-------+
//	|ver| class |    flow label     |payload length | next  | hops  |
//	+---+-------+-------------------+---------------+-------+-------+
//	|                       source (16 bytes)                       |
//	|                    destination (16 bytes)                     |
//	+---------------------------------------------------------------+
const (
	IPv6Length      = 4 // of everything behind this header
	IPv6Next        = 6
	IPv6HopLimit    = 7
	IPv6Source      = 8
	IPv6Destination = 24
)

// MaxExtensions is the most extension headers that Transport walks over: one more than an upper-layer header has before
// it in a packet that follows the recommended order (RFC 8200, section 4.1).
const MaxExtensions = 7

// minExtensionLen is the shortest extension header, in bytes. The fragment header has this length always.
const minExtensionLen = 8

// Extensions is a set of IPv6 extension headers. The headers of all kinds begin with the number of the next one:
//
//	  0       1       2       3       4               8
//	+-------+-------+-------+-------+-------+-------+-------
//	| next  | len   |  options or routing data               HopByHop, Routing, DestinationOptions: (len + 1) * 8 bytes
//	+-------+-------+-------+-------+-------+-------+-------
//	| next  |   0   | offset  |0|M|  identification |        Fragment: 8 bytes; offset in units of 8 bytes
//	+-------+-------+-------+-------+-------+-------+-------
//	| next  | len   |   reserved    |  SPI, sequence, ICV    AH: (len + 2) * 4 bytes (RFC 4302, section 2.2)
//	+-------+-------+-------+-------+-------+-------+-------
//
// ESP is in no set: what follows it is encrypted.
type Extensions uint8

// Sets of extension headers, to be joined by "|".
const (
	Options   Extensions = 1 << iota // HopByHop, Routing and DestinationOptions
	Fragments                        // Fragment
	Auth                             // AH

	AllExtensions = Options | Fragments | Auth
)

// Result is how a walk over extension headers ended. The zero Result is invalid.
type Result uint8

// Results of Transport.
const (
	// Found: a header that is not in the set was reached. It may be an upper-layer header, ESP, NoNextHeader or an
	// extension header that the caller does not walk over.
	Found Result = iota + 1
	// LaterFragment: the packet is a fragment other than the first, so that its payload has no header at its start.
	LaterFragment
	// Truncated: the packet ends within a header.
	Truncated
	// TooMany: there are more than MaxExtensions extension headers.
	TooMany
)

// Transport walks over the extension headers of the IPv6 packet ip that are in walk, and stops at the first other one.
// It returns the protocol number of the header at which it stopped and the offset of that header from the start of ip,
// at most len(ip). How much of this last header is there was not checked, unless r is Truncated; neither were the
// version and the payload length.
//
// At a fragment header that is in walk, Transport goes on in the first fragment, and stops behind it in a later one:
// protocol is then that of the header with which the unfragmented payload begins (RFC 8200, section 4.5).
func Transport(ip []byte, walk Extensions) (protocol Protocol, at int, r Result) {
	if len(ip) < IPv6Len {
		return 0, 0, Truncated
	}
	protocol, at = Protocol(ip[IPv6Next]), IPv6Len
	for range MaxExtensions {
		kind := extensionSet(protocol)
		if kind&walk == 0 {
			return protocol, at, Found
		}
		header := ip[at:]
		if len(header) < minExtensionLen {
			return protocol, at, Truncated
		}
		n := extensionLen(kind, header)
		if len(header) < n {
			return protocol, at, Truncated
		}
		protocol, at = Protocol(header[0]), at+n
		if kind == Fragments && binary.BigEndian.Uint16(header[2:])&fragmentOffset != 0 {
			return protocol, at, LaterFragment
		}
	}
	if extensionSet(protocol)&walk == 0 {
		return protocol, at, Found
	}
	return protocol, at, TooMany
}

// fragmentOffset selects the offset in the 16-bit field at byte 2 of a fragment header.
const fragmentOffset = 0xfff8

// extensionSet returns the set that an extension header belongs to, 0 for a protocol that is not one.
func extensionSet(p Protocol) Extensions {
	switch p {
	case HopByHop, Routing, DestinationOptions:
		return Options
	case Fragment:
		return Fragments
	case AH:
		return Auth
	default:
		return 0
	}
}

// extensionLen returns the length of an extension header of the set kind, in bytes.
func extensionLen(kind Extensions, header []byte) int {
	switch kind {
	case Fragments:
		return minExtensionLen
	case Auth:
		return (int(header[1]) + 2) * 4
	default:
		return (int(header[1]) + 1) * 8
	}
}
