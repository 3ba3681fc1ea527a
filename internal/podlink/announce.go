package podlink

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
)

// allNodes is the IPv6 multicast address of all nodes on the link, with its MAC (RFC 2464 section 7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = ether.Addr{0x33, 0x33, 0, 0, 0, 1}
)

// minFrame is the length of the shortest Ethernet frame without its checksum.
const minFrame = 60

// Announcement returns the frame that announces that ip is at mac: an ARP announcement (RFC 5227 section 2.3: a request for
// the sender's own address) or an unsolicited neighbor advertisement (RFC 4861 section 7.2.6). Bridges and routers learn the
// place of the pod from it, and neighbors replace the previous MAC of the address.
//
// The frames are encoded by hand: initializing the usual library takes longer than the rest of an ADD (BenchmarkAdd of
// package cni).
func Announcement(mac ether.Addr, ip netip.Addr) []byte {
	if ip.Is4() {
		return arpAnnouncement(mac, ip)
	}
	return neighborAdvertisement(mac, ip)
}

// arpAnnouncement returns
//
//	broadcast | mac | 0806 | Ethernet 1, IPv4 0800, lengths 6 and 4 | request 1 | mac | ip | 0 | ip | padding
func arpAnnouncement(mac ether.Addr, ip netip.Addr) []byte {
	f := make([]byte, 0, minFrame)
	f = append(f, ether.Broadcast[:]...)
	f = append(f, mac[:]...)
	f = append(f, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1)
	f = append(f, mac[:]...)
	f = append(f, ip.AsSlice()...)
	f = append(f, make([]byte, len(mac))...)
	f = append(f, ip.AsSlice()...)
	return f[:minFrame]
}

// neighborAdvertisement returns
//
//	all nodes | mac | 86dd | IPv6 header | type 136, code 0, checksum, flags, target ip | option 2: mac
func neighborAdvertisement(mac ether.Addr, ip netip.Addr) []byte {
	const (
		icmpv6   = 58
		length   = 32         // of the message: 24 bytes and one option
		override = 0x20000000 // replaces entries of neighbor caches
		hopLimit = 255        // receivers drop other values: they come from another link
	)
	message := make([]byte, 0, length)
	message = append(message, 136, 0, 0, 0)
	message = binary.BigEndian.AppendUint32(message, override)
	message = append(message, ip.AsSlice()...)
	message = append(message, 2, 1)
	message = append(message, mac[:]...)
	// The checksum covers a pseudo header (RFC 8200 section 8.1): source, destination, length and protocol.
	sum := checksum(checksum(checksum(icmpv6+length, ip.AsSlice()), allNodes.AsSlice()), message)
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))

	f := append([]byte{}, allNodesMAC[:]...)
	f = append(f, mac[:]...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, length, icmpv6, hopLimit)
	f = append(f, ip.AsSlice()...)
	f = append(f, allNodes.AsSlice()...)
	return append(f, message...)
}

// checksum adds the 16-bit words of b, an even number of bytes, to a sum in one's complement (RFC 1071).
func checksum(sum uint32, b []byte) uint32 {
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
		sum = sum&0xffff + sum>>16
	}
	return sum
}
