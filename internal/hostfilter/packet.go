package hostfilter

import "net/netip"

// Packet is the kind of packet that Judge follows. An empty field stands for any value.
type Packet struct {
	Family      string   // IPv4 or IPv6
	Hooks       []string // of the IP families
	FrameHooks  []string // of the family Bridge
	In, Out     string   // interfaces
	Src, Dst    netip.Prefix
	Protocol    string // tcp or udp
	DstPort     uint16 // 0: any
	Established bool   // it answers an earlier packet; otherwise it is the first of a connection
}

// Hooks on the ways of packets through a host.
var (
	forwardHooks = []string{"prerouting", "forward", "postrouting"}
	inputHooks   = []string{"prerouting", "input"}
	outputHooks  = []string{"output", "postrouting"}
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
	p := Packet{
		Family: familyOf(pods.Addr()), FrameHooks: forwardHooks, In: bridge, Out: bridge, Src: pods, Dst: pods, Protocol: "tcp",
	}
	if filtered {
		p.Hooks = forwardHooks
	}
	return p
}

// FromPods is a connection of a pod to an address outside the overlay, through the interface uplink; empty: any.
func FromPods(bridge string, pods netip.Prefix, uplink string) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: forwardHooks, FrameHooks: inputHooks, In: bridge, Out: uplink, Src: pods, Protocol: "tcp",
	}
}

// ToPods is the answers to FromPods.
func ToPods(bridge string, pods netip.Prefix, uplink string) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: forwardHooks, FrameHooks: outputHooks, In: uplink, Out: bridge, Dst: pods, Protocol: "tcp",
		Established: true,
	}
}

// FromClients is a connection from outside the overlay to a pod, which arrives on the interface uplink; empty: any.
func FromClients(bridge string, pods netip.Prefix, uplink string) Packet {
	p := ToPods(bridge, pods, uplink)
	p.Established = false
	return p
}

// ToClients is the answers to FromClients.
func ToClients(bridge string, pods netip.Prefix, uplink string) Packet {
	p := FromPods(bridge, pods, uplink)
	p.Established = true
	return p
}

// FromHost is a connection of this host to a pod.
func FromHost(bridge string, pods netip.Prefix) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: outputHooks, FrameHooks: outputHooks, Out: bridge, Src: pods, Dst: pods, Protocol: "tcp",
	}
}

// PodsToHost is the answers to FromHost.
func PodsToHost(bridge string, pods netip.Prefix) Packet {
	return Packet{
		Family: familyOf(pods.Addr()), Hooks: inputHooks, FrameHooks: inputHooks, In: bridge, Src: pods, Dst: pods, Protocol: "tcp",
		Established: true,
	}
}

// ToHost is a connection or datagram to a port of this host at the address self, which arrives on the interface uplink.
func ToHost(self netip.Addr, uplink, protocol string, port uint16) Packet {
	return Packet{
		Family: familyOf(self), Hooks: inputHooks, In: uplink, Dst: netip.PrefixFrom(self, self.BitLen()), Protocol: protocol,
		DstPort: port,
	}
}
