package router

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/drop"
)

func TestCollector(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(1)})
	connectRemote(t, n, 1)
	o := newOutbound(n.Engine, n.dev.Queues()[0], tapWriter{}, n.conn)
	for _, f := range [][]byte{
		frame(ether.Broadcast, mac(1), 'a'), frame(mac(2), mac(1), 'b'), frame(mac(1), mac(1), 'c'),
	} {
		n.dev.Inject(f)
	}
	if _, err := o.step(); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(n.Collector())
	want := `
# HELP weft_batch_items Frames read from the TAP at once (transmit), or datagrams read from a socket at once (receive).
# TYPE weft_batch_items histogram
weft_batch_items_bucket{direction="receive",le="1"} 0
weft_batch_items_bucket{direction="receive",le="2"} 0
weft_batch_items_bucket{direction="receive",le="4"} 0
weft_batch_items_bucket{direction="receive",le="8"} 0
weft_batch_items_bucket{direction="receive",le="16"} 0
weft_batch_items_bucket{direction="receive",le="32"} 0
weft_batch_items_bucket{direction="receive",le="64"} 0
weft_batch_items_bucket{direction="receive",le="+Inf"} 0
weft_batch_items_sum{direction="receive"} 0
weft_batch_items_count{direction="receive"} 0
weft_batch_items_bucket{direction="transmit",le="1"} 0
weft_batch_items_bucket{direction="transmit",le="2"} 0
weft_batch_items_bucket{direction="transmit",le="4"} 1
weft_batch_items_bucket{direction="transmit",le="8"} 1
weft_batch_items_bucket{direction="transmit",le="16"} 1
weft_batch_items_bucket{direction="transmit",le="32"} 1
weft_batch_items_bucket{direction="transmit",le="64"} 1
weft_batch_items_bucket{direction="transmit",le="+Inf"} 1
weft_batch_items_sum{direction="transmit"} 3
weft_batch_items_count{direction="transmit"} 1
# HELP weft_fdb_entries MAC addresses in the forwarding database.
# TYPE weft_fdb_entries gauge
weft_fdb_entries 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "weft_batch_items", "weft_fdb_entries"); err != nil {
		t.Error(err)
	}
	if got, err := testutil.GatherAndCount(registry, "weft_drops_total"); err != nil || got != len(drop.All()) {
		t.Errorf("%d series of weft_drops_total, %v; want %d", got, err, len(drop.All()))
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if b, err := json.Marshal(n.Stats().Drops); err != nil || string(b) != `{"local":1}` {
		t.Errorf("drops as JSON: %s, %v", b, err)
	}
}

// TestTotals: the sums over peers contain those that have left.
func TestTotals(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(1), peerOf(2)})
	connectRemote(t, n, 1)
	o := newOutbound(n.Engine, n.dev.Queues()[0], tapWriter{}, n.conn)
	n.dev.Inject(frame(ether.Broadcast, mac(1), 'a'))
	if _, err := o.step(); err != nil {
		t.Fatal(err)
	}
	before := n.Stats()
	if want := (PeerTotals{TxFrames: 1, TxBytes: before.Peers[0].TxBytes, Sessions: before.Total.Sessions}); before.Total != want ||
		want.TxBytes == 0 || want.Sessions.Sessions == 0 {
		t.Fatalf("totals %+v, want %+v", before.Total, want)
	}
	for _, peers := range [][]Peer{{peerOf(2)}, nil, {peerOf(1)}} {
		n.SetPeers(peers)
		after := n.Stats().Total
		after.Sessions.Initiations = before.Total.Sessions.Initiations // a peer without a session may get another one
		if after != before.Total {
			t.Errorf("totals %+v with %d peers, want %+v", after, len(peers), before.Total)
		}
	}
}
