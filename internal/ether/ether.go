// Package ether has the parts of Ethernet that all layers of weft share: addresses and the 14-byte header.
package ether

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// HeaderLen is the length of an untagged Ethernet II header: destination, source, EtherType.
const HeaderLen = 14

// EtherTypes that weft handles (IEEE 802 numbers).
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100 // 802.1Q tag
	TypeIPv6 = 0x86dd
	TypeQinQ = 0x88a8 // 802.1ad service tag, the outer one of two
)

// ErrBadAddr is wrapped by the error that ParseAddr returns.
var ErrBadAddr = errors.New("ether: not a MAC address of 6 bytes")

// Addr is a 48-bit MAC address.
type Addr [6]byte

// Broadcast is ff:ff:ff:ff:ff:ff.
var Broadcast = Addr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Prefixes of the MAC addresses that FromIP makes: locally administered, unicast.
const (
	prefixIPv4 = 0x0a57 // then the 4 bytes of the address
	prefixIPv6 = 0x0e57 // then 4 bytes of its SHA-256
)

// ParseAddr reads six bytes in hexadecimal, with colons or dashes between them.
func ParseAddr(s string) (Addr, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(Addr{}) {
		return Addr{}, fmt.Errorf("%w: %q", ErrBadAddr, s)
	}
	return Addr(hw), nil
}

// FromIP returns the MAC address for an interface with the overlay address ip. It is the same on every node, so that
// neighbor caches stay correct when another pod gets the address.
func FromIP(ip netip.Addr) Addr {
	var a Addr
	ip = ip.Unmap()
	if ip.Is4() {
		binary.BigEndian.PutUint16(a[:2], prefixIPv4)
		b := ip.As4()
		copy(a[2:], b[:])
		return a
	}
	binary.BigEndian.PutUint16(a[:2], prefixIPv6)
	b := ip.As16()
	sum := sha256.Sum256(b[:])
	copy(a[2:], sum[:4])
	return a
}

// LinkLocal returns the IPv6 link-local address that an interface with the address a makes for itself: the prefix fe80::/64 and the
// modified EUI-64 of a (RFC 4291, appendix A).
func (a Addr) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: a[0] ^ 2, 9: a[1], 10: a[2], 11: 0xff, 12: 0xfe, 13: a[3], 14: a[4], 15: a[5]})
}

// Destination returns the destination address of frame, which must hold HeaderLen bytes.
func Destination(frame []byte) Addr { return Addr(frame[0:6]) }

// Source returns the source address of frame, which must hold HeaderLen bytes.
func Source(frame []byte) Addr { return Addr(frame[6:12]) }

// Type returns the EtherType of frame, which must hold HeaderLen bytes: that of the tag in a frame with a VLAN tag.
func Type(frame []byte) uint16 { return binary.BigEndian.Uint16(frame[12:14]) }

// IsMulticast reports whether a is a group address, including the broadcast address.
func (a Addr) IsMulticast() bool { return a[0]&1 == 1 }

// IsZero reports whether a is 00:00:00:00:00:00, which no interface has.
func (a Addr) IsZero() bool { return a == Addr{} }

// IsLinkLocal reports whether a is one of the 16 addresses that bridges must not forward
// (01:80:c2:00:00:00 to :0f, IEEE 802.1D table 7-10): spanning tree, pause frames, LACP, LLDP.
func (a Addr) IsLinkLocal() bool {
	return a[0] == 0x01 && a[1] == 0x80 && a[2] == 0xc2 && a[3] == 0 && a[4] == 0 && a[5]&0xf0 == 0
}

// Uint64 returns a as a number, the first byte highest.
func (a Addr) Uint64() uint64 {
	return uint64(binary.BigEndian.Uint16(a[:2]))<<32 | uint64(binary.BigEndian.Uint32(a[2:]))
}

// String returns a in lower case with colons.
func (a Addr) String() string {
	var b [17]byte
	for i, v := range a {
		hex.Encode(b[3*i:], []byte{v})
		if i < 5 {
			b[3*i+2] = ':'
		}
	}
	return string(b[:])
}

// MarshalText implements encoding.TextMarshaler in the format of String.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseAddr.
func (a *Addr) UnmarshalText(text []byte) error {
	parsed, err := ParseAddr(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
