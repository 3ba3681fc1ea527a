package traffic

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/packet"
	"weft/internal/peer"
	"weft/router/flows"
)

// TestBetween: rates are the growth of the counters, plus the sample of what the kernel carried; peers that left are not shown, and a
// counter that starts again is not a negative rate.
func TestBetween(t *testing.T) {
	self, b, c, gone := peer.ID{1}, peer.ID{2}, peer.ID{3}, peer.ID{4}
	peers := []api.Peer{
		{ID: self, Name: "a", Self: true, State: api.PeerAlive},
		{ID: c, Name: "c", State: api.PeerAlive, Link: api.LinkRelay, Via: b, Carrier: api.CarrierUserspace, RTT: 2,
			TxBytes: 1000, RxFrames: 7},
		{ID: b, Name: "b", State: api.PeerAlive, Link: api.LinkDirect, Carrier: api.CarrierVXLAN,
			TxBytes: 50, TxFrames: 3, Kernel: api.PeerCounts{TxBytes: 40, TxFrames: 2}, Drops: map[string]uint64{"runt": 5, "send": 1}},
		{ID: gone, Name: "gone", State: api.PeerLeft},
	}
	flow := flows.Flow{Key: flows.Key{Peer: b, Path: flows.Kernel, Sent: true, EtherType: ether.TypeIPv4, Protocol: packet.TCP,
		Source: netip.MustParseAddr("10.40.0.1"), Destination: netip.MustParseAddr("10.32.0.1")}, Traffic: flows.Traffic{Frames: 10, Bytes: 1000}}
	flow.Ports.Source, flow.Ports.Destination = 40000, 5201
	arp := flows.Flow{Key: flows.Key{Path: flows.Userspace, EtherType: ether.TypeARP}, Traffic: flows.Traffic{Frames: 1, Bytes: 60}}
	sample := flows.Sample{
		Flows:  []flows.Flow{flow, arp},
		Kernel: map[peer.ID]flows.PeerTraffic{b: {Sent: flows.Traffic{Frames: 10, Bytes: 1000}}},
	}
	now := time.Unix(100, 0)
	before := Reading{At: now, Peers: peers, Drops: map[string]uint64{"runt": 5}}

	peers = slices.Clone(peers)
	peers[1].TxBytes, peers[1].TxFrames, peers[1].RxFrames = 3000, 4, 2 // RxFrames starts again
	peers[2].Drops = map[string]uint64{"runt": 9, "send": 1}
	peers[2].TxBytes, peers[2].TxFrames, peers[2].Kernel = 1050, 6, api.PeerCounts{TxBytes: 1040, TxFrames: 5}
	after := Reading{At: now.Add(2 * time.Second), Peers: peers, Drops: map[string]uint64{"runt": 9, "busy": 2}}
	got := Between(before, after, sample)
	want := api.Top{
		At: now.Add(2 * time.Second), Interval: 2, ID: self, Name: "a", Drops: map[string]float64{"runt": 2, "busy": 1},
		Peers: []api.TopPeer{
			{ID: b, Name: "b", State: api.PeerAlive, Link: api.LinkDirect, Carrier: api.CarrierVXLAN, Estimated: true,
				TopRates: api.TopRates{TxBits: 4000, TxPackets: 5}, Drops: map[string]float64{"runt": 2}},
			{ID: c, Name: "c", State: api.PeerAlive, Link: api.LinkRelay, Via: b, Carrier: api.CarrierUserspace, RTT: 2,
				TopRates: api.TopRates{TxBits: 8000, TxPackets: 2, RxPackets: 1}, Drops: map[string]float64{}},
		},
		Flows: []api.TopFlow{
			{Source: flow.Source, Destination: flow.Destination, Protocol: "tcp", SourcePort: 40000, DestinationPort: 5201, Peer: b, PeerName: "b",
				Sent: true, Path: api.DatapathKernel, Bits: 4000, Packets: 5},
			{Protocol: "arp", Path: api.DatapathUserspace, Bits: 240, Packets: 0.5},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, peer.ID{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	after.At = after.At.Add(time.Second)
	again := Between(Reading{At: got.At, Peers: peers, Drops: after.Drops}, after, flows.Sample{})
	if len(again.Flows)+len(again.Drops) != 0 || again.Peers[1].TxBits != 0 || again.Interval != 1 {
		t.Errorf("without traffic: %+v", again)
	}
}
