package vxlan

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/router/carrier"
)

// The node that begins a pair sends its probes with the token of the pair, which other nodes ignore. The first one shows the other node
// from which address and port they come.

// udpHeaderLen and headerLen are the lengths of the headers of UDP and of VXLAN (RFC 7348, section 5), in bytes.
const (
	udpHeaderLen = 8
	headerLen    = 8
)

// helloLen is how many bytes of a datagram with a probe and a token are needed, with the header of IPv6.
const helloLen = ipv6.HeaderLen + udpHeaderLen + headerLen + ether.HeaderLen + carrier.ProbeLen + len(carrier.Token{})

// hello is a probe of a node that begins a pair.
type hello struct {
	from  netip.AddrPort
	vni   uint32
	probe carrier.Probe
	token carrier.Token
}

// parseHello reads a hello in an IP packet without options or extension headers, which may be cut after helloLen bytes.
func parseHello(packet []byte) (h hello, ok bool) {
	addr, datagram, ok := udpOf(packet)
	if !ok || len(datagram) < udpHeaderLen+headerLen {
		return h, false
	}
	h.from = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(datagram))
	h.vni = binary.BigEndian.Uint32(datagram[udpHeaderLen+4:]) >> 8
	frame := datagram[udpHeaderLen+headerLen:]
	probe, err := parseProbe(frame)
	if err != nil || len(frame) < tokenAt+len(h.token) {
		return h, false
	}
	h.probe = probe
	copy(h.token[:], frame[tokenAt:])
	return h, h.from.Port() != 0
}

// udpOf returns the sender of a UDP datagram in an IP packet, and the datagram.
func udpOf(packet []byte) (from netip.Addr, datagram []byte, ok bool) {
	switch {
	case len(packet) >= ipv4.HeaderLen && packet[0] == ipv4.Version<<4|ipv4.HeaderLen/4 && packet[9] == unix.IPPROTO_UDP:
		return netip.AddrFrom4([4]byte(packet[12:])), packet[ipv4.HeaderLen:], true
	case len(packet) >= ipv6.HeaderLen && packet[0]>>4 == ipv6.Version && packet[6] == unix.IPPROTO_UDP:
		return netip.AddrFrom16([16]byte(packet[8:])), packet[ipv6.HeaderLen:], true
	}
	return netip.Addr{}, nil, false
}
