// Package toobig handles frames with packets that are too long for the path: it makes ICMP errors for the sender (RFC
// 1191, RFC 8201), or fragments the packet if its sender allows that (RFC 791).
//
// The overlay is a network of one link, without routers that could send such errors. The errors have the packet's own
// destination as their source, the only address from which the sender certainly accepts them. For the same reason there
// are no errors about packets to a group, although RFC 4443 would allow them.
//
// All MTUs here are the bytes that a frame may have behind an untagged Ethernet header: VLAN tags count, 4 bytes each,
// and the MTU in an error is reduced by the tags of the frame. Everything is pure and, except for Limiter, safe for
// concurrent use. Packages that carry frames call it only for the few frames that are too long.
package toobig

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Kind is the way to handle a frame that is too long. The zero Kind is invalid.
type Kind uint8

// Kinds.
const (
	Neither        Kind = iota + 1 // drop the frame
	NeedsReply                     // send the sender a Reply
	NeedsFragments                 // cut it with Fragment
)

// Errors of Fragment.
var (
	ErrMalformed = errors.New("toobig: not a valid IPv4 packet")
	ErrForbidden = errors.New("toobig: the packet must not be fragmented")
	ErrMTU       = errors.New("toobig: MTU below the minimum of IPv4")
)

const (
	maxTags = 2

	minIPv4 = 68   // every link carries that much whole (RFC 791, section 3.2)
	minIPv6 = 1280 // every link carries that much (RFC 8200, section 5)
)

// Classify returns how to handle frame, which has a packet that does not fit mtu. The frame may be a superframe, or the
// headers of one and the payload of a segment. A superframe that needs fragments must first be cut into its segments.
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

// Source returns the address of the host that a reply to frame goes to, the zero Addr if frame has no IP packet.
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

// room returns the longest packet in a frame of at most mtu bytes.
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
