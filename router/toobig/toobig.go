// Package toobig deals with frames whose packet is longer than the next hop takes: it tells the sender so (RFC 1191,
// RFC 8201), or cuts the packet where its sender has left that to the network (RFC 791).
//
// The overlay is a network of one link, on which nobody is expected to say so: the messages come from the packet's own
// destination, which is the one address that the sender certainly hears. For the same reason nothing is said about
// packets to a group, though RFC 4443 would allow it.
//
// All mtus here are the bytes that a frame may have behind an untagged Ethernet header: VLAN tags count, 4 bytes each, and
// hosts are told what is left beside those that the frame has. Everything is pure, and safe for concurrent use but for
// Limiter. Packages that carry frames call it for the few that are too long only.
package toobig

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Kind says what is to be done about a frame that is too long. The zero Kind is invalid.
type Kind uint8

// Kinds.
const (
	Neither        Kind = iota + 1 // nothing but to drop it
	NeedsReply                     // Reply tells the sender
	NeedsFragments                 // Fragment cuts it
)

// Errors of Fragment.
var (
	ErrMalformed = errors.New("toobig: not a sound IPv4 packet")
	ErrForbidden = errors.New("toobig: the packet must not be fragmented")
	ErrMTU       = errors.New("toobig: no IPv4 link has so small an MTU")
)

const (
	maxTags = 2

	minIPv4 = 68   // every link carries that much whole (RFC 791, section 3.2)
	minIPv6 = 1280 // every link carries that much (RFC 8200, section 5)
)

// Classify returns what is to be done about frame, whose packet does not fit mtu. The frame may be a superframe, or its
// headers and the payload of a segment. A superframe that needs fragments must be cut into its segments before these
// are fragmented.
func Classify(frame []byte, mtu int) Kind {
	p, ok := parse(frame)
	switch {
	case !ok:
		return Neither
	case p.version == 4 && !p.dontFragment():
		return NeedsFragments
	case p.mayReply(mtu):
		return NeedsReply
	default:
		return Neither
	}
}

// Source returns the address of the host that a reply to frame goes to, the zero Addr where it has no IP packet.
func Source(frame []byte) netip.Addr {
	p, ok := parse(frame)
	if !ok {
		return netip.Addr{}
	}
	src, _ := p.addresses()
	return src
}

// ipFrame is a frame that holds an IP packet with a whole IP header.
type ipFrame struct {
	link    []byte // Ethernet header with tags
	ip      []byte // from the IP header to the end of the frame, padding included
	version int
	header  int // length of the IP header, IPv4 options included
}

// parse finds the IP packet in frame.
func parse(frame []byte) (p ipFrame, ok bool) {
	l3, etherType, ok := packet.Ethernet(frame, maxTags)
	if !ok {
		return ipFrame{}, false
	}
	p.link, p.ip = frame[:l3], frame[l3:]
	switch etherType {
	case ether.TypeIPv4:
		return p, p.parseIPv4()
	case ether.TypeIPv6:
		p.version, p.header = 6, packet.IPv6Len
		return p, len(p.ip) >= packet.IPv6Len && p.ip[0]>>4 == 6
	default:
		return ipFrame{}, false
	}
}

func (p *ipFrame) parseIPv4() bool {
	if len(p.ip) < packet.IPv4MinLen || p.ip[0]>>4 != 4 {
		return false
	}
	p.version, p.header = 4, packet.IPv4HeaderLen(p.ip)
	return p.header >= packet.IPv4MinLen && len(p.ip) >= p.header
}

// room returns how long the packet may be where a frame may have mtu bytes.
func (p *ipFrame) room(mtu int) int { return mtu - (len(p.link) - ether.HeaderLen) }

// addresses returns source and destination.
func (p *ipFrame) addresses() (src, dst netip.Addr) {
	if p.version == 4 {
		return netip.AddrFrom4([4]byte(p.ip[packet.IPv4Source:])), netip.AddrFrom4([4]byte(p.ip[packet.IPv4Destination:]))
	}
	return netip.AddrFrom16([16]byte(p.ip[packet.IPv6Source:])), netip.AddrFrom16([16]byte(p.ip[packet.IPv6Destination:]))
}

// fragmentField returns flags and offset of an IPv4 packet.
func (p *ipFrame) fragmentField() uint16 { return binary.BigEndian.Uint16(p.ip[packet.IPv4Fragment:]) }

func (p *ipFrame) dontFragment() bool { return p.fragmentField()&packet.IPv4DontFragment != 0 }
