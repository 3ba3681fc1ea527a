package neighbor

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/internal/peer"
)

var (
	macA, macB = ether.Addr{0x0a, 0, 0, 0, 0, 1}, ether.Addr{0x0a, 0, 0, 0, 0, 2}
	ip4A, ip4B = netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("10.32.0.2")
	ip6A, ip6B = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

func serialize(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hw(a ether.Addr) net.HardwareAddr { return net.HardwareAddr(a[:]) }

func arp(t testing.TB, op uint16, dst ether.Addr, sender, target netip.Addr) []byte {
	t.Helper()
	return serialize(t,
		&layers.Ethernet{SrcMAC: hw(macA), DstMAC: hw(dst), EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: hw(macA), SourceProtAddress: sender.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
		})
}

func solicit(t testing.TB, source, target netip.Addr, hops uint8) []byte {
	t.Helper()
	ip := &layers.IPv6{
		Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: hops, SrcIP: source.AsSlice(), DstIP: net.ParseIP("ff02::1:ff00:2"),
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	ns := &layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice()}
	if !source.IsUnspecified() {
		ns.Options = layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: macA[:]}}
	}
	ethernet := &layers.Ethernet{SrcMAC: hw(macA), DstMAC: net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv6}
	return serialize(t, ethernet, ip, icmp, ns)
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Message
		ok    bool
	}{
		{"request", arp(t, 1, ether.Broadcast, ip4A, ip4B), Message{Request, ip4B, ip4A, macA}, true},
		{"probe", arp(t, 1, ether.Broadcast, netip.IPv4Unspecified(), ip4B), Message{Probe, ip4B, netip.Addr{}, macA}, true},
		{"gratuitous", arp(t, 1, ether.Broadcast, ip4A, ip4A), Message{Announce, ip4A, ip4A, macA}, true},
		{"reply", arp(t, 2, macB, ip4A, ip4B), Message{Reply, ip4A, ip4A, macA}, true},
		{"reply to all", arp(t, 2, ether.Broadcast, ip4A, ip4B), Message{Announce, ip4A, ip4A, macA}, true},
		{"another operation", arp(t, 3, ether.Broadcast, ip4A, ip4B), Message{}, false},
		{"cut short", arp(t, 1, ether.Broadcast, ip4A, ip4B)[:40], Message{}, false},
		{"solicitation", solicit(t, ip6A, ip6B, 255), Message{Request, ip6B, ip6A, macA}, true},
		{"conflict detection", solicit(t, netip.IPv6Unspecified(), ip6B, 255), Message{Probe, ip6B, netip.Addr{}, ether.Addr{}}, true},
		{"solicitation from another link", solicit(t, ip6A, ip6B, 254), Message{}, false},
	} {
		if got, ok := Parse(tt.frame); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
		if tt.ok && !MayBe(tt.frame) {
			t.Errorf("%s may be none", tt.name)
		}
	}
}

// TestAnswer: the answer goes to the sender of the request, has the requested address, and gopacket can decode it.
func TestAnswer(t *testing.T) {
	for _, frame := range [][]byte{arp(t, 1, ether.Broadcast, ip4A, ip4B), solicit(t, ip6A, ip6B, 255)} {
		m, _ := Parse(frame)
		b := Answer(m, macB)
		if got, ok := Parse(b); !ok || got != (Message{Reply, m.Target, m.Target, macB}) || ether.Destination(b) != macA {
			t.Errorf("%+v, %v to %s", got, ok, ether.Destination(b))
		}
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		if p.ErrorLayer() != nil {
			t.Error(p.ErrorLayer().Error())
		}
		icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if !ok {
			continue
		}
		sum := icmp.Checksum
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		again := serialize(t, icmp, gopacket.Payload(icmp.Payload))
		if want := uint16(again[2])<<8 | uint16(again[3]); sum != want {
			t.Errorf("checksum %04x, want %04x", sum, want)
		}
	}
}

func TestTable(t *testing.T) {
	var table Table
	now := time.Unix(1000, 0)
	id := peer.ID{1}
	table.Learn(Message{Announce, ip4A, ip4A, macA}, id, now)
	if mac, at, ok := table.Lookup(ip4A, now.Add(maxAge-1)); !ok || mac != macA || at != id {
		t.Error("not known")
	}
	if _, _, ok := table.Lookup(ip4A, now.Add(maxAge)); ok {
		t.Error("known for too long")
	}
	table.ForgetPeer(id)
	if _, _, ok := table.Lookup(ip4A, now); ok {
		t.Error("known of a peer that has left")
	}
	for i := range 3 * maxBindings {
		table.Learn(Message{Announce, ip4A, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), macA}, id, now)
	}
	if n := len(table.bindings); n > maxBindings {
		t.Errorf("%d bindings", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(arp(f, 1, ether.Broadcast, ip4A, ip4B))
	f.Add(solicit(f, ip6A, ip6B, 255))
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, ok := Parse(frame)
		if ok && !MayBe(frame) {
			t.Error("a message that may be none")
		}
		if ok && m.Kind == Request {
			if back, ok := Parse(Answer(m, macB)); !ok || back.Sender != m.Target {
				t.Errorf("the answer to %+v is %+v, %v", m, back, ok)
			}
		}
	})
}
