package toobig

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
)

var (
	macA = ether.Addr{0x0a, 0, 0, 0, 0, 1}
	macB = ether.Addr{0x0a, 0, 0, 0, 0, 2}

	ip4A, ip4B = netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("10.32.0.2")
	ip6A, ip6B = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// serialize builds a frame, with lengths and checksums.
func serialize(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// ethernet returns the header of a frame from A to B, with VLAN tags, the outermost first.
func ethernet(inner layers.EthernetType, tags ...uint16) (parts []gopacket.SerializableLayer) {
	kinds := []layers.EthernetType{inner}
	for i := range tags {
		kind := layers.EthernetTypeDot1Q
		if i == len(tags)-1 && len(tags) > 1 {
			kind = layers.EthernetTypeQinQ
		}
		kinds = append([]layers.EthernetType{kind}, kinds...)
	}
	parts = append(parts, &layers.Ethernet{SrcMAC: macA[:], DstMAC: macB[:], EthernetType: kinds[0]})
	for i, tag := range tags {
		parts = append(parts, &layers.Dot1Q{VLANIdentifier: tag, Type: kinds[i+1]})
	}
	return parts
}

func ipv4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 64, Id: 77, Protocol: proto, Flags: layers.IPv4DontFragment, SrcIP: ip4A.AsSlice(), DstIP: ip4B.AsSlice(),
	}
}

func ipv6(proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: ip6A.AsSlice(), DstIP: ip6B.AsSlice()}
}

// udpFrame returns a frame from A to B with n bytes in a UDP datagram, after change.
func udpFrame(t testing.TB, change func(*layers.IPv4), n int, tags ...uint16) []byte {
	t.Helper()
	ip := ipv4(layers.IPProtocolUDP)
	if change != nil {
		change(ip)
	}
	udp := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	_ = udp.SetNetworkLayerForChecksum(ip) // it is IP
	return serialize(t, append(ethernet(layers.EthernetTypeIPv4, tags...), ip, udp, pattern(n))...)
}

// udp6Frame is udpFrame over IPv6.
func udp6Frame(t testing.TB, n int, tags ...uint16) []byte {
	t.Helper()
	ip, udp := ipv6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 1000, DstPort: 2000}
	_ = udp.SetNetworkLayerForChecksum(ip) // it is IP
	return serialize(t, append(ethernet(layers.EthernetTypeIPv6, tags...), ip, udp, pattern(n))...)
}

// pattern returns n bytes in which all groups of eight differ.
func pattern(n int) gopacket.Payload {
	b := make(gopacket.Payload, n)
	for i := range b {
		b[i] = byte(i/8*31 + i)
	}
	return b
}
