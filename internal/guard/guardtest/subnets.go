package guardtest

import (
	"net/netip"

	"github.com/google/gopacket/layers"

	"weft/internal/guard"
)

// BetweenSubnets returns what a pod must not send to one that is in another subnet, and what does no harm there.
func BetweenSubnets(own, other Station) []Frame {
	f := &frames{first: 0x10 + other.MAC[5]} // one station sees what is for another, too
	f.add("IPv4", guard.ReasonSubnet, own.MAC, udp(own.IP4, other.IP4, 53))
	f.add("ARP request", guard.ReasonSubnet, own.MAC, arp(layers.ARPRequest, own.MAC, own.IP4, other.IP4))
	f.add("ARP reply", guard.ReasonSubnet, own.MAC, arp(layers.ARPReply, own.MAC, own.IP4, other.IP4))
	f.add("with a tag", guard.ReasonSubnet, own.MAC, tag(typeTag, 0, udp(own.IP4, other.IP4, 53)))
	if own.IP6.IsValid() && other.IP6.IsValid() {
		f.add("IPv6", guard.ReasonSubnet, own.MAC, udp(own.IP6, other.IP6, 53))
		f.add("IPv6 by link-local addresses", guard.ReasonSubnet, own.MAC, udp(own.MAC.LinkLocal(), other.MAC.LinkLocal(), 53))
	}
	return f.list
}

// WithinSubnet returns what a pod sends to one in the same subnet.
func WithinSubnet(own, other Station) []Frame {
	f := &frames{first: 10}
	add := func(name string, b []byte) { f.add(name, "", own.MAC, b) }
	add("IPv4", udp(own.IP4, other.IP4, 1000))
	add("IPv4 to a group", udp(own.IP4, netip.MustParseAddr("224.0.0.251"), 5353))
	add("IPv4 broadcast", udp(own.IP4, netip.MustParseAddr("255.255.255.255"), 1000))
	add("ARP request", arp(layers.ARPRequest, own.MAC, own.IP4, other.IP4))
	add("ARP probe", arp(layers.ARPRequest, own.MAC, unspecified4, own.IP4))
	if own.IP6.IsValid() && other.IP6.IsValid() {
		add("IPv6", udp(own.IP6, other.IP6, 1000))
		add("neighbor solicitation", icmp6(own.IP6, other.IP6, nil, neighbor(solicit, other.IP6, own.MAC)))
		add("duplicate address detection", icmp6(unspecified6, AllNodes, nil, neighbor(solicit, own.IP6, own.MAC)))
		add("neighbor advertisement by a link-local address", icmp6(own.MAC.LinkLocal(), AllNodes, nil, neighbor(advertise, own.IP6, own.MAC)))
	}
	return f.list
}
