package hostfilter

import "net/netip"

// Packet is the kind of packet that Judge follows. An empty field stands for any value.
type Packet struct {
	Family      string // IPv4 or IPv6
	Hooks       []string
	Bridged     bool   // it passes the chains of family Bridge, too
	Routed      bool   // it passes the chains of IP families
	In, Out     string // interfaces
	Src, Dst    netip.Prefix
	Protocol    string // tcp or udp
	DstPort     uint16 // 0: any
	Established bool   // it answers an earlier packet; otherwise it is the first of a connection
}

// Hooks on the ways of packets through a host.
var (
	forwardHooks = []string{"prerouting", "forward", "postrouting"}
	inputHooks   = []string{"prerouting", "input"}
)

// familyOf returns the family of an address.
func familyOf(a netip.Addr) string {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// BetweenPods is a connection between pods of one range on one bridge. filtered says whether the kernel passes bridged frames of
// this family to the filters of IP (net.bridge.bridge-nf-call-iptables).
func BetweenPods(bridge string, pods netip.Prefix, filtered bool) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: forwardHooks, Bridged: true, Routed: filtered, In: bridge, Out: bridge, Src: pods, Dst: pods,
		Protocol: "tcp",
	}
}

// FromPods is a connection of a pod to an address outside the overlay, through the interface uplink; empty: any.
func FromPods(bridge string, pods netip.Prefix, uplink string) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: forwardHooks, Routed: true, In: bridge, Out: uplink, Src: pods, Protocol: "tcp",
	}
}

// ToPods is the answers to FromPods.
func ToPods(bridge string, pods netip.Prefix, uplink string) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: forwardHooks, Routed: true, In: uplink, Out: bridge, Dst: pods, Protocol: "tcp",
		Established: true,
	}
}

// ToHost is a connection or datagram to a port of this host at the address self, which arrives on the interface uplink.
func ToHost(self netip.Addr, uplink, protocol string, port uint16) Packet {
	return Packet{
		Family: familyOf(self), Hooks: inputHooks, Routed: true, In: uplink, Dst: netip.PrefixFrom(self, self.BitLen()), Protocol: protocol,
		DstPort: port,
	}
}
