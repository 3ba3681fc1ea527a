package ipam

import (
	"testing"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/store/storetest"
)

// TestMaxInitPeersBootstrap: MaxInitPeers nodes can agree on the first division of a range, which is divided among as many
// of them as a value names; one more is refused.
func TestMaxInitPeersBootstrap(t *testing.T) {
	cfg := Config{
		Self: nodeID(0), Ranges: prefixes("10.32.0.0/12"), InitPeers: MaxInitPeers + 1,
		Store: storetest.NewMemory(), Gossip: &recorder{},
	}
	if err := cfg.Validate(); err == nil {
		t.Errorf("%d bootstrap nodes are accepted", cfg.InitPeers)
	}
	if api.MaxInitPeers != MaxInitPeers {
		t.Errorf("the daemon accepts %d, the allocator %d", api.MaxInitPeers, MaxInitPeers)
	}
	cfg.InitPeers = MaxInitPeers
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := a.pools[0]
	others := make([]paxos.State, 0, MaxInitPeers-1)
	for i := 1; i < MaxInitPeers; i++ {
		others = append(others, paxos.State{Node: nodeID(i), Seq: 1, Needed: MaxInitPeers})
	}
	merge := func() {
		t.Helper()
		for _, delta := range stateDeltas(p, others) {
			if err := a.Merge(delta); err != nil {
				t.Fatal(err)
			}
		}
	}
	propose := func() error { return a.do(func() error { return a.propose(p) }) }
	merge()
	if met, needed := p.bootstrap.Waiting(); met != MaxInitPeers || needed != MaxInitPeers {
		t.Fatalf("%d of %d have met", met, needed)
	}
	if err := propose(); err != nil {
		t.Fatal(err)
	}
	own := p.bootstrap.Own()
	for i := range others { // all promise
		others[i].Seq, others[i].Floor, others[i].Promised = 2, MaxInitPeers, own.Promised
	}
	merge()
	own = p.bootstrap.Own()
	for i := range others { // all accept
		others[i].Seq, others[i].Accepted, others[i].Value = 3, own.Accepted, own.Value
	}
	merge()
	if owners := a.Status().Ranges[0].Owners; len(owners) != paxos.MaxValue || owners[0].ID != nodeID(0) {
		t.Errorf("the range is divided among %d nodes, want %d", len(owners), paxos.MaxValue)
	}
}

// TestMoreBootstrapNodesThanAValueNames: where more nodes bootstrap a range than a value names, the others request a share.
func TestMoreBootstrapNodesThanAValueNames(t *testing.T) {
	const nodes = paxos.MaxValue + 8
	bubble(t, nodes, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/16")
		b.eventually("all nodes are ready", b.allReady)
		b.eventually("all nodes own addresses", func() bool {
			owners := make(map[peer.ID]bool)
			for _, o := range b.nodes[0].alloc.Status().Ranges[0].Owners {
				owners[o.ID] = true
			}
			return len(owners) == nodes
		})
	})
}
