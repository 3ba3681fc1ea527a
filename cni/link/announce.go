package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
)

// allNodes is the IPv6 multicast address of everybody on the link, and the MAC that goes with it (RFC 2464 section 7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = ether.Addr{0x33, 0x33, 0, 0, 0, 1}
)

// Announcement returns the frame by which an interface tells the link that ip is at mac: an ARP announcement (RFC 5227
// section 2.3: a request for its own address) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6).
// Bridges and routers learn from it where the pod is now, neighbours forget who had the address before.
func Announcement(mac ether.Addr, ip netip.Addr) ([]byte, error) {
	var parts []gopacket.SerializableLayer
	if ip.Is4() {
		parts = arpAnnouncement(mac, ip)
	} else {
		parts = neighbourAdvertisement(mac, ip)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, parts...)
	if err != nil {
		return nil, fmt.Errorf("link: building the announcement of %s: %w", ip, err)
	}
	return buf.Bytes(), nil
}

func arpAnnouncement(mac ether.Addr, ip netip.Addr) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mac[:], DstMAC: ether.Broadcast[:], EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: uint8(len(mac)), ProtAddressSize: net.IPv4len,
			Operation:       layers.ARPRequest,
			SourceHwAddress: mac[:], SourceProtAddress: ip.AsSlice(),
			DstHwAddress: make([]byte, len(mac)), DstProtAddress: ip.AsSlice(),
		},
	}
}

func neighbourAdvertisement(mac ether.Addr, ip netip.Addr) []gopacket.SerializableLayer {
	const (
		override = 0x20 // replace what caches hold
		hopLimit = 255  // receivers drop anything else: proof that no router was in between
	)
	network := &layers.IPv6{
		Version: 6, HopLimit: hopLimit, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: ip.AsSlice(), DstIP: allNodes.AsSlice(),
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
	_ = icmp.SetNetworkLayerForChecksum(network) // fails only for other layers than IP
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mac[:], DstMAC: allNodesMAC[:], EthernetType: layers.EthernetTypeIPv6},
		network,
		icmp,
		&layers.ICMPv6NeighborAdvertisement{
			Flags: override, TargetAddress: ip.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: mac[:]}},
		},
	}
}
