package hostfilter

import (
	"fmt"
	"net/netip"
)

// Traffic is a kind of traffic that a node needs. The zero Traffic is invalid.
type Traffic uint8

// Kinds of traffic.
const (
	PodsToPods    Traffic = iota + 1 // frames between pods of this host, and between them and those of other hosts
	PodsToOutside                    // connections of pods to addresses outside the overlay, and the answers
	HostToPods                       // connections of this host to pods, and the answers
	NodesToNode                      // gossip and datagrams of other nodes to this one
	ClientsToPods                    // connections from outside the overlay to pods through this host, and the answers
)

// Host is what Assess needs to know about a node and its host.
type Host struct {
	Bridge string
	Ranges []netip.Prefix
	// Filtered4 and Filtered6 report whether bridged frames pass the filters of IP, see Filtered.
	Filtered4, Filtered6 bool
	Exposed              bool       // the host has an address in the ranges
	Outside              bool       // pods may connect to addresses outside the overlay
	Inward               bool       // clients outside the overlay may connect to pods through this host
	Self                 netip.Addr // of the node on the underlay; invalid: not known
	Uplink               string     // the interface with that address; empty: not known
	TCP, UDP             []uint16   // ports of the node
}

// Loss is traffic that the host's filters drop, or may drop.
type Loss struct {
	Traffic Traffic
	What    string // the traffic as a phrase
	Result  Result // its Verdict is Drops or Unclear
	Remedy  string // a sentence
}

// String returns what is lost, and why.
func (l Loss) String() string { return fmt.Sprintf("%s: %s", l.What, l.Result) }

// way is one way of packets that the node needs.
type way struct {
	traffic Traffic
	what    string
	packet  Packet
}

// Assess returns the traffic of a node that the filters drop or may drop: for each kind the worst loss, in the order of the kinds.
// It leaves out the tables of weft itself, with names that start with "weft": they drop what policies forbid.
func Assess(rules Ruleset, h Host) (losses []Loss) {
	rules = rules.Without("weft")
	worst := map[Traffic]Loss{}
	for _, w := range h.ways() {
		r := Judge(rules, w.packet)
		if r.Verdict == Passes || r.Verdict <= worst[w.traffic].Result.Verdict {
			continue
		}
		remedy := r.AcceptPods(rules, h.Bridge)
		if w.traffic == NodesToNode {
			remedy = r.AcceptPort(rules, w.packet.Protocol, w.packet.DstPort)
		}
		worst[w.traffic] = Loss{w.traffic, w.what, r, remedy}
	}
	for _, t := range []Traffic{PodsToPods, HostToPods, PodsToOutside, ClientsToPods, NodesToNode} {
		if l, lost := worst[t]; lost {
			losses = append(losses, l)
		}
	}
	return losses
}

// ways returns all ways that the node needs.
func (h *Host) ways() (list []way) {
	for _, r := range h.Ranges {
		family, filtered := "IPv4", h.Filtered4
		if r.Addr().Is6() {
			family, filtered = "IPv6", h.Filtered6
		}
		list = append(list, way{PodsToPods, family + " between pods", BetweenPods(h.Bridge, r, filtered)})
		if h.Exposed {
			list = append(list,
				way{HostToPods, family + " of this host to pods", FromHost(h.Bridge, r)},
				way{HostToPods, family + " answers of pods to this host", PodsToHost(h.Bridge, r)})
		}
		if h.Outside {
			list = append(list,
				way{PodsToOutside, family + " of pods to addresses outside the overlay", FromPods(h.Bridge, r, h.Uplink)},
				way{PodsToOutside, family + " answers to pods from outside the overlay", ToPods(h.Bridge, r, h.Uplink)})
		}
		if h.Inward {
			list = append(list,
				way{ClientsToPods, family + " of clients outside the overlay to pods", FromClients(h.Bridge, r, h.Uplink)},
				way{ClientsToPods, family + " answers of pods to clients outside the overlay", ToClients(h.Bridge, r, h.Uplink)})
		}
	}
	if !h.Self.IsValid() {
		return list
	}
	for _, p := range h.TCP {
		list = append(list, way{NodesToNode, fmt.Sprintf("TCP port %d from other nodes", p), ToHost(h.Self, h.Uplink, "tcp", p)})
	}
	for _, p := range h.UDP {
		list = append(list, way{NodesToNode, fmt.Sprintf("UDP port %d from other nodes", p), ToHost(h.Self, h.Uplink, "udp", p)})
	}
	return list
}
