package toobig

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
)

// decode decodes frame, which must be valid to its end, and checks its addresses, tags and IPv4 header.
func decode(t *testing.T, frame []byte, tags ...uint16) gopacket.Packet {
	t.Helper()
	got := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if fail := got.ErrorLayer(); fail != nil {
		t.Fatalf("%v\n%x", fail.Error(), frame)
	}
	if ether.Source(frame) != macB || ether.Destination(frame) != macA {
		t.Errorf("from %s to %s", ether.Source(frame), ether.Destination(frame))
	}
	var gotTags []uint16
	for _, l := range got.Layers() {
		if tag, ok := l.(*layers.Dot1Q); ok {
			gotTags = append(gotTags, tag.VLANIdentifier)
		}
	}
	if len(gotTags) != len(tags) || len(tags) > 0 && gotTags[0] != tags[0] {
		t.Errorf("tags %v, want %v", gotTags, tags)
	}
	return got
}

func TestReplyIPv4(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
		want  uint16 // in the reply to the host
		tags  []uint16
	}{
		{"udp", udpFrame(t, nil, 1400), 1300, 1300, nil},
		{"tagged", udpFrame(t, nil, 1400, 5), 1300, 1296, []uint16{5}},
		{"tagged twice", udpFrame(t, nil, 1400, 5, 6), 1300, 1292, []uint16{5, 6}},
		{"tiny mtu", udpFrame(t, nil, 1400), 20, 68, nil},
		{"short", udpFrame(t, nil, 10), 30, 68, nil},
		{"options", udpFrame(t, func(ip *layers.IPv4) {
			ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}, 1400), 1300, 1300, nil},
		{"first fragment", udpFrame(t, func(ip *layers.IPv4) { ip.Flags |= layers.IPv4MoreFragments }, 1400), 1300, 1300, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame, ok := Reply(tt.frame, tt.mtu)
			if !ok {
				t.Fatal("no reply")
			}
			got := decode(t, frame, tt.tags...)
			ip := got.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			icmp := got.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			if !ip.SrcIP.Equal(ip4B.AsSlice()) || !ip.DstIP.Equal(ip4A.AsSlice()) || sum(ip.Contents) != 0xffff {
				t.Errorf("%+v", ip)
			}
			if icmp.TypeCode.String() != "DestinationUnreachable(FragmentationNeeded)" || icmp.Seq != tt.want || icmp.Id != 0 {
				t.Errorf("%s, mtu %d, want %d", icmp.TypeCode, icmp.Seq, tt.want)
			}
			if sum(even(ip.Payload)) != 0xffff {
				t.Error("checksum of the message")
			}
			if !bytes.HasPrefix(tt.frame[ether.HeaderLen+4*len(tt.tags):], icmp.Payload) || ip.Length > 576 {
				t.Errorf("quotes %x in %d bytes", icmp.Payload, ip.Length)
			}
		})
	}
}

func TestReplyIPv6(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		mtu   int
		want  uint32
		tags  []uint16
	}{
		{"udp", udp6Frame(t, 1400), 1300, 1300, nil},
		{"tagged", udp6Frame(t, 1400, 5), 1300, 1296, []uint16{5}},
		{"below the least", udp6Frame(t, 1400), 1100, 1280, nil},
		{"echo", serialize(t, append(ethernet(layers.EthernetTypeIPv6), ipv6(layers.IPProtocolICMPv6),
			gopacket.Payload{128, 0, 0, 0}, pattern(1400))...), 1300, 1300, nil},
		{"first fragment", serialize(t, append(ethernet(layers.EthernetTypeIPv6), ipv6(layers.IPProtocolIPv6Fragment),
			gopacket.Payload{17, 0, 0, 1, 0, 0, 0, 9}, pattern(1400))...), 1300, 1300, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame, ok := Reply(tt.frame, tt.mtu)
			if !ok {
				t.Fatal("no reply")
			}
			got := decode(t, frame, tt.tags...)
			ip := got.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
			icmp := got.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
			if !ip.SrcIP.Equal(ip6B.AsSlice()) || !ip.DstIP.Equal(ip6A.AsSlice()) || len(ip.Payload)+40 > 1280 {
				t.Errorf("%+v", ip)
			}
			if icmp.TypeCode.Type() != layers.ICMPv6TypePacketTooBig || icmp.TypeCode.Code() != 0 {
				t.Errorf("%s", icmp.TypeCode)
			}
			if mtu := binary.BigEndian.Uint32(icmp.Payload); mtu != tt.want {
				t.Errorf("mtu %d, want %d", mtu, tt.want)
			}
			pseudo := append(append([]byte(nil), ip.Contents[8:40]...), 0, 0, 0, 0, 0, 0, 0, 58)
			binary.BigEndian.PutUint32(pseudo[32:], uint32(len(ip.Payload)))
			if sum(even(append(pseudo, ip.Payload...))) != 0xffff {
				t.Error("checksum of the message")
			}
			if !bytes.HasPrefix(tt.frame[ether.HeaderLen+4*len(tt.tags):], icmp.Payload[4:]) {
				t.Errorf("quotes %x", icmp.Payload[4:])
			}
		})
	}
}

func even(b []byte) []byte {
	if len(b)%2 == 1 {
		b = append(append([]byte(nil), b...), 0)
	}
	return b
}

// TestReplyToSuperframe: the quoted packet is the first segment, with its sequence number.
func TestReplyToSuperframe(t *testing.T) {
	for _, version := range []int{4, 6} {
		tcp := &layers.TCP{SrcPort: 1000, DstPort: 2000, Seq: 0x12345678, ACK: true, Window: 100}
		var whole []byte
		if version == 4 {
			ip := ipv4(layers.IPProtocolTCP)
			_ = tcp.SetNetworkLayerForChecksum(ip) // it is IP
			whole = serialize(t, append(ethernet(layers.EthernetTypeIPv4), ip, tcp, pattern(60000))...)
		} else {
			ip := ipv6(layers.IPProtocolTCP)
			_ = tcp.SetNetworkLayerForChecksum(ip) // it is IP
			whole = serialize(t, append(ethernet(layers.EthernetTypeIPv6), ip, tcp, pattern(60000))...)
		}
		reply, ok := Reply(whole[:1452], 1300)
		if !ok {
			t.Fatal("no reply")
		}
		p, _ := parse(reply)
		quoted := p.ip[p.header+8:]
		var length int
		var seq uint32
		if version == 4 {
			length, seq = int(binary.BigEndian.Uint16(quoted[2:])), binary.BigEndian.Uint32(quoted[24:])
			if sum(quoted[:20]) != 0xffff {
				t.Error("checksum of the quoted header")
			}
		} else {
			length, seq = int(binary.BigEndian.Uint16(quoted[4:]))+40, binary.BigEndian.Uint32(quoted[44:])
		}
		if length != 1438 || seq != 0x12345678 {
			t.Errorf("IPv%d: quotes a packet of %d bytes, sequence %x", version, length, seq)
		}
	}
}

func TestClassify(t *testing.T) {
	v4 := func(change func(*layers.IPv4)) []byte { return udpFrame(t, change, 1400) }
	icmp := func(kind uint8) []byte {
		return serialize(t, append(ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolICMPv4), gopacket.Payload{kind, 0}, pattern(1400))...)
	}
	v6 := func(proto layers.IPProtocol, start ...byte) []byte {
		return serialize(t, append(ethernet(layers.EthernetTypeIPv6), ipv6(proto), gopacket.Payload(start), pattern(1400))...)
	}
	spoil := func(b []byte, at int, with ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], with)
		return b
	}
	good4, good6 := v4(nil), udp6Frame(t, 1400)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Kind
	}{
		{"ipv4", good4, NeedsReply},
		{"ipv6", good6, NeedsReply},
		{"may be fragmented", v4(func(ip *layers.IPv4) { ip.Flags = 0 }), NeedsFragments},
		{"multicast may be fragmented", v4(func(ip *layers.IPv4) { ip.Flags, ip.DstIP = 0, []byte{224, 0, 1, 1} }), NeedsFragments},
		{"arp", spoil(good4, 12, 0x08, 0x06), Neither},
		{"three tags", spoil(udpFrame(t, nil, 1400, 1, 2), 20, 0x81, 0), Neither},
		{"tag and no more", append(bytes.Clone(good4[:12]), 0x81, 0), Neither},
		{"empty", nil, Neither},
		{"header cut", good4[:33], Neither},
		{"ipv6 header cut", good6[:53], Neither},
		{"version", spoil(good4, 14, 0x65), Neither},
		{"ipv6 version", spoil(good6, 14, 0x40), Neither},
		{"header too short", spoil(good4, 14, 0x44), Neither},
		{"to a group MAC", spoil(good4, 0, 1), Neither},
		{"to the broadcast address", spoil(good4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), Neither},
		{"from a group MAC", spoil(good4, 6, 1), Neither},
		{"from no MAC", spoil(good4, 6, 0, 0, 0, 0, 0, 0), Neither},
		{"to a group", v4(func(ip *layers.IPv4) { ip.DstIP = []byte{224, 0, 1, 1} }), Neither},
		{"to all", v4(func(ip *layers.IPv4) { ip.DstIP = []byte{255, 255, 255, 255} }), Neither},
		{"from the unspecified address", v4(func(ip *layers.IPv4) { ip.SrcIP = []byte{0, 0, 0, 0} }), Neither},
		{"from a group", v4(func(ip *layers.IPv4) { ip.SrcIP = []byte{224, 0, 1, 1} }), Neither},
		{"from loopback", v4(func(ip *layers.IPv4) { ip.SrcIP = []byte{127, 0, 0, 1} }), Neither},
		{"from class E", v4(func(ip *layers.IPv4) { ip.SrcIP = []byte{240, 0, 0, 1} }), Neither},
		{"later fragment", v4(func(ip *layers.IPv4) { ip.FragOffset = 1 }), Neither},
		{"echo", icmp(8), NeedsReply},
		{"echo reply", icmp(0), NeedsReply},
		{"unreachable", icmp(3), Neither},
		{"redirect", icmp(5), Neither},
		{"time exceeded", icmp(11), Neither},
		{"icmp cut", icmp(8)[:34], Neither},
		{"ipv6 to a group", spoil(good6, 38, 0xff), Neither},
		{"ipv6 from the unspecified address", spoil(good6, 22, make([]byte, 16)...), Neither},
		{"icmpv6 echo", v6(58, 128), NeedsReply},
		{"icmpv6 error", v6(58, 2), Neither},
		{"icmpv6 redirect", v6(58, 137), Neither},
		{"icmpv6 error behind options", v6(0, 58, 0, 0, 0, 0, 0, 0, 0, 1), Neither},
		{"icmpv6 echo behind options", v6(60, 58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128), NeedsReply},
		{"icmpv6 echo behind authentication", v6(51, 58, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128), NeedsReply},
		{"udp behind a route", v6(43, 17, 0, 0, 0, 0, 0, 0, 0), NeedsReply},
		{"ipv6 first fragment", v6(44, 17, 0, 0, 1, 0, 0, 0, 1), NeedsReply},
		{"ipv6 later fragment", v6(44, 17, 0, 0, 8, 0, 0, 0, 1), Neither},
		{"options without end", v6(0, 0, 255)[:500], Neither},
		{"icmpv6 cut", v6(58, 128)[:54], Neither},
	} {
		if got := Classify(tt.frame, 1300); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if _, ok := Reply(tt.frame, 1300); ok != (tt.want == NeedsReply) {
			t.Errorf("%s: reply %v", tt.name, ok)
		}
	}
	if got := Classify(udp6Frame(t, 1200), 1100); got != Neither {
		t.Errorf("an IPv6 packet that no host makes shorter: %d", got)
	}
	if Source(good4) != ip4A || Source(good6) != ip6A || Source(nil).IsValid() {
		t.Error("Source")
	}
}

func FuzzReply(f *testing.F) {
	f.Add(udpFrame(f, nil, 1400, 5), 1300)
	f.Add(udp6Frame(f, 1400), 1300)
	extensions := gopacket.Payload{60, 0, 0, 0, 0, 0, 0, 0, 58, 0}
	f.Add(serialize(f, append(ethernet(layers.EthernetTypeIPv6), ipv6(0), extensions, pattern(100))...), 90)
	f.Fuzz(func(t *testing.T, frame []byte, mtu int) {
		before := bytes.Clone(frame)
		kind := Classify(frame, mtu)
		reply, ok := Reply(frame, mtu)
		if !bytes.Equal(frame, before) {
			t.Fatal("the frame was changed")
		}
		if ok != (kind == NeedsReply) {
			t.Fatalf("kind %d, reply %v", kind, ok)
		}
		if !ok {
			return
		}
		if Classify(reply, mtu) != Neither {
			t.Fatalf("a reply would be answered: %x", reply)
		}
		if src := Source(frame); src.IsMulticast() || len(reply) > maxReplyIPv6+ether.HeaderLen+8 {
			t.Fatalf("%d bytes to %s", len(reply), src)
		}
	})
}
