// Package source reads the IP addresses that the sender of a frame claims to have. It is pure and does not allocate.
package source

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Offsets and values on the wire: an ARP packet for Ethernet and IPv4 (RFC 826), and a neighbor advertisement (RFC 4861, section
// 4.4).
const (
	arpLen     = 28
	arpSender  = 14
	advertLen  = 24
	advertAt   = 8 // of the target
	typeAdvert = 136
	tagLen     = 4
	maxTags    = 2
)

// Key is an IP address in a form that is cheap to compare: an IPv4 address as ::ffff:a.b.c.d. The zero Key is no address.
type Key struct{ hi, lo uint64 }

// Addr returns the address; not valid for the zero Key.
func (k Key) Addr() netip.Addr {
	if k == (Key{}) {
		return netip.Addr{}
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.AddrFrom16(b).Unmap()
}

// Hash returns a number in which addresses of a range differ: their last bytes.
func (k Key) Hash() uint32 {
	n := uint32(k.lo)
	return n ^ n>>8 ^ n>>16
}

const mapped = 0xffff << 32 // in lo: the prefix of IPv4 addresses

// Of returns the address that a frame with an Ethernet header claims for its sender: the source of an IPv4 or IPv6 packet, the
// sender of an ARP packet, the target of a neighbor advertisement. It is zero if the frame claims none: it is of another protocol,
// malformed, or tagged with a VLAN, where other addresses apply than on the overlay. A tag of VLAN 0 counts as none.
func Of(frame []byte) Key {
	if len(frame) < ether.HeaderLen {
		return Key{}
	}
	kind, b := ether.Type(frame), frame[ether.HeaderLen:]
	for range maxTags {
		if kind != ether.TypeVLAN && kind != ether.TypeQinQ {
			break
		}
		if len(b) < tagLen || b[0]&0x0f != 0 || b[1] != 0 {
			return Key{}
		}
		kind, b = binary.BigEndian.Uint16(b[2:]), b[tagLen:]
	}
	switch {
	case kind == ether.TypeIPv4 && len(b) >= packet.IPv4MinLen:
		return key4(b[packet.IPv4Source:])
	case kind == ether.TypeIPv6 && len(b) >= packet.IPv6Len:
		if isAdvertisement(b) {
			return key6(b[packet.IPv6Len+advertAt:])
		}
		return key6(b[packet.IPv6Source:])
	case kind == ether.TypeARP && len(b) >= arpLen:
		return key4(b[arpSender:])
	}
	return Key{}
}

// key4 returns the IPv4 address at the beginning of b; zero for 0.0.0.0, which means none yet.
func key4(b []byte) Key {
	if n := binary.BigEndian.Uint32(b); n != 0 {
		return Key{lo: mapped | uint64(n)}
	}
	return Key{}
}

// key6 returns the IPv6 address at the beginning of b; zero for :: and for ::ffff:0.0.0.0, which mean none.
func key6(b []byte) Key {
	k := Key{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	if k == (Key{lo: mapped}) {
		return Key{}
	}
	return k
}

// isAdvertisement reports whether an IPv6 packet is a neighbor advertisement.
func isAdvertisement(ip []byte) bool {
	icmp := ip[packet.IPv6Len:]
	return packet.Protocol(ip[packet.IPv6Next]) == packet.ICMPv6 && len(icmp) >= advertLen && icmp[0] == typeAdvert
}
