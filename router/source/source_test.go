package source_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/router/source"
)

var (
	macA, macB = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ip4A, ip4B = netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("10.32.0.2")
	ip6A, ip6B = netip.MustParseAddr("fd32::1"), netip.MustParseAddr("fd32::2")
)

func serialize(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, parts...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ethernet(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: kind}
}

func tag(vlan uint16, kind layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: vlan, Type: kind}
}

func arp(sender netip.Addr) *layers.ARP {
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: macA, SourceProtAddress: sender.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: ip4B.AsSlice(),
	}
}

func frames(t testing.TB) map[string]struct {
	frame []byte
	want  netip.Addr
} {
	t.Helper()
	v4 := &layers.IPv4{Version: 4, SrcIP: ip4A.AsSlice(), DstIP: ip4B.AsSlice(), Protocol: layers.IPProtocolUDP}
	v6 := &layers.IPv6{Version: 6, SrcIP: ip6A.AsSlice(), DstIP: ip6B.AsSlice(), NextHeader: layers.IPProtocolUDP}
	nd := &layers.IPv6{Version: 6, SrcIP: ip6A.AsSlice(), DstIP: ip6B.AsSlice(), NextHeader: layers.IPProtocolICMPv6, HopLimit: 255}
	advert := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	na := serialize(t, ethernet(layers.EthernetTypeIPv6), nd, advert, &layers.ICMPv6NeighborAdvertisement{TargetAddress: ip6B.AsSlice()})
	nested := serialize(t, ethernet(layers.EthernetTypeQinQ), tag(0, layers.EthernetTypeDot1Q), tag(0, layers.EthernetTypeARP), arp(ip4A))
	none := &layers.IPv6{Version: 6, SrcIP: net.IPv6unspecified, DstIP: ip6B.AsSlice(), NextHeader: layers.IPProtocolUDP}
	whole := serialize(t, ethernet(layers.EthernetTypeIPv4), v4)
	return map[string]struct {
		frame []byte
		want  netip.Addr
	}{
		"IPv4":        {whole, ip4A},
		"IPv6":        {serialize(t, ethernet(layers.EthernetTypeIPv6), v6), ip6A},
		"IPv6 of ::":  {serialize(t, ethernet(layers.EthernetTypeIPv6), none), netip.Addr{}},
		"ARP":         {serialize(t, ethernet(layers.EthernetTypeARP), arp(ip4A)), ip4A},
		"ARP probe":   {serialize(t, ethernet(layers.EthernetTypeARP), arp(netip.IPv4Unspecified())), netip.Addr{}},
		"advertised":  {na, ip6B},
		"VLAN 0":      {serialize(t, ethernet(layers.EthernetTypeDot1Q), tag(0, layers.EthernetTypeIPv4), v4), ip4A},
		"VLAN 5":      {serialize(t, ethernet(layers.EthernetTypeDot1Q), tag(5, layers.EthernetTypeIPv4), v4), netip.Addr{}},
		"VLAN 0 in 0": {nested, ip4A},
		"cut short":   {whole[:30], netip.Addr{}},
		"runt":        {whole[:10], netip.Addr{}},
		"of no IP":    {serialize(t, ethernet(0x88cc), gopacket.Payload(make([]byte, 60))), netip.Addr{}},
	}
}

func TestOf(t *testing.T) {
	for name, tt := range frames(t) {
		if got := source.Of(tt.frame).Addr(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func FuzzOf(f *testing.F) {
	for _, tt := range frames(f) {
		f.Add(tt.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if a := source.Of(frame).Addr(); a.IsValid() && a.IsUnspecified() {
			t.Errorf("an unspecified address of %x", frame)
		}
	})
}
