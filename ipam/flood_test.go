package ipam

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store/storetest"
)

// only is a Membership with one other node.
type only peer.ID

func (o only) Awaited(peer.ID) bool      { return false }
func (o only) Reachable(id peer.ID) bool { return id == peer.ID(o) }
func (o only) Members() []peer.ID        { return []peer.ID{peer.ID(o)} }
func (only) Name(peer.ID) string         { return "" }

// TestMadeUpNodes: unicasts in the name of any number of made-up nodes, and ballots about them, leave little behind, on disk too.
// What a real node needs stays: its reply, its place among the nodes that Leave may hand over to, and its reclaim.
func TestMadeUpNodes(t *testing.T) {
	real, owner := nodeID(7), nodeID(8)
	disk := storetest.NewMemory()
	a, err := New(Config{
		Self: nodeID(0), InitPeers: 1, Store: disk, Gossip: &recorder{}, Ranges: prefixes("10.32.0.0/16"), Membership: only(real),
	})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := a.Allocate(t.Context(), "pod", whole)
	if err != nil {
		t.Fatal(err)
	}
	p := a.pools[0]
	leased, _ := p.ring.Offset(lease.Addr) // a request for it is answered, and grants nothing
	request := func(from peer.ID) {
		m := unicast{kind: kindRequest, id: 1, claim: true, low: leased, end: leased + 1, ring: p.noTokens().Append(nil)}
		if err := a.Message(from, m.encode()); err != nil {
			t.Fatal(err)
		}
	}
	ballot := func(dead peer.ID) error {
		m := reclaimMessage{kind: kindBallot, dead: dead, ballot: paxos.Ballot{Round: 1, By: real}, ring: p.noTokens().Append(nil)}
		return a.Message(real, m.encode())
	}
	madeUp := func(i int) (id peer.ID) {
		binary.BigEndian.PutUint64(id[:], 1<<63+uint64(i))
		return id
	}
	before := heap()
	for i := range maxUnreachable {
		request(madeUp(i))
	}
	request(real)
	refused := 0
	for i := range 3 * maxPeers {
		request(madeUp(i))
		if errors.Is(ballot(madeUp(i)), ErrMessage) {
			refused++
		}
	}
	if _, kept := a.served[real]; !kept || len(a.served) > maxPeers {
		t.Errorf("%d replies are kept, that to the real node: %v", len(a.served), kept)
	}
	if _, kept := a.senders[real]; !kept || len(a.senders) != maxUnreachable+1 {
		t.Errorf("%d senders are kept, the real node among them: %v", len(a.senders), kept)
	}
	if len(p.acceptorStates) != maxIdleInstances || len(a.acceptor.lastBallot) != maxIdleInstances || refused != 3*maxPeers-maxIdleInstances {
		t.Errorf("%d acceptor states, %d times of ballots, %d refused", len(p.acceptorStates), len(a.acceptor.lastBallot), refused)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d KiB for the flood, want at most 8 MiB", grown>>10)
	}
	if _, err := p.ring.Grant(a.cfg.Self, owner, ring.Span{Start: 64, End: 128}, p.free); err != nil {
		t.Fatal(err)
	}
	if err := ballot(owner); err != nil || len(p.acceptorStates) != maxIdleInstances+1 {
		t.Errorf("a ballot on an owner: %v", err)
	}
	err = a.do(func() error { return a.maintainReclaims(p) })
	if err != nil || len(p.acceptorStates) != 1 || len(a.acceptor.lastBallot) != 1 {
		t.Errorf("%d acceptor states after the next tick, %v, want that of the owner", len(p.acceptorStates), err)
	}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
