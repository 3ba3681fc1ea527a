// Package traffic computes the rates of "weft top": from two readings of the counters of a node, and from a sample of the frames
// between them. It is pure.
package traffic

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/packet"
	"weft/internal/peer"
	"weft/router/flows"
)

// Reading is what the counters of a node show at a time.
type Reading struct {
	At    time.Time
	Peers []api.Peer
	Drops map[string]uint64 // by reason
}

// Between returns the document of the time between two readings, with a sample that covers it.
func Between(before, after Reading, sample flows.Sample) api.Top {
	seconds := max(after.At.Sub(before.At), time.Millisecond).Seconds()
	t := api.Top{At: after.At, Interval: seconds, Peers: []api.TopPeer{}, Drops: ratesOf(before.Drops, after.Drops, seconds)}
	former := byID(before.Peers)
	for _, p := range after.Peers {
		switch {
		case p.Self:
			t.ID, t.Name = p.ID, p.Name
		case p.State != api.PeerLeft:
			t.Peers = append(t.Peers, topPeer(former[p.ID], p, sample.Kernel[p.ID], seconds))
		}
	}
	slices.SortFunc(t.Peers, func(a, b api.TopPeer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	t.Flows = topFlows(sample.Flows, byID(after.Peers), seconds)
	return t
}

func byID(list []api.Peer) map[peer.ID]api.Peer {
	peers := make(map[peer.ID]api.Peer, len(list))
	for _, p := range list {
		peers[p.ID] = p
	}
	return peers
}

// topPeer returns the rates of a peer from its counters. The number of frames that the kernel carried is that of the sample, as the
// counters of the kernel have a superframe as one.
func topPeer(before, after api.Peer, kernel flows.PeerTraffic, seconds float64) api.TopPeer {
	return api.TopPeer{
		ID: after.ID, Name: after.Name, State: after.State, Link: after.Link, Via: after.Via, Carrier: after.Carrier,
		RTT: after.RTT,
		TopRates: api.TopRates{
			TxBits:    8 * float64(grown(before.TxBytes, after.TxBytes)) / seconds,
			RxBits:    8 * float64(grown(before.RxBytes, after.RxBytes)) / seconds,
			TxPackets: float64(grown(before.TxFrames-before.Kernel.TxFrames, after.TxFrames-after.Kernel.TxFrames)+kernel.Sent.Frames) / seconds,
			RxPackets: float64(grown(before.RxFrames-before.Kernel.RxFrames, after.RxFrames-after.Kernel.RxFrames)+kernel.Received.Frames) / seconds,
		},
		Estimated: kernel != flows.PeerTraffic{},
		Drops:     ratesOf(before.Drops, after.Drops, seconds),
	}
}

// ratesOf returns how much counters have grown a second; those that have not are left out.
func ratesOf(before, after map[string]uint64, seconds float64) map[string]float64 {
	rates := map[string]float64{}
	for name, n := range after {
		if d := grown(before[name], n); d > 0 {
			rates[name] = float64(d) / seconds
		}
	}
	return rates
}

// grown returns how much a counter has grown. A counter of a peer that went and came back starts again at 0.
func grown(before, after uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

// topFlows returns the largest flows as documents. The list is sorted.
func topFlows(list []flows.Flow, peers map[peer.ID]api.Peer, seconds float64) []api.TopFlow {
	docs := []api.TopFlow{}
	for _, f := range list[:min(len(list), api.MaxTopFlows)] {
		doc := api.TopFlow{
			Source: f.Source, Destination: f.Destination, Protocol: protocolName(f.Key), Peer: f.Peer, PeerName: peers[f.Peer].Name, Sent: f.Sent,
			SourcePort: f.Ports.Source, DestinationPort: f.Ports.Destination, Path: api.DatapathUserspace,
			Bits: 8 * float64(f.Bytes) / seconds, Packets: float64(f.Frames) / seconds,
		}
		if f.Path == flows.Kernel {
			doc.Path = api.DatapathKernel
		}
		docs = append(docs, doc)
	}
	return docs
}

// protocolName returns the name of the protocol of a flow, or its number.
func protocolName(k flows.Key) string {
	switch {
	case k.EtherType == ether.TypeARP:
		return "arp"
	case !k.Source.IsValid():
		return "ethertype-0x" + strconv.FormatUint(uint64(k.EtherType), 16)
	}
	switch k.Protocol {
	case packet.ICMP:
		return "icmp"
	case packet.ICMPv6:
		return "icmp6"
	case packet.TCP:
		return "tcp"
	case packet.UDP:
		return "udp"
	case packet.SCTP:
		return "sctp"
	case packet.ESP:
		return "esp"
	default:
		return "ip-" + strconv.Itoa(int(k.Protocol))
	}
}
