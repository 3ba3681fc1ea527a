package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestClaim(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("ready", b.allReady)
		x, y := b.nodes[0].alloc, b.nodes[1].alloc
		claim := func(a *Allocator, owner, addr string) (Lease, error) {
			return a.Claim(context.Background(), owner, netip.MustParseAddr(addr))
		}
		l, err := claim(x, "a", "10.32.0.5")
		if err != nil || l.Bits != 24 {
			t.Errorf("own address: %+v, %v", l, err)
		}
		if again, err := claim(x, "a", "10.32.0.5"); err != nil || again != l {
			t.Errorf("again: %+v, %v", again, err)
		}
		if got := allocate(t, x, "a", ""); got != l {
			t.Errorf("allocated a second address: %+v", got)
		}
		if _, err := claim(x, "b", "10.32.0.5"); !errors.Is(err, ErrLeased) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("of another holder: %v", err)
		}
		if _, err := claim(y, "b", "10.32.0.5"); !errors.Is(err, ErrLeased) || !strings.Contains(err.Error(), `"a" on node na`) {
			t.Errorf("of another holder on another node: %v", err)
		}
		if l, err := claim(y, "b", "10.32.0.77"); err != nil || l.Addr.String() != "10.32.0.77" {
			t.Errorf("of another node: %+v, %v", l, err)
		}
		for _, addr := range []string{"10.32.0.0", "10.32.0.255", "10.33.0.1", "fd00::1"} {
			if _, err := claim(x, "b", addr); !errors.Is(err, ErrOutside) {
				t.Errorf("%s: %v", addr, err)
			}
		}
		b.nodes[0].crash()
		_, err = claim(y, "b", "10.32.0.78")
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "node na") {
			t.Errorf("of a node that is away: %v", err)
		}
		away, ok := errors.AsType[*UnreachableError](err)
		if !ok || away.Owner != nodeID(0) || !strings.Contains(away.Hint(), "`weft reclaim na`") {
			t.Errorf("%v without the remedy", err)
		}
	})
}

// TestShares: the prefixes of all nodes cover the range, and each address is in that of its owner.
func TestShares(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("ready", b.allReady)
		allocate(t, b.nodes[0].alloc, "a", "")
		shares := b.nodes[1].alloc.Shares()
		for last := range 256 {
			addr := netip.AddrFrom4([4]byte{10, 32, 0, byte(last)})
			owner, _ := b.nodes[1].alloc.OwnerOf(addr)
			for id, list := range shares {
				if has := slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) }); has != (id == owner) {
					t.Errorf("%s of %s is in the share of %s: %v", addr, owner, id, has)
				}
			}
		}
	})
}

func TestConcurrentAllocationsShareOneRequest(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("ready", b.allReady)
		requests := 0
		b.unicast = func(from, to int) {
			if from == 1 {
				requests++
			}
		}
		// The first node owns all of 10.32.0.0/27.
		got := make(chan Lease, 10)
		for i := range 10 {
			go func() {
				l, err := b.nodes[1].alloc.Allocate(context.Background(), string(rune('a'+i)), netip.MustParsePrefix("10.32.0.0/27"))
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
		}
		seen := make(map[netip.Addr]bool)
		for range 10 {
			l := <-got
			if seen[l.Addr] {
				t.Errorf("%s twice", l.Addr)
			}
			seen[l.Addr] = true
		}
		if requests != 1 {
			t.Errorf("%d requests", requests)
		}
	})
}

func TestExhaustionIsReportedAtOnceAndInFull(t *testing.T) {
	bubble(t, 4, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/26") // 62 addresses
		b.eventually("ready", b.allReady)
		for i := range 62 {
			allocate(t, b.nodes[i%4].alloc, string(rune('A'+i)), "")
		}
		time.Sleep(20 * time.Second)
		start := time.Now()
		_, err := b.nodes[2].alloc.Allocate(context.Background(), "one more", whole)
		if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "10.32.0.0/26 is full: 62 of 62 addresses leased") {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if err := b.nodes[0].alloc.Release("A", netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		allocate(t, b.nodes[2].alloc, "one more", "") // the only free address, on any node
		b.nodes[0].crash()
		b.nodes[1].crash()
		_, err = b.nodes[2].alloc.Allocate(context.Background(), "and one more", whole)
		if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "2 owners unreachable (na, nb)") {
			t.Errorf("%v", err)
		}
		full, ok := errors.AsType[*ExhaustedError](err)
		if !ok || !strings.Contains(full.Hint(), "Wait for the unreachable nodes, or run `weft reclaim NODE`") {
			t.Errorf("%v without the remedy", err)
		}
	})
}

func TestSilentOwnersDoNotBlock(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/29")
		b.eventually("informed", b.allInformed)
		b.silent = 1
		a := b.nodes[0].alloc
		for i := range ownFree(t, a) { // late bootstrap nodes may have got a part of its share
			allocate(t, a, string(rune('a'+i)), "")
		}
		start := time.Now()
		_, err := a.Allocate(context.Background(), "z", whole)
		if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "2 owners gave no answer (nb, nc)") {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took > 2*answerPatience {
			t.Errorf("took %s", took)
		}
	})
}

// ownFree returns how many addresses of its first range a node can allocate without another node.
func ownFree(t *testing.T, a *Allocator) uint64 {
	t.Helper()
	for _, o := range a.Status().Ranges[0].Owners {
		if o.ID == a.cfg.Self {
			return o.Free
		}
	}
	t.Fatal("the node owns no addresses")
	return 0
}

func TestLeaveHandsEverythingOverToOneNode(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("ready", b.allReady)
		leaver := b.nodes[0].alloc
		allocate(t, leaver, "x", "")
		newOwner, dropped, err := leaver.Leave(context.Background())
		if err != nil || dropped != 1 || newOwner.IsZero() || newOwner == leaver.cfg.Self {
			t.Fatalf("%s, %d, %v", newOwner, dropped, err)
		}
		if _, err := leaver.Allocate(context.Background(), "y", whole); !errors.Is(err, ErrLeft) {
			t.Errorf("Allocate after Leave: %v", err)
		}
		for _, o := range b.find(newOwner).alloc.Status().Ranges[0].Owners {
			if o.ID == leaver.cfg.Self || o.ID == newOwner && o.Addresses < 170 {
				t.Errorf("%+v", o)
			}
		}
		// When it is started again it joins like a new node.
		b.nodes[0].crash()
		b.nodes[0].start(b.nodes[0].config(3, "10.32.0.0/24"))
		b.eventually("ready", b.allReady)
	})
}

// TestShareIsRequestedAgain: a node that starts while it reaches no owner gets a share soon after it reaches them.
func TestShareIsRequestedAgain(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("informed", b.allInformed)
		late := b.nodes[0]
		if _, _, err := late.alloc.Leave(context.Background()); err != nil {
			t.Fatal(err)
		}
		late.crash()
		b.isolate(late)
		a := late.start(late.config(3, "10.32.0.0/24"))
		time.Sleep(time.Second) // it has requested one
		if owned := len(a.pools[0].space.Owned()); owned != 0 || !a.Ready() {
			t.Errorf("owns %d ranges, ready: %t; want ready without any", owned, a.Ready())
		}
		b.isolate()
		time.Sleep(4 * time.Second) // less than exhaustedPause
		if ownFree(t, a) == 0 {
			t.Error("no share")
		}
	})
}

func TestPausesOfRequestsForAShare(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	silent := &ExhaustedError{Unreachable: []string{"na"}}
	var s firstShare
	for _, want := range []time.Duration{2, 4, 8, 16, 30, 30} {
		if s = s.after(silent, now); s.due != now.Add(want*time.Second) || !s.exhausted {
			t.Errorf("due after %v, want %ds", s.due.Sub(now), want)
		}
	}
	if s = s.after(nil, now); !s.due.IsZero() || !s.exhausted {
		t.Errorf("after a share: %+v", s)
	}
	if s = s.after(&ExhaustedError{}, now); s.due != now.Add(exhaustedPause) {
		t.Errorf("where all have replied: %+v", s)
	}
}

func TestLeaveAlone(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("informed", b.allInformed)
		b.nodes[1].crash()
		a := b.nodes[0].alloc
		allocate(t, a, "x", "")
		if _, _, err := a.Leave(context.Background()); !errors.Is(err, ErrNoNewOwner) || !strings.Contains(err.Error(), "nb") {
			t.Errorf("%v", err)
		}
		allocate(t, a, "y", "") // nothing has changed
	})
	bubble(t, 1, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24")
		b.eventually("ready", b.allReady)
		allocate(t, b.nodes[0].alloc, "x", "")
		if newOwner, dropped, err := b.nodes[0].alloc.Leave(context.Background()); err != nil || !newOwner.IsZero() || dropped != 1 {
			t.Errorf("%s, %d, %v", newOwner, dropped, err)
		}
	})
}
