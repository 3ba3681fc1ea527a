// Package flows estimates which flows pass a node from a sample of the frames.
//
// A Sampler takes one frame of N at random and counts it N times in a Table, which holds the largest flows and the
// traffic of each peer. N is small while there is little traffic, so that small flows are seen, and grows with it, so that the cost
// is bounded. See docs/adr/0042-flows-by-sampling.md.
package flows

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
	"weft/internal/peer"
)

// Path is what carries a frame between this node and a peer. The zero Path is invalid.
type Path uint8

// Paths of frames.
const (
	Userspace Path = iota + 1
	Kernel

	numPaths
)

// Key identifies a flow: frames in one direction, with the same addresses, protocol and ports.
type Key struct {
	Peer peer.ID // the other end; zero if it is unknown, or all peers
	Path Path
	Sent bool // to the peer; otherwise it came from there

	EtherType           uint16                               // behind VLAN tags
	Source, Destination netip.Addr                           // invalid in frames that are not IP
	Protocol            packet.Protocol                      // of IP
	Ports               struct{ Source, Destination uint16 } // 0 where the protocol has none, and in later fragments
}

// maxTags is how many VLAN tags parse walks over.
const maxTags = 2

// Lengths and offsets in bytes of transport headers.
const (
	portsLen  = 4  // of the ports at the beginning of a header of TCP, UDP or SCTP
	udpLen    = 8  // of a UDP header (RFC 768)
	tcpOffset = 12 // of the data offset, in the upper half of the byte (RFC 9293, section 3.1)
)

// parse fills in the fields of k that a frame has, from the beginning of the frame. Bytes that are missing leave fields empty.
// It returns the length in bytes of all headers, up to that of TCP or UDP.
func (k *Key) parse(frame []byte) (headers int) {
	l3, etherType, ok := packet.Ethernet(frame, maxTags)
	if k.EtherType = etherType; !ok {
		return len(frame)
	}
	l4 := l3
	switch ip := frame[l3:]; {
	case etherType == ether.TypeIPv4 && len(ip) >= packet.IPv4MinLen:
		k.Source, k.Destination = netip.AddrFrom4([4]byte(ip[packet.IPv4Source:])), netip.AddrFrom4([4]byte(ip[packet.IPv4Destination:]))
		k.Protocol = packet.Protocol(ip[packet.IPv4Protocol])
		l4 += packet.IPv4HeaderLen(ip)
		if later := binary.BigEndian.Uint16(ip[packet.IPv4Fragment:])&packet.IPv4OffsetMask != 0; later || l4 > len(frame) {
			return min(l4, len(frame))
		}
	case etherType == ether.TypeIPv6 && len(ip) >= packet.IPv6Len:
		k.Source, k.Destination = netip.AddrFrom16([16]byte(ip[packet.IPv6Source:])), netip.AddrFrom16([16]byte(ip[packet.IPv6Destination:]))
		protocol, at, r := packet.Transport(ip, packet.AllExtensions)
		k.Protocol, l4 = protocol, l4+at
		if r != packet.Found {
			return l4
		}
	default:
		return l4
	}
	return l4 + k.parseTransport(frame[l4:])
}

// parseTransport reads the ports at the beginning of a transport header, and returns the length of the header.
func (k *Key) parseTransport(l4 []byte) (header int) {
	switch k.Protocol {
	case packet.TCP, packet.UDP, packet.SCTP:
	default:
		return 0
	}
	if len(l4) < portsLen {
		return 0
	}
	k.Ports.Source, k.Ports.Destination = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	if k.Protocol != packet.TCP {
		return udpLen
	}
	if len(l4) <= tcpOffset {
		return 0
	}
	return int(l4[tcpOffset]>>4) * 4
}
