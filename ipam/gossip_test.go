package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
	"weft/ipam/store/storetest"
)

// recorder is a Gossip that keeps the broadcasts, and reaches no node.
type recorder struct {
	mu   sync.Mutex
	sent [][]byte // guarded by mu
}

func (r *recorder) Broadcast(delta []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, delta)
}

func (*recorder) Unicast(peer.ID, []byte) error { return errDown }

// merge merges msg and returns the broadcasts of the allocator meanwhile; its Gossip is a recorder.
func merge(a *Allocator, msg []byte) (deltas [][]byte, err error) {
	r := a.cfg.Gossip.(*recorder)
	r.mu.Lock()
	r.sent = nil
	r.mu.Unlock()
	err = a.Merge(msg)
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent), err
}

// lone returns an allocator that bootstraps alone and reaches no other node.
func lone(t testing.TB, i int, ranges ...string) (*Allocator, *storetest.Memory) {
	t.Helper()
	disk := storetest.NewMemory()
	cfg := Config{Self: nodeID(i), InitPeers: 1, Store: disk, Gossip: &recorder{}, Ranges: prefixes(ranges...)}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a, disk
}

func TestMergeOfAnotherClustersRing(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	b, _ := lone(t, 1, "10.32.0.0/24")
	l, err := a.Allocate(t.Context(), "x", whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Allocate(t.Context(), "y", whole); err != nil {
		t.Fatal(err)
	}
	var mismatch *ring.ClusterMismatchError
	if err := a.Merge(b.State()); !errors.As(err, &mismatch) {
		t.Errorf("Merge: %v", err)
	}
	st := a.Status()
	if len(st.Findings) != 1 || !strings.Contains(st.Findings[0].Sentences(), mismatch.Theirs.String()) ||
		!strings.Contains(st.Findings[0].Sentences(), "Move ipam.db away") {
		t.Errorf("warnings: %+v", st.Findings)
	}
	if got := a.Lookup("x"); len(got) != 1 || got[0] != l {
		t.Errorf("%+v", got)
	}
	if err := a.Merge(b.State()); err == nil || len(sentences(a.Status())) != 1 {
		t.Errorf("warned twice: %q", sentences(a.Status()))
	}
}

func TestMergeOfAnotherRange(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	b, _ := lone(t, 1, "fd00::/64", "10.32.0.0/24")
	if err := a.Merge(b.State()); !errors.Is(err, ring.ErrRange) {
		t.Errorf("states of a range unknown here: %v", err)
	}
	if met, _ := a.pools[0].bootstrap.Waiting(); met != 2 {
		t.Error("the rest of the message was not merged")
	}
	c, _ := lone(t, 2, "fd00::/64")
	if _, err := c.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	if err := a.Merge(c.State()); !errors.Is(err, ring.ErrRange) {
		t.Errorf("a ring of a range unknown here: %v", err)
	}
}

// TestLostAddressesEndTheirLeases: a node was replaced while it was away (its tokens have another owner, at a higher
// version, and are in use). It stops owning them, ends its leases and warns.
func TestLostAddressesEndTheirLeases(t *testing.T) {
	a, disk := lone(t, 0, "10.32.0.0/24")
	if _, err := a.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	// Another node has a copy of this one's ring, and assigns the lower half to itself.
	b, _ := lone(t, 1, "10.32.0.0/24")
	if err := b.Merge(a.State()); err != nil {
		t.Fatal(err)
	}
	theirs := b.pools[0].ring
	if _, err := theirs.Grant(nodeID(0), nodeID(1), ring.Span{Start: 0, End: 128}, ring.Span.Len); err != nil {
		t.Fatal(err)
	}
	theirs.ReportFree(nodeID(1), func(ring.Span) uint64 { return 5 }, nil)
	deltas, err := merge(a, b.State())
	if err != nil || len(deltas) == 0 {
		t.Fatalf("%d deltas, %v", len(deltas), err)
	}
	if err := a.check(); err != nil {
		t.Error(err)
	}
	lost := a.Lost()
	if st := a.Status(); st.Leases != 0 || len(lost) != 1 || lost[0].Holder != "x" || lost[0].Addr.String() != "10.32.0.1" {
		t.Errorf("%+v, lost %+v", st, lost)
	}
	if state, _ := disk.Load(); len(state.Leases) != 0 {
		t.Errorf("still on disk: %+v", state.Leases)
	}
	if l, err := a.Allocate(t.Context(), "x", whole); err != nil || l.Addr.String() != "10.32.0.128" {
		t.Errorf("%+v, %v", l, err)
	}
	if lost := a.Lost(); len(lost) != 0 {
		t.Errorf("the holder has an address again, and lost %+v", lost)
	}
}

// TestDismissedLease: a lost lease of a holder that is gone for good is forgotten.
func TestDismissedLease(t *testing.T) {
	var lost lostLeases
	for i := range maxLost + 5 {
		lost.add(LostLease{Lease: Lease{Holder: "x", Addr: netip.AddrFrom4([4]byte{10, 32, 0, byte(i)})}})
	}
	if len(lost) != maxLost {
		t.Errorf("%d are kept, want %d", len(lost), maxLost)
	}
	a := &Allocator{lost: lost}
	a.Dismiss("y")
	if len(a.Lost()) != maxLost {
		t.Error("another holder's were dropped")
	}
	a.Dismiss("x")
	if got := a.Lost(); len(got) != 0 {
		t.Errorf("%+v is left", got)
	}
}

func TestStoredLeaseWithoutRangeIsDropped(t *testing.T) {
	a, disk := lone(t, 0, "10.32.0.0/24")
	stray := store.Lease{Holder: "x", Addr: netip.MustParseAddr("10.99.0.1"), In: netip.MustParsePrefix("10.99.0.0/24")}
	if err := disk.Update(func(tx store.Tx) error { return tx.PutLease(stray) }); err != nil {
		t.Fatal(err)
	}
	a, err := New(a.cfg)
	if err != nil || len(a.Leases()) != 0 {
		t.Errorf("%v, %v", a.Leases(), err)
	}
	if state, _ := disk.Load(); len(state.Leases) != 0 {
		t.Errorf("still on disk: %+v", state.Leases)
	}
}

func TestNewRefusesCorruptState(t *testing.T) {
	for name, write := range map[string]func(store.Tx, netip.Prefix) error{
		"ring": func(tx store.Tx, p netip.Prefix) error { return tx.SetRing(p, []byte("x")) },
		"other ring": func(tx store.Tx, p netip.Prefix) error {
			r, _ := ring.New(netip.MustParsePrefix("10.9.0.0/24"))
			return tx.SetRing(p, r.Append(nil))
		},
		"bootstrap state":    func(tx store.Tx, p netip.Prefix) error { return tx.SetBootstrapState(p, []byte("x")) },
		"no bootstrap state": func(tx store.Tx, p netip.Prefix) error { return tx.SetBootstrapState(p, []byte{1, 0}) },
	} {
		a, disk := lone(t, 0, "10.32.0.0/24")
		if err := disk.Update(func(tx store.Tx) error { return write(tx, a.pools[0].prefix) }); err != nil {
			t.Fatal(err)
		}
		if _, err := New(a.cfg); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFailedDiskIsReportedAndNothingIsLeased(t *testing.T) {
	a, disk := lone(t, 0, "10.32.0.0/24")
	if _, err := a.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	disk.OnUpdate(func(int) (bool, bool) { return true, false })
	for range 2 {
		if _, err := a.Allocate(t.Context(), "y", whole); !errors.Is(err, storetest.ErrCrash) {
			t.Errorf("Allocate: %v", err)
		}
	}
	if a.State() != nil {
		t.Error("gossips state that may not be durable")
	}
	if st := a.Status(); len(st.Findings) != 1 || !strings.Contains(st.Findings[0].Sentences(), "could not be written") {
		t.Errorf("%+v", st.Findings)
	}
	disk.OnUpdate(nil)
	disk.Reopen()
	if l, err := a.Allocate(t.Context(), "y", whole); err != nil || l.Addr.String() != "10.32.0.2" {
		t.Errorf("after the repair: %+v, %v", l, err)
	}
}

func TestLateBootstrapNodeIsSentItsTokens(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		n := b.nodes[0]
		cfg := n.config(1, "10.32.0.0/24")
		cfg.Gossip = &recorder{}
		a := n.start(cfg)
		if err := a.Prime(context.Background()); err != nil {
			t.Fatal(err)
		}
		late, _ := lone(t, 1, "10.32.0.0/24")
		states := late.State()
		deltas, err := merge(a, states)
		if err != nil || len(deltas) != 1 {
			t.Fatalf("%d deltas, %v", len(deltas), err)
		}
		if err := late.Merge(deltas[0]); err != nil || !late.pools[0].ring.Bootstrapped() {
			t.Errorf("%v", err)
		}
		if deltas, _ := merge(a, states); len(deltas) != 0 {
			t.Error("sent again at once")
		}
		time.Sleep(announcePause)
		if deltas, _ := merge(a, states); len(deltas) != 1 {
			t.Error("not sent again later")
		}
		synctest.Wait()
	})
}

func TestTheSameRequestIsGrantedOnce(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	if _, err := a.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	nothing := a.pools[0].ring.Select(func(ring.Token) bool { return false }).Append(nil)
	request := unicast{kind: kindRequest, id: 7, low: 0, end: 1 << 40, ring: nothing}
	for range 3 {
		if err := a.Message(nodeID(1), request.encode()); err != nil {
			t.Fatal(err)
		}
	}
	owners := a.Status().Ranges[0].Owners
	if len(owners) != 2 || owners[0].Addresses != 128 {
		t.Errorf("%+v", owners)
	}
	request.id = 8 // a new one, of a node that has not received the first grant: it is sent that one
	if err := a.Message(nodeID(1), request.encode()); err != nil {
		t.Fatal(err)
	}
	if owners := a.Status().Ranges[0].Owners; owners[0].Addresses != 128 {
		t.Errorf("%+v", owners)
	}
	request.id, request.count = 9, 128 // and of one that has
	if err := a.Message(nodeID(1), request.encode()); err != nil {
		t.Fatal(err)
	}
	if owners := a.Status().Ranges[0].Owners; owners[0].Addresses != 64 {
		t.Errorf("%+v", owners)
	}
}

func FuzzMessages(f *testing.F) {
	a, _ := lone(f, 0, "10.32.0.0/24")
	f.Add(a.State())
	if _, err := a.Allocate(context.Background(), "x", whole); err != nil {
		f.Fatal(err)
	}
	f.Add(a.State())
	r := a.pools[0].ring.Append(nil)
	for _, m := range []unicast{
		{kind: kindRequest, id: 1, low: 3, end: 99, ring: r},
		{kind: kindRequest, id: 2, claim: true, low: 3, end: 4, ring: r},
		{kind: kindReply, id: 3, outcome: granted, holder: "x", ring: r},
		{kind: kindHandover, id: 4, ring: r},
	} {
		f.Add(m.encode())
	}
	for _, m := range []reclaimMessage{
		{kind: kindBallot, dead: nodeID(2), ballot: paxos.Ballot{Round: 1, By: nodeID(1)}, ring: r},
		{kind: kindBallot, dead: nodeID(0), ballot: paxos.Ballot{Round: 2, By: nodeID(1)}, newOwner: nodeID(1), ring: r},
		{kind: kindAnswer, dead: nodeID(2), alive: true, state: paxos.Acceptor{Promised: paxos.Ballot{Round: 1, By: nodeID(1)}}, ring: r},
		{kind: kindCommit, dead: nodeID(0), newOwner: nodeID(1), ring: r},
	} {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, _ := lone(t, 0, "10.32.0.0/24")
		if _, err := a.Allocate(context.Background(), "x", whole); err != nil {
			t.Fatal(err)
		}
		deltas, _ := merge(a, msg)
		for _, d := range deltas {
			if len(d) > MaxDelta {
				t.Errorf("a delta of %d bytes", len(d))
			}
		}
		_ = a.Message(nodeID(1), msg)
		if err := a.check(); err != nil {
			t.Error(err)
		}
	})
}

// reentrant is a Gossip with a Broadcast that calls the calling allocator again, and waits for it.
type reentrant struct {
	recorder
	alloc *Allocator
}

func (r *reentrant) Broadcast(delta []byte) {
	r.recorder.Broadcast(delta)
	r.alloc.State()
}

// TestMergeBroadcastsOnce: each token that is new is broadcast once, with nothing locked; a token that is known is not.
func TestMergeBroadcastsOnce(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/16")
	b, _ := lone(t, 1, "10.32.0.0/16")
	if _, err := b.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	r := b.pools[0].ring
	for i := range uint64(300) { // more tokens than one delta holds
		span := ring.Span{Start: 100 * i, End: 100*i + 1}
		if _, err := r.Grant(nodeID(1), nodeID(2), span, ring.Span.Len); err != nil {
			t.Fatal(err)
		}
	}
	gossip := &reentrant{alloc: a}
	a.cfg.Gossip = gossip
	for range 2 {
		if err := a.Merge(b.State()); err != nil {
			t.Fatal(err)
		}
	}
	times := make(map[uint64]int)
	for _, delta := range gossip.sent {
		_, payload, rest, err := cutSection(delta[1:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("%d bytes behind the first section, %v", len(rest), err)
		}
		part, err := ring.Decode(payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range part.Tokens() {
			times[token.Start]++
		}
	}
	for _, token := range r.Tokens() {
		if n := times[token.Start]; n != 1 {
			t.Errorf("token at %d is broadcast %d times, want once", token.Start, n)
		}
	}
	if len(gossip.sent) < 2 || len(times) != r.Len() {
		t.Errorf("%d tokens in %d deltas, want %d in several", len(times), len(gossip.sent), r.Len())
	}
}
