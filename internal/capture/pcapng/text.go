package pcapng

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/printable"
)

// Text describes a frame in one line, in the manner of tcpdump. length is the length in bytes of the whole frame; data may be
// its beginning only. Characters that cannot be printed are replaced by dots: pods choose the bytes of names in DNS queries,
// and control characters would act on the terminal.
func Text(data []byte, length int) string {
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	var parts []string
	for _, l := range p.Layers() {
		if text := layerText(p, l); text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "not Ethernet")
	}
	return fmt.Sprintf("%s, length %d", printable.Text(strings.Join(parts, " ")), length)
}

// layerText returns the text of one layer, empty when the text of another layer covers it.
func layerText(p gopacket.Packet, l gopacket.Layer) string {
	switch l := l.(type) {
	case *layers.Ethernet:
		if p.NetworkLayer() == nil && l.EthernetType != layers.EthernetTypeARP {
			return fmt.Sprintf("%s > %s %s", l.SrcMAC, l.DstMAC, l.EthernetType)
		}
	case *layers.Dot1Q:
		return fmt.Sprintf("vlan %d", l.VLANIdentifier)
	case *layers.ARP:
		return arpText(l)
	case *layers.IPv4:
		if l.FragOffset > 0 {
			return fmt.Sprintf("%s fragment at %d", addresses(p, l.SrcIP, l.DstIP), l.FragOffset*8)
		}
		return addresses(p, l.SrcIP, l.DstIP)
	case *layers.IPv6:
		return addresses(p, l.SrcIP, l.DstIP)
	case *layers.TCP:
		return fmt.Sprintf("TCP [%s] seq %d ack %d win %d", tcpFlags(l), l.Seq, l.Ack, l.Window)
	case *layers.UDP:
		return "UDP"
	case *layers.SCTP:
		return "SCTP"
	case *layers.ICMPv4:
		return fmt.Sprintf("ICMP %s id %d seq %d", l.TypeCode, l.Id, l.Seq)
	case *layers.ICMPv6:
		return "ICMPv6 " + l.TypeCode.String()
	case *layers.ICMPv6NeighborSolicitation:
		return "for " + l.TargetAddress.String()
	case *layers.ICMPv6NeighborAdvertisement:
		return "of " + l.TargetAddress.String()
	case *layers.DNS:
		return dnsText(l)
	case *gopacket.DecodeFailure:
		return "(cut short or malformed)"
	}
	return ""
}

// addresses returns source and destination, with their ports if there are any.
func addresses(p gopacket.Packet, src, dst net.IP) string {
	from, to := src.String(), dst.String()
	join := func(host string, port uint16) string {
		return netip.AddrPortFrom(parse(host), port).String()
	}
	switch t := p.TransportLayer().(type) {
	case *layers.TCP:
		from, to = join(from, uint16(t.SrcPort)), join(to, uint16(t.DstPort))
	case *layers.UDP:
		from, to = join(from, uint16(t.SrcPort)), join(to, uint16(t.DstPort))
	case *layers.SCTP:
		from, to = join(from, uint16(t.SrcPort)), join(to, uint16(t.DstPort))
	}
	return from + " > " + to
}

func parse(host string) netip.Addr {
	addr, _ := netip.ParseAddr(host) // cannot fail: net.IP has formatted it
	return addr
}

func arpText(l *layers.ARP) string {
	src, dst := net.IP(l.SourceProtAddress), net.IP(l.DstProtAddress)
	if l.Operation == layers.ARPRequest {
		return fmt.Sprintf("ARP who-has %s tell %s (%s)", dst, src, net.HardwareAddr(l.SourceHwAddress))
	}
	return fmt.Sprintf("ARP %s is-at %s", src, net.HardwareAddr(l.SourceHwAddress))
}

func tcpFlags(l *layers.TCP) string {
	var flags strings.Builder
	for _, f := range []struct {
		set  bool
		sign string
	}{{l.SYN, "S"}, {l.FIN, "F"}, {l.RST, "R"}, {l.PSH, "P"}, {l.URG, "U"}, {l.ECE, "E"}, {l.CWR, "W"}, {l.ACK, "."}} {
		if f.set {
			flags.WriteString(f.sign)
		}
	}
	return flags.String()
}

func dnsText(l *layers.DNS) string {
	var parts []string
	for _, q := range l.Questions {
		parts = append(parts, fmt.Sprintf("%s %s", q.Type, q.Name))
	}
	if l.QR {
		parts = append(parts, fmt.Sprintf("%s, %d answers", l.ResponseCode, len(l.Answers)))
	}
	return "DNS " + strings.Join(parts, " ")
}
