package guardtest

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/internal/guard"
)

// ReasonBridge marks frames that the kernel's bridge drops before a guard sees them.
const ReasonBridge guard.Reason = "bridge"

// Further next headers of IPv6.
const (
	nextHopByHop = 0
	nextRouting  = 43
)

// Extension headers that a receiver skips: a router alert, and a routing header without segments left.
var (
	alert   = extension{nextHopByHop, [7]byte{0, 5, 2, 0, 0, 1, 0}}
	routing = extension{nextRouting, [7]byte{0, 4}}
)

// chainsOf6 are the ways to put headers between IPv6 and a message that a receiver accepts. It accepts none behind authentication
// (RFC 4302) without a key, so that is not among them: rules of nftables do not look behind it.
var chainsOf6 = []struct {
	name string
	list []extension
}{
	{"a hop-by-hop option", []extension{alert}},
	{"all headers", []extension{alert, padding, routing, padding}},
	{"a routing header", []extension{routing}},
	{"ten options", []extension{padding, padding, padding, padding, padding, padding, padding, padding, padding, padding}},
}

// linkSources are sources that no station has.
var linkSources = []struct {
	name   string
	mac    ether.Addr
	reason guard.Reason
}{
	{"no MAC", ether.Addr{}, ReasonBridge},
	{"a group as its MAC", ether.Addr{1, 0, 0x5e, 0, 0, 1}, ReasonBridge},
	{"the broadcast address as its MAC", ether.Broadcast, ReasonBridge},
}

// strangeTypes are EtherTypes, and lengths of 802.3, behind which some receivers look for another packet.
var strangeTypes = []struct {
	name string
	kind uint16
}{
	{"PPPoE discovery", 0x8863}, {"PPPoE", 0x8864}, {"MPLS", 0x8847}, {"MPLS multicast", 0x8848}, {"EAPOL", 0x888e}, {"LLDP", 0x88cc},
	{"flow control", 0x8808}, {"LACP", 0x8809}, {"MACsec", 0x88e5}, {"reverse ARP", 0x8035}, {"Ethernet loopback", 0x9000},
	{"transparent bridging", 0x6558}, {"batman-adv", 0x4305}, {"length 0", 0}, {"length 38", 38}, {"length 1500", 1500},
	{"type 0x05ff", 0x05ff},
}

// Evasions returns the frames with which a bound pod tries to pass in an unusual form what it must not send.
func Evasions(own, other Station) []Frame {
	f := &frames{first: 7}
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	data := udp(own.IP4, other.IP4, 1000)
	for _, s := range linkSources {
		f.add(s.name, s.reason, s.mac, data)
	}
	for _, s := range strangeTypes {
		add(s.name, guard.ReasonEthertype, append(binary.BigEndian.AppendUint16(nil, s.kind), data[2:]...))
	}
	add("IPv4 behind LLC and SNAP", guard.ReasonEthertype, append([]byte{0, 46, 0xaa, 0xaa, 3, 0, 0, 0}, data...))
	add("spanning tree", guard.ReasonEthertype, []byte{0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0})
	copy(f.list[len(f.list)-1].Data, []byte{0x01, 0x80, 0xc2, 0, 0, 0})
	for _, a := range []string{"127.0.0.1", "255.255.255.255", "224.0.0.1", "169.254.1.1"} {
		add("from "+a, guard.ReasonAddress, udp(netip.MustParseAddr(a), other.IP4, 1000))
	}
	add("address of another behind options", guard.ReasonAddress, withOptions(udp(other.IP4, own.IP4, 1000)))
	add("next fragment of another", guard.ReasonAddress, fragment4(udp(other.IP4, own.IP4, 1000), 5, false))
	add("header of IPv6 as IPv4", guard.ReasonAddress, append([]byte{8, 0, 0x60}, udp(other.IP4, own.IP4, 1000)[3:]...))
	f.dhcp4(own, other)
	add("ICMP router advertisement", guard.ReasonAdvertisement, router4(own.IP4))
	add("ICMP redirect behind options", guard.ReasonRedirect, withOptions(redirect4(own.IP4, other.IP4)))
	add("ICMP redirect in a first fragment", guard.ReasonRedirect, fragment4(redirect4(own.IP4, other.IP4), 0, true))
	f.strangeARP(own, other)
	if own.IP6.IsValid() {
		f.evasions6(own, other)
	}
	return f.list
}

// dhcp4 adds answers of DHCP servers as a client accepts them.
func (f *frames) dhcp4(own, other Station) {
	add := func(name string, b []byte) { f.add(name, guard.ReasonDHCP, own.MAC, b) }
	add("answer of a DHCP server from another port", udpPorts(own.IP4, other.IP4, 1000, 68))
	add("answer of a DHCP server to all", udpPorts(own.IP4, netip.MustParseAddr("255.255.255.255"), 67, 68))
	add("answer of a DHCP server behind options", withOptions(udpPorts(own.IP4, other.IP4, 67, 68)))
	add("first fragment of an answer of a DHCP server", fragment4(udpPorts(own.IP4, other.IP4, 1000, 68), 0, true))
}

// strangeARP adds ARP in the name of another, with operations and types that some receivers accept.
func (f *frames) strangeARP(own, other Station) {
	good := arp(2, own.MAC, other.IP4, own.IP4)
	change := func(name string, at int, value ...byte) {
		b := append([]byte(nil), good...)
		copy(b[2+at:], value)
		f.add(name, guard.ReasonARP, own.MAC, b)
	}
	change("ARP of IEEE 802", 0, 0, 6)
	change("ARP of another protocol", 2, 0x86, 0xdd)
	change("ARP with long hardware addresses", 4, 8)
	change("ARP with long addresses", 5, 16)
	for name, operation := range map[string]byte{
		"operation 0": 0, "reverse ARP request": 3, "dynamic reverse ARP": 5, "inverse ARP request": 8, "inverse ARP reply": 9, "ARP NAK": 10,
	} {
		change(name, 6, 0, operation)
	}
	f.add("ARP that ends early", guard.ReasonARP, own.MAC, good[:20]) // what pads it has the address 0.0.0.0
}

// evasions6 adds the frames of a pod with an IPv6 address.
func (f *frames) evasions6(own, other Station) {
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	local, theirs := own.MAC.LinkLocal(), other.MAC.LinkLocal()
	for _, a := range []netip.Addr{
		netip.IPv6Loopback(), AllNodes, netip.AddrFrom16(own.IP4.As16()), netip.AddrFrom16(other.IP4.As16()),
		netip.AddrFrom16([16]byte{12: own.IP4.As4()[0], 13: own.IP4.As4()[1], 14: own.IP4.As4()[2], 15: own.IP4.As4()[3]}),
	} {
		add("from "+a.String(), guard.ReasonAddress, udp(a, other.IP6, 1000))
	}
	router := routerAdvertisement(own.MAC, bogus)
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), foreign6.AsSlice()...)
	claim := neighbor(advertise, other.IP6, own.MAC)
	for _, c := range chainsOf6 {
		add("router advertisement behind "+c.name, guard.ReasonAdvertisement, icmp6(local, AllNodes, c.list, router))
		add("ICMPv6 redirect behind "+c.name, guard.ReasonRedirect, icmp6(local, theirs, c.list, redirect))
		add("neighbor advertisement for another behind "+c.name, guard.ReasonND, icmp6(own.IP6, AllNodes, c.list, claim))
		in := append(append([]extension(nil), c.list...), fragment(0, false))
		add("router advertisement in a fragment behind "+c.name, guard.ReasonND, icmp6(local, AllNodes, in, router))
		add("duplicate address detection for another behind "+c.name, guard.ReasonND,
			icmp6(unspecified6, AllNodes, c.list, neighbor(solicit, other.IP6, own.MAC)))
	}
	add("two fragment headers", guard.ReasonND, icmp6(local, AllNodes, []extension{fragment(0, false), fragment(0, false)}, router))
	add("router advertisement without a body", guard.ReasonAdvertisement, icmp6(local, AllNodes, nil, router[:4]))
	add("neighbor advertisement without a target", guard.ReasonND, icmp6(own.IP6, AllNodes, nil, claim[:8]))
	add("neighbor advertisement with a short target", guard.ReasonND, icmp6(own.IP6, AllNodes, nil, claim[:16]))
	add("router advertisement as a router of another link", guard.ReasonAdvertisement, icmp6(own.IP6, AllNodes, nil, router))
	f.dhcp6(own, other)
}

// dhcp6 adds answers of DHCPv6 servers.
func (f *frames) dhcp6(own, other Station) {
	local, theirs := own.MAC.LinkLocal(), other.MAC.LinkLocal()
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	add("answer of a DHCPv6 server from another port", guard.ReasonDHCP, udpPorts(local, theirs, 1000, 546))
	for _, list := range [][]extension{{padding}, {alert}, {fragment(0, false)}, {padding, fragment(0, true)}} {
		add("answer of a DHCPv6 server behind headers", guard.ReasonDHCP, behind(udpPorts(local, theirs, 547, 546), list))
	}
	first := behind(udpPorts(local, theirs, 547, 546), []extension{fragment(0, true), padding})
	add("first fragment that ends before its ports", guard.ReasonMalformed, first[:2+40+16])
	binary.BigEndian.PutUint16(f.list[len(f.list)-1].Data[14+4:], 16)
}

// Unasked returns frames that no bound pod receives from a port of its node: what configures hosts.
func Unasked(own Station) []Frame {
	f := &frames{first: 8}
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	all := netip.MustParseAddr("255.255.255.255")
	add("ICMP redirect", guard.ReasonRedirect, redirect4(own.IP4, foreign4))
	add("ICMP redirect behind options", guard.ReasonRedirect, withOptions(redirect4(own.IP4, foreign4)))
	add("ICMP router advertisement", guard.ReasonAdvertisement, router4(own.IP4))
	add("answer of a DHCP server", guard.ReasonDHCP, udpPorts(own.IP4, all, 67, 68))
	add("answer of a DHCP server from another port", guard.ReasonDHCP, udpPorts(own.IP4, all, 1000, 68))
	if !own.IP6.IsValid() {
		return f.list
	}
	local := own.MAC.LinkLocal()
	router := routerAdvertisement(own.MAC, bogus)
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), foreign6.AsSlice()...)
	add("router advertisement", guard.ReasonAdvertisement, icmp6(local, AllNodes, nil, router))
	add("ICMPv6 redirect", guard.ReasonRedirect, icmp6(local, AllNodes, nil, redirect))
	for _, c := range chainsOf6 {
		add("router advertisement behind "+c.name, guard.ReasonAdvertisement, icmp6(local, AllNodes, c.list, router))
	}
	add("router advertisement in a fragment", guard.ReasonAdvertisement, icmp6(local, AllNodes, []extension{fragment(0, false)}, router))
	add("answer of a DHCPv6 server", guard.ReasonDHCP, udpPorts(local, AllNodes, 547, 546))
	add("answer of a DHCPv6 server from another port", guard.ReasonDHCP, udpPorts(local, AllNodes, 1000, 546))
	return f.list
}

// Disguises returns the frames in the name of the bridge in unusual forms, which no port may send.
func Disguises(own, bridge Station) []Frame {
	f := &frames{first: 9}
	add := func(name string, reason guard.Reason, b []byte) { f.add(name, reason, own.MAC, b) }
	claim := arp(2, own.MAC, bridge.IP4, own.IP4)
	claim[3] = 6 // Linux accepts it
	add("ARP of IEEE 802 for the bridge", guard.ReasonARP, claim)
	add("the address of the bridge behind options", guard.ReasonAddress, withOptions(udp(bridge.IP4, own.IP4, 53)))
	add("next fragment of the bridge", guard.ReasonAddress, fragment4(udp(bridge.IP4, own.IP4, 53), 5, false))
	if bridge.IP6.IsValid() {
		from := own.MAC.LinkLocal()
		for _, c := range chainsOf6 {
			add("neighbor advertisement for the bridge behind "+c.name, guard.ReasonND,
				icmp6(from, AllNodes, c.list, neighbor(advertise, bridge.IP6, own.MAC)))
			add("neighbor advertisement for the bridge behind tag 0 and "+c.name, guard.ReasonND,
				tag(typeTag, 0, icmp6(from, AllNodes, c.list, neighbor(advertise, bridge.IP6, own.MAC))))
		}
		add("neighbor advertisement for the bridge in a fragment", guard.ReasonND,
			icmp6(from, AllNodes, []extension{fragment(0, false)}, neighbor(advertise, bridge.IP6, own.MAC)))
	}
	return f.list
}

// udpPorts is udp with both ports.
func udpPorts(from, to netip.Addr, source, destination uint16) []byte {
	b := udp(from, to, source)
	header := 20
	if from.Is6() {
		header = 40
	}
	binary.BigEndian.PutUint16(b[2+header+2:], destination)
	binary.BigEndian.PutUint16(b[2+header+6:], 0) // no checksum
	return b
}

// router4 returns an ICMP router advertisement (RFC 1256).
func router4(from netip.Addr) []byte {
	return body(layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolICMPv4, SrcIP: from.AsSlice(), DstIP: []byte{224, 0, 0, 1}},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeRouterAdvertisement, 0)}, gopacket.Payload(from.AsSlice()))
}

// withOptions puts eight bytes of options into an IPv4 packet behind its EtherType.
func withOptions(b []byte) []byte {
	out := append([]byte(nil), b[:2+20]...)
	out = append(append(out, 1, 1, 1, 1, 1, 1, 1, 0), b[2+20:]...)
	out[2] = 0x47
	binary.BigEndian.PutUint16(out[2+2:], uint16(len(out)-2))
	return sum4(out)
}

// fragment4 makes an IPv4 packet a fragment; offset is in units of 8 bytes.
func fragment4(b []byte, offset uint16, more bool) []byte {
	out := append([]byte(nil), b...)
	if more {
		offset |= 0x2000
	}
	binary.BigEndian.PutUint16(out[2+6:], offset)
	return sum4(out)
}

// sum4 sets the checksum of the header of an IPv4 packet behind its EtherType.
func sum4(b []byte) []byte {
	header := b[2 : 2+int(b[2]&0xf)*4]
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	return b
}

// behind puts extension headers into an IPv6 packet behind its EtherType.
func behind(b []byte, list []extension) []byte {
	next := b[2+6]
	payload := append([]byte(nil), b[2+40:]...)
	for i := len(list) - 1; i >= 0; i-- {
		payload = append(append([]byte{next}, list[i].bytes[:]...), payload...)
		next = list[i].kind
	}
	out := append(append([]byte(nil), b[:2+40]...), payload...)
	out[2+6] = next
	binary.BigEndian.PutUint16(out[2+4:], uint16(len(payload)))
	return out
}
