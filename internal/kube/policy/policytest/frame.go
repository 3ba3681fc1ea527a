package policytest

import (
	"net/netip"
	"slices"

	"weft/internal/ether"
	"weft/internal/kube/policy"
)

// Frame is an Ethernet frame on the bridge of a node. Packet counts for the EtherTypes of IP only.
type Frame struct {
	// From is the local pod that sends the frame; nil: it comes from another node.
	From *policy.Pod
	// Tagged is true for a frame with a VLAN tag.
	Tagged    bool
	EtherType uint16
	// Group is true if the destination MAC is a broadcast or multicast address. Otherwise the bridge does not know the MAC, which has
	// the same effect: all ports get the frame.
	Group bool
	Packet
}

// NeighborDiscovery is the Protocol of the ICMPv6 messages that policies do not restrict.
const NeighborDiscovery = "ND"

// Delivered reports whether a local pod gets a frame that the bridge sends to all ports.
func Delivered(c *policy.Cluster, f Frame, to *policy.Pod) bool {
	if f.From == to {
		return false // without hairpin
	}
	if len(c.Network)+len(c.Cluster)+len(c.Admin)+len(c.Baseline) == 0 {
		return true
	}
	isolatedFrom, isolatedTo := f.From != nil && selected(c, f.From, true), selected(c, to, false)
	if f.Tagged {
		return !isolatedFrom && !isolatedTo
	}
	switch f.EtherType {
	case ether.TypeARP:
		return true
	case ether.TypeIPv4, ether.TypeIPv6:
		return f.packetPasses(c, to)
	}
	return !isolatedFrom && !isolatedTo
}

// owns reports whether an address stands for the pod.
func owns(pod *policy.Pod, ip netip.Addr) bool {
	return slices.Contains(pod.IPs, ip) || ip == pod.LinkLocal && hasFamily(pod, ip)
}

// packetPasses reports whether a pod gets an IP packet that the bridge sends to all ports.
func (f Frame) packetPasses(c *policy.Cluster, to *policy.Pod) bool {
	fromSelected, toSelected := f.From != nil && selected(c, f.From, true), selected(c, to, false)
	fromOwn, toOwn := f.From == nil || owns(f.From, f.Src), owns(to, f.Dst)
	switch {
	case !fromOwn && f.forged(c):
		return false
	case fromSelected && !hasFamily(f.From, f.Src), toSelected && !hasFamily(to, f.Dst):
		return false
	case fromSelected && owns(f.From, f.Dst), toSelected && owns(to, f.Src):
		return false // only the pod itself may send to itself
	case f.Protocol == NeighborDiscovery:
		return true
	case (fromOwn || !fromSelected) && (toOwn || !toSelected):
		return Allowed(c, f.Packet)
	}
	// The policies of the pods at both ports decide, too, as if the packet had their addresses.
	sent, got := f.Packet, f.Packet
	if fromSelected && !fromOwn {
		sent.Src = likeOf(f.From, f.Src)
	}
	if toSelected && !toOwn {
		got.Dst = likeOf(to, f.Dst)
	}
	return (!fromSelected || decide(c, f.From, true, sent)) && (!toSelected || decide(c, to, false, got)) && allowed(c, f.Packet)
}

// forged reports whether a frame has the address of another pod, or of a group, as its source.
func (f Frame) forged(c *policy.Cluster) bool {
	group := f.Src.IsMulticast() || f.Src.Is4() && f.Src.As4()[0] >= 224
	return group || slices.ContainsFunc(c.Pods, func(p *policy.Pod) bool { return owns(p, f.Src) })
}

// likeOf returns an address of a pod in the family of ip.
func likeOf(pod *policy.Pod, ip netip.Addr) netip.Addr {
	return pod.IPs[slices.IndexFunc(pod.IPs, func(own netip.Addr) bool { return own.Is4() == ip.Is4() })]
}
