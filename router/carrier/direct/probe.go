package direct

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/router/carrier"
)

// A probe is sent in several packets: for each family one of TCP and one of UDP, as firewalls and clouds treat them differently. That of
// TCP is as long as those of pods may be. It has arrived when all have.
const (
	probePort   = 9     // RFC 863: discard
	probeSource = 49088 // the first of probeSources ports below those that are ephemeral
	// Probes have different source ports, as what a host translates is decided for the first packet of a connection, and few, as each is a
	// connection to a host that follows them.
	probeSources = 64
	hopLimit     = 64
)

// senderMAC is the source of probes on the bridge. It is that of no interface.
var senderMAC = ether.Addr{0xfe, 0x57, 0xff, 0, 0, 4}

// variant is one kind of the packets of a probe.
type variant struct {
	family family
	udp    bool
}

// bit returns the variant's bit in a set of variants.
func (v variant) bit() uint8 {
	b := uint8(1) << (2 * v.family)
	if v.udp {
		b <<= 1
	}
	return b
}

// variants returns the packets of a probe for the given families.
func variants(families []family) (list []variant) {
	for _, f := range families {
		list = append(list, variant{f, false}, variant{f, true})
	}
	return list
}

// bits returns the set of variants of the given families.
func bits(families []family) (set uint8) {
	for _, v := range variants(families) {
		set |= v.bit()
	}
	return set
}

// errNoProbe is returned by parsePacket for other packets.
var errNoProbe = errors.New("not a probe")

// packet is one packet of a probe.
type packet struct {
	src, dst netip.Addr
	variant  variant
	probe    carrier.Probe
}

// frame returns the packet in a frame to the MAC of the bridge; mtu is the length of the longest IP packet.
func (p packet) frame(bridge ether.Addr, mtu int) ([]byte, error) {
	link := &layers.Ethernet{SrcMAC: senderMAC[:], DstMAC: bridge[:], EthernetType: layers.EthernetTypeIPv4}
	protocol, length := layers.IPProtocolTCP, 20
	if p.variant.udp {
		protocol, length = layers.IPProtocolUDP, 8
	}
	var network interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	if p.variant.family == ip4 {
		length += 20
		network = &layers.IPv4{
			Version: 4, TTL: hopLimit, Protocol: protocol, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(), Flags: layers.IPv4DontFragment,
		}
	} else {
		length += 40
		link.EthernetType = layers.EthernetTypeIPv6
		network = &layers.IPv6{Version: 6, HopLimit: hopLimit, NextHeader: protocol, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
	}
	source := probeSource + (p.probe.Nonce^p.probe.Echo)%probeSources
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(source), DstPort: probePort, SYN: true, Window: 1 << 15, Seq: uint32(p.probe.Nonce ^ p.probe.Echo),
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(source), DstPort: probePort}
	transport, err := gopacket.SerializableLayer(tcp), tcp.SetNetworkLayerForChecksum(network)
	if p.variant.udp {
		mtu = length // without padding
		transport, err = udp, udp.SetNetworkLayerForChecksum(network)
	}
	if err != nil {
		return nil, fmt.Errorf("direct: probe: %w", err)
	}
	buf := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, link, network, transport,
		gopacket.Payload(p.probe.Append(nil, mtu-length)))
	if err != nil {
		return nil, fmt.Errorf("direct: probe: %w", err)
	}
	return buf.Bytes(), nil
}

// parsePacket reads an IP packet, which may be cut off behind the probe. The error is errNoProbe, or one of carrier.ParseProbe.
func parsePacket(b []byte) (p packet, err error) {
	if len(b) == 0 {
		return p, errNoProbe
	}
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	decoded := gopacket.NewPacket(b, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	var okay [2]bool
	switch ip := decoded.NetworkLayer().(type) {
	case *layers.IPv4:
		p.src, okay[0] = netip.AddrFromSlice(ip.SrcIP)
		p.dst, okay[1] = netip.AddrFromSlice(ip.DstIP)
	case *layers.IPv6:
		p.variant.family = ip6
		p.src, okay[0] = netip.AddrFromSlice(ip.SrcIP)
		p.dst, okay[1] = netip.AddrFromSlice(ip.DstIP)
	}
	if okay != [2]bool{true, true} {
		return p, errNoProbe
	}
	switch t := decoded.TransportLayer().(type) {
	case *layers.TCP:
		p.probe, err = carrier.ParseProbe(t.Payload)
	case *layers.UDP:
		p.variant.udp = true
		p.probe, err = carrier.ParseProbe(t.Payload)
	default:
		err = errNoProbe
	}
	return p, err
}
