package ipam

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"weft/internal/peer"
	"weft/ipam/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var whole = netip.Prefix{}

// bubble runs test in a synctest bubble, with a bus of n nodes that loses nothing.
func bubble(t *testing.T, n int, test func(t *testing.T, b *bus)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, n, 1)
		defer b.stop()
		test(t, b)
		synctest.Wait()
		b.check()
	})
}

func allocate(t *testing.T, a *Allocator, owner string, in string) Lease {
	t.Helper()
	var prefix netip.Prefix
	if in != "" {
		prefix = netip.MustParsePrefix(in)
	}
	l, err := a.Allocate(context.Background(), owner, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestThreeNodesBootstrapAtTheSameInstant(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/12")
		start := time.Now()
		b.eventually("ready", b.allReady)
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("took %s", took)
		}
		b.eventually("one view", func() bool {
			owners := b.nodes[0].alloc.Status().Ranges[0].Owners
			return len(owners) == 3
		})
		for i, o := range b.nodes[0].alloc.Status().Ranges[0].Owners {
			if o.Addresses < 1<<20/3 || o.Addresses > 1<<20/3+1 || o.ID != nodeID(i) || !o.Reachable {
				t.Errorf("%+v", o)
			}
		}
		seen := make(map[netip.Addr]bool)
		for _, n := range b.nodes {
			l := allocate(t, n.alloc, "x", "")
			if seen[l.Addr] || l.Bits != 12 || l.Prefix().Masked() != netip.MustParsePrefix("10.32.0.0/12") {
				t.Errorf("%+v", l)
			}
			seen[l.Addr] = true
		}
	})
}

func TestBootstrapWaitsForAllNeededNodes(t *testing.T) {
	bubble(t, 3, func(t *testing.T, b *bus) {
		for _, n := range b.nodes[:2] {
			n.start(n.config(3, "10.32.0.0/12"))
		}
		time.Sleep(time.Minute)
		st := b.nodes[0].alloc.Status()
		if st.State != Waiting || !strings.Contains(st.WaitingFor, "2 of 3") {
			t.Errorf("%+v", st)
		}
		start := time.Now()
		_, err := b.nodes[0].alloc.Allocate(context.Background(), "x", whole)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of 3") {
			t.Errorf("Allocate: %v", err)
		}
		if took := time.Since(start); took != patience {
			t.Errorf("took %s", took)
		}
		b.nodes[2].start(b.nodes[2].config(3, "10.32.0.0/12"))
		b.eventually("ready", b.allReady)
	})
}

func TestLazyNodeBootstrapsOnFirstRequest(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		n := b.nodes[0]
		cfg := n.config(1, "10.32.0.0/12", "fd00::/64")
		cfg.Lazy = true
		a := n.start(cfg)
		time.Sleep(time.Minute)
		if st := a.Status(); st.State != Idle || st.WaitingFor != "" || a.Ready() {
			t.Errorf("%+v", st)
		}
		leases, err := a.AllocateAll(context.Background(), "x")
		if err != nil || len(leases) != 2 || leases[0].Prefix().String() != "10.32.0.1/12" || leases[1].Prefix().String() != "fd00::1/64" {
			t.Errorf("%v, %v", leases, err)
		}
		if st := a.Status(); st.State != Ready || st.Leases != 2 || len(st.Ranges) != 2 {
			t.Errorf("%+v", st)
		}
	})
}

func TestPrimeBootstrapsALazyNode(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		cfg := b.nodes[0].config(1, "10.32.0.0/12")
		cfg.Lazy = true
		a := b.nodes[0].start(cfg)
		if err := a.Prime(context.Background()); err != nil || !a.Ready() {
			t.Error(err)
		}
		o := b.nodes[1].start(b.nodes[1].config(0, "10.32.0.0/12")) // an observer gets a share like any other node
		b.pushPull(b.nodes[1], b.nodes[0])
		if err := o.Prime(context.Background()); err != nil || !o.Ready() {
			t.Error(err)
		}
	})
}

func TestObserverAloneWaits(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(0, "10.32.0.0/12"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := a.Prime(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "observer") {
			t.Error(err)
		}
	})
}

func TestJoiningNodeGetsAShareAtOnce(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(1, "10.32.0.0/12"))
		if err := a.Prime(context.Background()); err != nil {
			t.Fatal(err)
		}
		allocate(t, a, "x", "")
		j := b.nodes[1].start(b.nodes[1].config(2, "10.32.0.0/12"))
		b.pushPull(b.nodes[1], b.nodes[0])
		time.Sleep(time.Second)
		synctest.Wait()
		if st := j.Status(); st.State != Ready || len(st.Ranges[0].Owners) != 2 || st.Ranges[0].Owners[1].Addresses != 1<<19 {
			t.Errorf("%+v", st)
		}
		if l := allocate(t, j, "y", ""); l.Addr.String() != "10.40.0.0" {
			t.Errorf("%+v", l)
		}
	})
}

func TestAllocateIsIdempotentByHolderAndRange(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(1, "10.32.0.0/12"))
		first := allocate(t, a, "x", "")
		if again := allocate(t, a, "x", "10.32.0.0/12"); again != first {
			t.Errorf("%+v, then %+v", first, again)
		}
		part := allocate(t, a, "x", "10.33.4.0/24")
		if part.Prefix().String() != "10.33.4.1/24" || part != allocate(t, a, "x", "10.33.4.9/24") {
			t.Errorf("%+v", part)
		}
		if got := a.Lookup("x"); len(got) != 2 || got[0] != first || got[1] != part {
			t.Errorf("%+v", got)
		}
		if got := allocate(t, a, "y", ""); got.Addr.String() != "10.32.0.2" {
			t.Errorf("%+v", got)
		}
		for _, in := range []string{"10.0.0.0/8", "10.48.0.0/24", "10.32.0.0/32", "fd00::/64"} {
			if _, err := a.Allocate(context.Background(), "z", netip.MustParsePrefix(in)); !errors.Is(err, ErrOutside) {
				t.Errorf("in %s: %v", in, err)
			}
		}
		if _, err := a.Allocate(context.Background(), "", whole); err == nil {
			t.Error("an address without a holder")
		}
	})
}

func TestRelease(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		a := b.nodes[0].start(b.nodes[0].config(1, "10.32.0.0/12", "fd00::/64"))
		leases, err := a.AllocateAll(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Release("y", leases[0].Addr); !errors.Is(err, ErrUnknownOwner) {
			t.Error(err)
		}
		if err := a.Release("y", netip.Addr{}); !errors.Is(err, ErrUnknownOwner) {
			t.Error(err)
		}
		if err := a.Release("x", leases[0].Addr); err != nil {
			t.Error(err)
		}
		if got := a.Leases(); len(got) != 1 || got[0] != leases[1] {
			t.Errorf("%+v", got)
		}
		if err := a.Release("x", netip.Addr{}); err != nil || len(a.Leases()) != 0 {
			t.Error(err)
		}
		if l := allocate(t, a, "y", ""); l.Addr != leases[0].Addr {
			t.Errorf("%+v", l)
		}
	})
}

func TestRestartLosesNothing(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/24", "fd00::/64")
		b.eventually("ready", b.allReady)
		n := b.nodes[0]
		if _, err := n.alloc.AllocateAll(context.Background(), "x"); err != nil {
			t.Fatal(err)
		}
		before := n.alloc.Leases()
		n.crash()
		a := n.start(n.config(2, "10.32.0.0/24", "fd00::/64"))
		if !a.Ready() {
			t.Errorf("not ready after the restart: %+v", a.Status())
		}
		after := a.Leases()
		if len(after) != 2 || after[0] != before[0] || after[1] != before[1] {
			t.Errorf("%+v, then %+v", before, after)
		}
		if again := allocate(t, a, "x", ""); again != before[0] {
			t.Errorf("%+v, then %+v", before[0], again)
		}
		if other := allocate(t, a, "y", ""); other.Addr == before[0].Addr {
			t.Errorf("%s twice", other.Addr)
		}
	})
}

func TestNewRefusesStateOfOthers(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := newBus(t, 1, 1)
	cfg := b.nodes[0].config(1, "10.32.0.0/12")
	cfg.Store = s
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Allocate(t.Context(), "x", whole); err != nil {
		t.Fatal(err)
	}
	path := dir + "/" + store.FileName
	cfg.Ranges = []netip.Prefix{netip.MustParsePrefix("10.64.0.0/12")}
	_, err = New(cfg)
	other, ok := errors.AsType[*StoredRangeError](err)
	if !ok {
		t.Fatalf("the state of another range: %v", err)
	}
	for _, word := range []string{path, "10.32.0.0/12", "10.64.0.0/12", "--range 10.32.0.0/12", "move the file away"} {
		if !strings.Contains(other.Error()+other.Hint(), word) {
			t.Errorf("no %s in: %v %s", word, other, other.Hint())
		}
	}
	cfg = b.nodes[0].config(1, "10.32.0.0/12")
	cfg.Store, cfg.Self = s, peer.ID{9}
	if _, err = New(cfg); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), nodeID(0).String()) {
		t.Errorf("state of another node: %v", err)
	}
	cfg.Self, cfg.Ranges = nodeID(0), append(cfg.Ranges, netip.MustParsePrefix("fd00::/64"))
	if _, err = New(cfg); err != nil {
		t.Errorf("with one more range: %v", err)
	}
}

func TestValidate(t *testing.T) {
	b := newBus(t, 1, 1)
	for field, edit := range map[string]func(*Config){
		"Self":      func(c *Config) { c.Self = peer.ID{} },
		"Ranges":    func(c *Config) { c.Ranges = nil },
		"InitPeers": func(c *Config) { c.InitPeers = -1 },
		"Store":     func(c *Config) { c.Store = nil },
		"Gossip":    func(c *Config) { c.Gossip = nil },
		"overlaps":  func(c *Config) { c.Ranges = append(c.Ranges, netip.MustParsePrefix("10.40.0.0/16")) },
		"not an":    func(c *Config) { c.Ranges = []netip.Prefix{{}} },
	} {
		cfg := b.nodes[0].config(1, "10.32.0.0/12")
		edit(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
