package simnet

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:6784")
	addrB = netip.MustParseAddrPort("192.0.2.2:6784")
)

func listen(t *testing.T, n *Network, addr netip.AddrPort) *Conn {
	t.Helper()
	c, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConformance(t *testing.T) {
	for name, merge := range map[string]bool{"single": false, "merging": true} {
		t.Run(name, func(t *testing.T) {
			underlaytest.TestConn(t, func(t *testing.T) underlaytest.Pair {
				n := New(1)
				n.SetMerge(merge)
				return underlaytest.Pair{A: listen(t, n, addrA), B: listen(t, n, addrB), AddrA: addrA, AddrB: addrB}
			})
		})
	}
}

// TestMerge: datagrams are merged whenever a kernel could merge them, and only then.
func TestMerge(t *testing.T) {
	n := New(1)
	n.SetMerge(true)
	a, b, other := listen(t, n, addrA), listen(t, n, addrB), listen(t, n, netip.AddrPortFrom(addrA.Addr(), 1))
	one := func(c *Conn, size, segment int) {
		t.Helper()
		d := underlay.Datagram{Addr: addrB, Buf: make([]byte, size), SegmentSize: segment}
		if _, err := c.WriteBatch([]underlay.Datagram{d}); err != nil {
			t.Fatal(err)
		}
	}
	one(a, 250, 100)
	one(a, 50, 0) // behind one that is shorter than the others
	one(other, 50, 0)
	one(other, 60, 0)
	one(other, 0, 0)
	one(a, 100*1400, 1400)
	batch := make([]underlay.Datagram, 10)
	for i := range batch {
		batch[i].Buf = make([]byte, 1<<16)
	}
	count, err := underlaytest.Read(b, batch)
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]int
	for _, d := range batch[:count] {
		got = append(got, [2]int{len(d.Buf), d.SegmentSize})
	}
	want := [][2]int{{250, 100}, {50, 0}, {50, 0}, {60, 0}, {0, 0}, {46 * 1400, 1400}, {46 * 1400, 1400}, {8 * 1400, 1400}}
	if !slices.Equal(got, want) {
		t.Errorf("lengths and segment sizes %v, want %v", got, want)
	}
}

// number sends numbered datagrams from a to b.
func number(t *testing.T, a *Conn, count int) {
	t.Helper()
	for i := range count {
		if _, err := a.WriteBatch([]underlay.Datagram{{Addr: addrB, Buf: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// drain returns the numbers that b has received after a minute.
func drain(t *testing.T, b *Conn) (got []byte) {
	t.Helper()
	time.Sleep(time.Minute) // of synctest
	batch := make([]underlay.Datagram, 16)
	for i := range batch {
		batch[i].Buf = make([]byte, 8)
	}
	for {
		n, _ := b.receiveDue(batch)
		if n == 0 {
			return got
		}
		for _, d := range batch[:n] {
			got = append(got, d.Buf[0])
		}
	}
}

// run sends 200 datagrams over a link and returns those that arrive.
func run(t *testing.T, seed uint64, l Link) (got []byte, stats Stats) {
	synctest.Test(t, func(t *testing.T) {
		n := New(seed)
		n.SetDefault(l)
		a, b := listen(t, n, addrA), listen(t, n, addrB)
		number(t, a, 200)
		got, stats = drain(t, b), n.Stats()
	})
	return got, stats
}

func TestImpairments(t *testing.T) {
	perfect, _ := run(t, 1, Link{})
	if len(perfect) != 200 || !slices.IsSorted(perfect) {
		t.Fatalf("a perfect link delivers %v", perfect)
	}
	for _, tt := range []struct {
		name string
		link Link
		ok   func([]byte, Stats) bool
	}{
		{"loss", Link{Loss: 0.3}, func(got []byte, s Stats) bool {
			return len(got) < 180 && len(got) > 100 && int(s.Lost)+len(got) == 200
		}},
		{"duplicates", Link{Duplicate: 0.3}, func(got []byte, _ Stats) bool {
			return len(got) > 220 && len(slices.Compact(got)) == 200
		}},
		{"reordering", Link{Latency: time.Millisecond, Reorder: 0.3, Delay: time.Millisecond}, func(got []byte, _ Stats) bool {
			return len(got) == 200 && !slices.IsSorted(got)
		}},
		{"jitter", Link{Latency: time.Millisecond, Jitter: time.Millisecond}, func(got []byte, _ Stats) bool {
			return len(got) == 200 && !slices.IsSorted(got)
		}},
		{"MTU that fits", Link{MTU: 29}, func(got []byte, _ Stats) bool { return len(got) == 200 }},
		{"MTU", Link{MTU: 28}, func(got []byte, s Stats) bool { return len(got) == 0 && s.TooLarge == 200 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, stats := run(t, 7, tt.link)
			again, _ := run(t, 7, tt.link)
			if !slices.Equal(got, again) {
				t.Error("the same seed has another outcome")
			}
			if !tt.ok(slices.Clone(got), stats) {
				t.Errorf("got %d: %v, %+v", len(got), got, stats)
			}
		})
	}
}

// TestLatency: a reader waits until the datagram is due, and not longer.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := listen(t, n, addrA), listen(t, n, addrB)
		n.SetLink(addrA.Addr(), addrB.Addr(), Link{Latency: 30 * time.Millisecond})
		start := time.Now()
		number(t, a, 1)
		if _, err := underlaytest.Read(b, []underlay.Datagram{{Buf: make([]byte, 8)}}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 30*time.Millisecond {
			t.Errorf("took %v, want 30ms", took)
		}
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := listen(t, n, addrA), listen(t, n, addrB)
		n.Partition([]netip.Addr{addrA.Addr()}, []netip.Addr{addrB.Addr()})
		number(t, a, 3)
		if got := drain(t, b); len(got) != 0 || n.Stats().Cut != 3 {
			t.Errorf("through a partition: %v", got)
		}
		n.Heal()
		number(t, a, 3)
		if got := drain(t, b); len(got) != 3 {
			t.Errorf("after Heal: %v", got)
		}
	})
}

// TestBlock: a firewall drops what comes from a socket and what goes to it, and nothing else.
func TestBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := listen(t, n, addrA), listen(t, n, addrB)
		for _, socket := range []netip.AddrPort{addrA, addrB} {
			n.Block(socket, true)
			number(t, a, 3)
			if got := drain(t, b); len(got) != 0 {
				t.Errorf("%s is blocked: %v", socket, got)
			}
			n.Block(socket, false)
		}
		n.BlockPath(addrB, addrA, true)
		number(t, a, 3)
		if got := drain(t, b); len(got) != 3 {
			t.Errorf("the way back is blocked: %v", got)
		}
		n.BlockPath(addrA, addrB, true)
		number(t, a, 3)
		if got := drain(t, b); len(got) != 0 {
			t.Errorf("the path is blocked: %v", got)
		}
		n.BlockPath(addrA, addrB, false)
		n.Block(netip.AddrPortFrom(addrA.Addr(), addrA.Port()+1), true)
		number(t, a, 3)
		if got := drain(t, b); len(got) != 3 || n.Stats().Blocked != 9 {
			t.Errorf("not blocked: %v, %d blocked", got, n.Stats().Blocked)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := listen(t, n, addrA), listen(t, n, addrB)
		if _, err := n.Listen(addrA); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second socket: %v", err)
		}
		number(t, a, depth+10)
		if got := drain(t, b); len(got) != depth || n.Stats().Overflowed != 10 {
			t.Errorf("%d received, %+v", len(got), n.Stats())
		}
		b.Close()
		number(t, a, 1)
		if n.Stats().NoSocket != 1 {
			t.Errorf("to a closed socket: %+v", n.Stats())
		}
		if c := listen(t, n, netip.AddrPortFrom(addrB.Addr(), 0)); c.LocalAddr().Port() == 0 {
			t.Error("no port was chosen")
		}
	})
}
