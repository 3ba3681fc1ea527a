// Package guardtest has the frames with which the guard is tested, on rules alone and through whole nodes.
//
// Each frame has a destination of its own, which no station has: bridges flood it, so that every port shows whether it passed.
package guardtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/netdump"
)

// Station is a pod or a bridge. IP6 is invalid where it has none.
type Station struct {
	MAC ether.Addr
	IP4 netip.Addr
	IP6 netip.Addr
}

// Frame is an Ethernet frame with its name in tests, and the reason for which a guard drops it; empty: it passes.
type Frame struct {
	Name   string
	Data   []byte
	Reason guard.Reason
}

// To returns the destination of the frame.
func (f Frame) To() ether.Addr { return ether.Addr(f.Data[:6]) }

// EtherTypes of tags, and of an unassigned protocol (RFC 9542).
const (
	typeTag     = 0x8100
	typeService = 0x88a8
	typeTest    = 0x88b5
)

// frames collects frames and numbers their destinations.
type frames struct {
	first byte
	list  []Frame
}

// add adds a frame with a source and the bytes behind the MACs, which begin with the EtherType.
func (f *frames) add(name string, reason guard.Reason, source ether.Addr, body []byte) {
	to := ether.Addr{0x02, 0xee, 0, f.first, 0, byte(len(f.list))}
	data := append(append(to[:], source[:]...), body...)
	data = append(data, make([]byte, max(0, 60-len(data)))...)
	f.list = append(f.list, Frame{Name: name, Data: data, Reason: reason})
}

// body returns an EtherType with the serialized layers behind it.
func body(kind layers.EthernetType, list ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		panic(err) // the layers are constants of the tests
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(kind)), buf.Bytes()...)
}

// tag puts a VLAN tag before a body.
func tag(kind, vid uint16, b []byte) []byte {
	out := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), vid)
	return append(out, b...)
}

// arp returns an ARP message.
func arp(operation uint16, mac ether.Addr, sender, target netip.Addr) []byte {
	return body(layers.EthernetTypeARP, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: operation,
		SourceHwAddress: mac[:], SourceProtAddress: sender.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
	})
}

// udp returns a UDP datagram of either family.
func udp(from, to netip.Addr, port uint16) []byte {
	datagram := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 9}
	payload := gopacket.Payload("guardtest")
	if from.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		_ = datagram.SetNetworkLayerForChecksum(ip)
		return body(layers.EthernetTypeIPv4, ip, datagram, payload)
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	_ = datagram.SetNetworkLayerForChecksum(ip)
	return body(layers.EthernetTypeIPv6, ip, datagram, payload)
}

// redirect4 returns an ICMP redirect.
func redirect4(from, to netip.Addr) []byte {
	return body(layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: from.AsSlice(), DstIP: to.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeRedirect, 1)}, gopacket.Payload(make([]byte, 28)))
}

// Next headers of IPv6.
const (
	nextFragment    = 44
	nextICMPv6      = 58
	nextDestination = 60
)

// icmp6 returns an ICMPv6 message behind extension headers: each is 8 bytes with its type, the last names ICMPv6.
func icmp6(from, to netip.Addr, extensions []extension, message []byte) []byte {
	var payload []byte
	next := uint8(nextICMPv6)
	for i := len(extensions) - 1; i >= 0; i-- {
		header := append([]byte{next}, extensions[i].bytes[:]...)
		payload = append(header, payload...)
		next = extensions[i].kind
	}
	sum := checksum(from, to, message)
	message = append([]byte(nil), message...)
	binary.BigEndian.PutUint16(message[2:], sum)
	payload = append(payload, message...)
	return body(layers.EthernetTypeIPv6,
		&layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocol(next), SrcIP: from.AsSlice(), DstIP: to.AsSlice()},
		gopacket.Payload(payload))
}

// extension is an extension header of 8 bytes without its first, which names the next header.
type extension struct {
	kind  uint8
	bytes [7]byte
}

// Extension headers: one option of padding, and a fragment with its offset in units of 8 bytes.
var padding = extension{nextDestination, [7]byte{0, 1, 4}}

func fragment(offset uint16, more bool) extension {
	e := extension{kind: nextFragment, bytes: [7]byte{3: 1, 4: 2, 5: 3, 6: 4}}
	bits := offset << 3
	if more {
		bits |= 1
	}
	binary.BigEndian.PutUint16(e.bytes[1:], bits)
	return e
}

// checksum returns the checksum of an ICMPv6 message (RFC 4443, 2.3).
func checksum(from, to netip.Addr, message []byte) uint16 {
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(message)), 0, 0, 0, nextICMPv6)
	var sum uint32
	all := append(pseudo, message...)
	for i := 0; i+1 < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Messages of ICMPv6 without checksum.
const (
	echo      = 128
	solicit   = 135
	advertise = 136
)

// neighbor returns a solicitation or an advertisement for a target, with an option that has a MAC.
func neighbor(kind uint8, target netip.Addr, mac ether.Addr) []byte {
	flags, option := byte(0), byte(1)
	if kind == advertise {
		flags, option = 0x20, 2 // override
	}
	out := append([]byte{kind, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	return append(append(out, option, 1), mac[:]...)
}

// RouterAdvertisement returns one with a prefix of autonomous addresses and a default route of high preference.
func RouterAdvertisement(mac ether.Addr, prefix netip.Prefix) []byte {
	from := mac.LinkLocal()
	return icmp6(from, AllNodes, nil, routerAdvertisement(mac, prefix))
}

func routerAdvertisement(mac ether.Addr, prefix netip.Prefix) []byte {
	out := []byte{134, 0, 0, 0, 64, 0x08, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0} // high preference, 1800 s
	out = append(append(out, 1, 1), mac[:]...)
	out = append(out, 3, 4, byte(prefix.Bits()), 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0)
	return append(out, prefix.Addr().AsSlice()...)
}

// AllNodes is the group of all nodes on the link.
var AllNodes = netip.MustParseAddr("ff02::1")

// Groups of the tests' frames.
var (
	unspecified4 = netip.IPv4Unspecified()
	unspecified6 = netip.IPv6Unspecified()
	foreign4     = netip.MustParseAddr("192.0.2.7")
	foreign6     = netip.MustParseAddr("2001:db8::7")
	bogus        = netip.MustParsePrefix("2001:db8:bad::/64")
)

// Forbidden returns the frames that a bound pod must not send, in the name of another pod or of the gateway.
func Forbidden(own, other Station) []Frame {
	f := &frames{first: 1}
	data := udp(own.IP4, other.IP4, 1000)
	f.add("the MAC of another", guard.ReasonMAC, other.MAC, data)
	f.add("MAC and address of another", guard.ReasonMAC, other.MAC, udp(other.IP4, own.IP4, 1000))
	f.add("an IPv4 address of another", guard.ReasonAddress, own.MAC, udp(other.IP4, own.IP4, 1000))
	f.add("a foreign IPv4 address", guard.ReasonAddress, own.MAC, udp(foreign4, other.IP4, 1000))
	f.add("no IPv4 address", guard.ReasonAddress, own.MAC, udp(unspecified4, other.IP4, 68))
	f.add("ARP reply for another", guard.ReasonARP, own.MAC, arp(2, own.MAC, other.IP4, own.IP4))
	f.add("ARP request as another", guard.ReasonARP, own.MAC, arp(1, own.MAC, other.IP4, own.IP4))
	f.add("gratuitous ARP for another", guard.ReasonARP, own.MAC, arp(1, own.MAC, other.IP4, other.IP4))
	f.add("ARP reply with the MAC of another", guard.ReasonARP, own.MAC, arp(2, other.MAC, own.IP4, other.IP4))
	f.add("ARP in the frame of another", guard.ReasonMAC, other.MAC, arp(2, own.MAC, own.IP4, other.IP4))
	f.add("ARP probe for another", guard.ReasonARP, own.MAC, arp(1, own.MAC, unspecified4, other.IP4))
	f.add("reverse ARP", guard.ReasonARP, own.MAC, arp(4, own.MAC, own.IP4, own.IP4))
	f.add("ICMP redirect", guard.ReasonRedirect, own.MAC, redirect4(own.IP4, other.IP4))
	f.add("answer of a DHCP server", guard.ReasonDHCP, own.MAC, udp(own.IP4, other.IP4, 67))
	for _, vid := range []uint16{0, 5, 0xe000} {
		f.add(fmt.Sprintf("tag %#x", vid), guard.ReasonTag, own.MAC, tag(typeTag, vid, data))
		f.add(fmt.Sprintf("service tag %#x", vid), guard.ReasonTag, own.MAC, tag(typeService, vid, data))
		f.add(fmt.Sprintf("two tags %#x", vid), guard.ReasonTag, own.MAC, tag(typeService, vid, tag(typeTag, 0, data)))
		f.add(fmt.Sprintf("ARP for another behind tag %#x", vid), guard.ReasonTag, own.MAC,
			tag(typeTag, vid, arp(2, own.MAC, other.IP4, own.IP4)))
	}
	f.add("old service tag", guard.ReasonEthertype, own.MAC, tag(0x9100, 0, data))
	f.add("unassigned EtherType", guard.ReasonEthertype, own.MAC, binary.BigEndian.AppendUint16(nil, typeTest))
	f.add("802.3 length", guard.ReasonEthertype, own.MAC, []byte{0, 46, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0})
	if own.IP6.IsValid() {
		f.forbidden6(own, other)
	} else {
		f.noIPv6(own, other)
	}
	return f.list
}

// noIPv6 adds frames of a pod that has no IPv6 address.
func (f *frames) noIPv6(own, other Station) {
	local := own.MAC.LinkLocal()
	f.add("link-local IPv6", guard.ReasonIPv6, own.MAC, udp(local, other.MAC.LinkLocal(), 1000))
	f.add("IPv6", guard.ReasonIPv6, own.MAC, udp(foreign6, other.MAC.LinkLocal(), 1000))
	f.add("duplicate address detection", guard.ReasonIPv6, own.MAC, icmp6(unspecified6, AllNodes, nil, neighbor(solicit, local, own.MAC)))
	f.add("router advertisement", guard.ReasonIPv6, own.MAC, RouterAdvertisement(own.MAC, bogus))
}

// forbidden6 adds the frames of a pod with an IPv6 address.
func (f *frames) forbidden6(own, other Station) {
	local, theirs := own.MAC.LinkLocal(), other.MAC.LinkLocal()
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	add("an IPv6 address of another", guard.ReasonAddress, udp(other.IP6, own.IP6, 1000))
	add("the link-local address of another", guard.ReasonAddress, udp(theirs, own.IP6, 1000))
	add("a foreign IPv6 address", guard.ReasonAddress, udp(foreign6, other.IP6, 1000))
	f.add("IPv6 with the MAC of another", guard.ReasonMAC, other.MAC, udp(own.IP6, other.IP6, 1000))
	add("answer of a DHCPv6 server", guard.ReasonDHCP, udp(local, theirs, 547))
	add("no IPv6 address", guard.ReasonAddress, udp(unspecified6, theirs, 1000))

	advertisement := neighbor(advertise, other.IP6, own.MAC)
	add("neighbor advertisement for another", guard.ReasonND, icmp6(own.IP6, AllNodes, nil, advertisement))
	add("neighbor advertisement for another's link-local address", guard.ReasonND,
		icmp6(local, AllNodes, nil, neighbor(advertise, theirs, own.MAC)))
	add("neighbor advertisement as another", guard.ReasonAddress, icmp6(other.IP6, AllNodes, nil, advertisement))
	add("neighbor solicitation as another", guard.ReasonAddress, icmp6(other.IP6, AllNodes, nil, neighbor(solicit, own.IP6, own.MAC)))
	add("duplicate address detection for another", guard.ReasonND, icmp6(unspecified6, AllNodes, nil, neighbor(solicit, other.IP6, own.MAC)))
	add("neighbor advertisement behind an option", guard.ReasonND, icmp6(own.IP6, AllNodes, []extension{padding}, advertisement))
	add("neighbor advertisement in an only fragment", guard.ReasonND, icmp6(own.IP6, AllNodes, []extension{fragment(0, false)}, advertisement))
	add("neighbor advertisement in a first fragment", guard.ReasonND, icmp6(own.IP6, AllNodes, []extension{fragment(0, true)}, advertisement))
	add("own neighbor advertisement in a fragment", guard.ReasonND,
		icmp6(own.IP6, AllNodes, []extension{fragment(0, false)}, neighbor(advertise, own.IP6, own.MAC)))

	router := routerAdvertisement(own.MAC, bogus)
	add("router advertisement", guard.ReasonAdvertisement, icmp6(local, AllNodes, nil, router))
	add("router advertisement behind options", guard.ReasonAdvertisement, icmp6(local, AllNodes, []extension{padding, padding}, router))
	add("router advertisement in a fragment", guard.ReasonND, icmp6(local, AllNodes, []extension{fragment(0, false)}, router))
	add("router advertisement behind tag 0", guard.ReasonTag, tag(typeTag, 0, icmp6(local, AllNodes, nil, router)))
	first := icmp6(local, AllNodes, []extension{fragment(0, true), padding}, router[:8])
	add("first fragment that ends before its type", guard.ReasonND, shorten(first, 8))
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), foreign6.AsSlice()...)
	add("ICMPv6 redirect", guard.ReasonRedirect, icmp6(local, theirs, nil, redirect))
}

// shorten cuts n bytes from the end of an IPv6 packet behind its EtherType.
func shorten(b []byte, n int) []byte {
	b = b[:len(b)-n]
	binary.BigEndian.PutUint16(b[2+4:], uint16(len(b)-2-40))
	return b
}

// Allowed returns the frames that a bound pod may send.
func Allowed(own, other Station) []Frame {
	f := &frames{first: 2}
	add := func(name string, b []byte) { f.add(name, "", own.MAC, b) }
	add("IPv4", udp(own.IP4, other.IP4, 1000))
	add("IPv4 to a group", udp(own.IP4, netip.MustParseAddr("224.0.0.251"), 5353))
	add("IPv4 broadcast", udp(own.IP4, netip.MustParseAddr("255.255.255.255"), 1000))
	add("request of a DHCP client", udp(own.IP4, other.IP4, 68))
	add("ARP reply", arp(2, own.MAC, own.IP4, other.IP4))
	add("gratuitous ARP", arp(1, own.MAC, own.IP4, own.IP4))
	add("ARP probe", arp(1, own.MAC, unspecified4, own.IP4))
	if !own.IP6.IsValid() {
		return f.list
	}
	local := own.MAC.LinkLocal()
	add("IPv6", udp(own.IP6, other.IP6, 1000))
	add("link-local IPv6", udp(local, other.MAC.LinkLocal(), 1000))
	add("duplicate address detection", icmp6(unspecified6, AllNodes, nil, neighbor(solicit, own.IP6, own.MAC)))
	add("duplicate address detection of the link-local address", icmp6(unspecified6, AllNodes, nil, neighbor(solicit, local, own.MAC)))
	add("neighbor advertisement", icmp6(own.IP6, AllNodes, nil, neighbor(advertise, own.IP6, own.MAC)))
	add("neighbor advertisement of the link-local address", icmp6(local, AllNodes, nil, neighbor(advertise, local, own.MAC)))
	add("multicast listener report", icmp6(unspecified6, AllNodes, []extension{padding}, []byte{143, 0, 0, 0, 0, 0, 0, 0}))
	add("router solicitation", icmp6(local, AllNodes, nil, []byte{133, 0, 0, 0, 0, 0, 0, 0}))
	request := append([]byte{echo, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 16)...)
	add("echo request", icmp6(own.IP6, other.IP6, nil, request))
	add("first fragment of an echo request", icmp6(own.IP6, other.IP6, []extension{fragment(0, true)}, request))
	add("next fragment of an echo request", icmp6(own.IP6, other.IP6, []extension{fragment(3, false)}, request))
	return f.list
}

// Claims returns the frames that no port may send: those in the name of the bridge. own is the sender.
func Claims(own, bridge Station) []Frame {
	f := &frames{first: 3}
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	f.add("the MAC of the bridge", guard.ReasonMAC, bridge.MAC, udp(own.IP4, bridge.IP4, 1000))
	for _, tags := range []struct {
		name string
		wrap func([]byte) []byte
	}{
		{"", func(b []byte) []byte { return b }},
		{" behind tag 0", func(b []byte) []byte { return tag(typeTag, 0, b) }},
	} {
		add("the IPv4 address of the bridge"+tags.name, guard.ReasonAddress, tags.wrap(udp(bridge.IP4, own.IP4, 53)))
		add("ARP reply for the bridge"+tags.name, guard.ReasonARP, tags.wrap(arp(2, own.MAC, bridge.IP4, own.IP4)))
		add("gratuitous ARP for the bridge"+tags.name, guard.ReasonARP, tags.wrap(arp(1, own.MAC, bridge.IP4, bridge.IP4)))
		if bridge.IP6.IsValid() {
			from := own.MAC.LinkLocal()
			add("the IPv6 address of the bridge"+tags.name, guard.ReasonAddress, tags.wrap(udp(bridge.IP6, from, 53)))
			add("neighbor advertisement for the bridge"+tags.name, guard.ReasonND,
				tags.wrap(icmp6(from, AllNodes, nil, neighbor(advertise, bridge.IP6, own.MAC))))
			add("duplicate address detection for the bridge"+tags.name, guard.ReasonND,
				tags.wrap(icmp6(unspecified6, AllNodes, nil, neighbor(solicit, bridge.IP6, own.MAC))))
		}
	}
	add("two tags 0", guard.ReasonTag, tag(typeTag, 0, tag(typeTag, 0, arp(2, own.MAC, bridge.IP4, own.IP4))))
	return f.list
}

// FromPeers returns the frames that a strict node does not take from other nodes.
func FromPeers(sender Station) []Frame {
	f := &frames{first: 4}
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, sender.MAC, b) }
	local := sender.MAC.LinkLocal()
	add("router advertisement", guard.ReasonAdvertisement, RouterAdvertisement(sender.MAC, bogus))
	add("router advertisement behind tag 0", guard.ReasonAdvertisement, tag(typeTag, 0, RouterAdvertisement(sender.MAC, bogus)))
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), foreign6.AsSlice()...)
	add("ICMPv6 redirect", guard.ReasonRedirect, icmp6(local, AllNodes, nil, redirect))
	add("ICMP redirect", guard.ReasonRedirect, redirect4(sender.IP4, foreign4))
	add("answer of a DHCP server", guard.ReasonDHCP, udp(sender.IP4, foreign4, 67))
	add("answer of a DHCPv6 server", guard.ReasonDHCP, udp(local, AllNodes, 547))
	return f.list
}

// Marker returns a frame that a bound pod may send, with a destination for each number. It ends a series of frames.
func Marker(own, other Station, n byte) Frame {
	f := &frames{first: 0x80 + n}
	f.add("marker", "", own.MAC, udp(own.IP4, other.IP4, 1000))
	return f.list[0]
}

// Probe returns a marker, an ARP probe, that passes the rules between subnets as well. Nodes do not send it to others.
func Probe(own Station, n byte) Frame {
	f := &frames{first: 0x80 + n}
	f.add("marker", "", own.MAC, arp(layers.ARPRequest, own.MAC, unspecified4, own.IP4))
	return f.list[0]
}

// Scan returns ARP requests of a station for n addresses, as broadcasts.
func Scan(own Station, n int) (list []Frame) {
	target := own.IP4
	for range n {
		target = target.Next()
		data := slices.Concat(bytes.Repeat([]byte{0xff}, 6), own.MAC[:], arp(layers.ARPRequest, own.MAC, own.IP4, target))
		list = append(list, Frame{Name: "ARP request", Data: data})
	}
	return list
}

// VIP returns a gratuitous ARP and a datagram from an address that is not the station's own.
func VIP(own, other Station, vip netip.Addr) []Frame {
	f := &frames{first: 5}
	f.add("gratuitous ARP for a virtual address", guard.ReasonARP, own.MAC, arp(1, own.MAC, vip, vip))
	f.add("a virtual address", guard.ReasonAddress, own.MAC, udp(vip, other.IP4, 1000))
	return f.list
}

// Hardware returns the MAC of an interface of the calling thread's network namespace.
func Hardware(name string) (ether.Addr, error) {
	link, err := netdump.Repeat(func() (*net.Interface, error) { return net.InterfaceByName(name) })
	if err != nil {
		return ether.Addr{}, fmt.Errorf("guardtest: %w", err)
	}
	return ether.Addr(link.HardwareAddr), nil
}

// Attacks returns frames that try to configure a host: router advertisements and redirects, plain, behind tags of VLAN 0, and to a
// group that bridges do not forward.
func Attacks(sender Station) []Frame {
	f := &frames{first: 6}
	all := ether.Addr{0x33, 0x33, 0, 0, 0, 1}
	local := sender.MAC.LinkLocal()
	router := RouterAdvertisement(sender.MAC, bogus)
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), foreign6.AsSlice()...)
	for _, b := range [][]byte{
		router, icmp6(local, AllNodes, []extension{padding}, routerAdvertisement(sender.MAC, bogus)),
		icmp6(local, AllNodes, nil, redirect), redirect4(sender.IP4, netip.IPv4Unspecified()),
	} {
		for _, tagged := range [][]byte{b, tag(typeTag, 0, b), tag(typeService, 0, b), tag(typeTag, 0, tag(typeTag, 0, b))} {
			for _, to := range []ether.Addr{all, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x01, 0x80, 0xc2, 0, 0, 3}, {0x01, 0x80, 0xc2, 0, 0, 14}} {
				f.add("attack", "", sender.MAC, tagged)
				copy(f.list[len(f.list)-1].Data, to[:])
			}
		}
	}
	return f.list
}
