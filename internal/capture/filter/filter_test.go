package filter

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// frames returns the frames of the tests by name.
func frames(t *testing.T) map[string][]byte {
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{6, 0x57, 0, 0, 0, last} }
	ip4 := func(proto layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: proto, SrcIP: net.IP{10, 32, 0, 1}, DstIP: net.IP{10, 33, 0, 2}}
	}
	ip6 := &layers.IPv6{
		Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2"),
	}
	eth := func(kind layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: mac(1), DstMAC: mac(2), EthernetType: kind}
	}
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	build := func(parts ...gopacket.SerializableLayer) []byte {
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, parts...); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	later := ip4(layers.IPProtocolTCP)
	later.FragOffset = 100
	return map[string][]byte{
		"tcp":  build(eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 40000, DstPort: 80}),
		"udp":  build(eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 53, DstPort: 40000}),
		"ping": build(eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{}),
		"udp6": build(eth(layers.EthernetTypeIPv6), ip6, &layers.UDP{SrcPort: 1000, DstPort: 53}),
		"tagged": build(eth(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4},
			ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 80}),
		"later": build(eth(layers.EthernetTypeIPv4), later, gopacket.Payload{0, 80, 0, 80}),
		"arp": build(&layers.Ethernet{SrcMAC: mac(1), DstMAC: all, EthernetType: layers.EthernetTypeARP}, &layers.ARP{
			AddrType: 1, Protocol: 0x0800, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
			SourceHwAddress: mac(1), SourceProtAddress: []byte{10, 32, 0, 1}, DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 32, 0, 9},
		}),
	}
}

func TestMatch(t *testing.T) {
	all := frames(t)
	for _, c := range []struct{ expression, matches string }{
		{"", "arp later ping tagged tcp udp udp6"},
		{"tcp", "later tagged tcp"},
		{"tcp port 80", "tagged tcp"},
		{"tcp dst port 80", "tcp"},
		{"port 53", "udp udp6"},
		{"udp and port 53 and not ip6", "udp"},
		{"(tcp or icmp) and !vlan", "later ping tcp"},
		{"portrange 50-60", "udp udp6"},
		{"host 10.32.0.9", "arp"},
		{"10.33.0.0/16", "later ping tagged tcp udp"},
		{"dst net 10.32.0.0/16", "arp"},
		{"ip6 host fd00::2", "udp6"},
		{"src host fd00::2", ""},
		{"arp || icmp", "arp ping"},
		{"not arp icmp", "ping"},
		{"ether host 06:57:00:00:00:02", "later ping tagged tcp udp udp6"},
		{"ether src 06:57:00:00:00:02", ""},
		{"ether proto 0x0806", "arp"},
		{"broadcast", "arp"},
		{"multicast", "arp"},
		{"vlan 7", "tagged"},
		{"vlan 8", ""},
		{"vlan and tcp", "tagged"},
		{"greater 61", "udp6"},
		{"less 60 and not arp", "later ping tagged tcp udp"},
		// As in pcap-filter(7): from left to right, and a value without qualifiers inherits them.
		{"tcp or udp and port 53", "udp udp6"},
		{"port 53 and udp or tcp", "later tagged tcp udp udp6"},
		{"tcp or (udp and port 53)", "later tagged tcp udp udp6"},
		{"not tcp and ip", "ping udp"},
		{"src 10.33.0.2 or 10.32.0.1", "arp later ping tagged tcp udp"},
		{"dst 10.32.0.9 or 10.32.0.1", "arp"},
		{"ip src host 10.33.0.2 or 10.32.0.1", "later ping tagged tcp udp"},
		{"dst net 10.32.0.8/30 or (10.32.0.1)", "arp"},
		{"tcp dst port 443 or 80", "tcp"},
		{"portrange 1-2 or 50-60", "udp udp6"},
		{"tcp port 80 and 10.33.0.2", "tagged tcp"},
	} {
		f, err := Parse(c.expression)
		if err != nil {
			t.Errorf("%q: %v", c.expression, err)
			continue
		}
		var matches []string
		for _, name := range []string{"arp", "later", "ping", "tagged", "tcp", "udp", "udp6"} {
			if f.Match(all[name], len(all[name])) {
				matches = append(matches, name)
			}
		}
		if got := strings.Join(matches, " "); got != c.matches {
			t.Errorf("%q matches %q, want %q", c.expression, got, c.matches)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for expression, want := range map[string]string{
		"host":                     "ends where an IP address should be",
		"port 99999":               `"99999" (word 2) stands where a number up to 65535`,
		"tcp port":                 "ends where a number",
		"tcp or and udp":           `"and" (word 3)`,
		"port 80 or foo":           `"foo" (word 4)`,
		"80":                       `"80" (word 1)`,
		"host 10.0.0.1 or 80":      `"80" (word 4)`,
		"garbage foo":              `"garbage" (word 1)`,
		"tcp and":                  "ends where a condition",
		"and and":                  `"and" (word 1)`,
		"(tcp":                     "ends where )",
		"tcp)":                     `")" (word 2) stands where and, or, or the end`,
		"portrange 9-1":            `"9-1"`,
		"ether host 1.2.3.4":       "a hardware address",
		"host 10.0.0.0/40":         `"10.0.0.0/40"`,
		"less x":                   `"x"`,
		strings.Repeat("!", 1<<13): "longer than",
	} {
		if _, err := Parse(expression); !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q in it", expression, err, want)
		}
	}
}

// TestExtensionHeaders: the filter finds a transport header after IPv6 extension headers, and never one that is not there.
func TestExtensionHeaders(t *testing.T) {
	const padded = "\x00\x01\x04\x00\x00\x00\x00"                                                  // the rest of an options header of 8 bytes
	const auth = "\x04\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02abcdefghijkl"                        // the rest of an AH of 24 bytes (RFC 4302)
	const tcp = "\x9c\x40\x00\x50\x00\x00\x00\x00\x00\x00\x00\x00\x50\x02\x00\x00\x00\x00\x00\x00" // from port 40000 to 80
	for _, c := range []struct {
		name, next, rest string
		tcp, ports       bool
	}{
		{"destination options", "\x3c", "\x06" + padded + tcp, true, true},
		{"AH", "\x33", "\x06" + auth + tcp, true, true},
		{"hop-by-hop, destination options, AH", "\x00", "\x3c" + padded + "\x33" + padded + "\x06" + auth + tcp, true, true},
		{"first fragment behind AH", "\x33", "\x2c" + auth + "\x06\x00\x00\x01abcd" + tcp, true, true},
		{"later fragment", "\x2c", "\x06\x00\x00\x08abcd" + tcp, true, false},
		{"later fragment of destination options", "\x2c", "\x3c\x00\x00\x08abcd" + "\x06" + padded + tcp, false, false},
		{"AH cut short", "\x33", "\x06" + auth[:15], false, false},
		{"ESP", "\x32", "\x06" + padded + tcp, false, false},
	} {
		address := string(net.ParseIP("fd00::1").To16())
		frame := []byte("\x0a\x00\x00\x00\x00\x02\x0a\x00\x00\x00\x00\x01\x86\xdd\x60\x00\x00\x00\x00" +
			string(rune(len(c.rest))) + c.next + "\x40" + address + address + c.rest)
		for expression, want := range map[string]bool{"tcp": c.tcp, "tcp dst port 80": c.ports, "src port 40000": c.ports, "udp": false} {
			f, err := Parse(expression)
			if err != nil {
				t.Fatal(err)
			}
			if f.Match(frame, len(frame)) != want {
				t.Errorf("%s: %q matches: %v", c.name, expression, !want)
			}
		}
	}
}

// TestMatchLength: the filter sees the first segment of a superframe; less and greater are about the length of all of it.
func TestMatchLength(t *testing.T) {
	for expression, matches := range map[string]bool{
		"greater 3000": true, "less 100": false, "tcp and greater 4000": true, "greater 4001": false,
	} {
		f, err := Parse(expression)
		if err != nil {
			t.Fatal(err)
		}
		if f.Match(frames(t)["tcp"], 4000) != matches {
			t.Errorf("%q matches a frame of 4000 bytes: %v", expression, !matches)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	f, err := Parse("(tcp port 80 or net 10.32.0.0/12) and not host fd00::1")
	if err != nil {
		t.Fatal(err)
	}
	frame := frames(t)["tcp"]
	if n := testing.AllocsPerRun(100, func() { f.Match(frame, len(frame)) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tcp port 80", []byte{})
	f.Add("not (host 10.0.0.1 or vlan 3)", make([]byte, 60))
	f.Fuzz(func(_ *testing.T, expression string, frame []byte) {
		if parsed, err := Parse(expression); err == nil {
			parsed.Match(frame, len(frame))
		}
	})
}
