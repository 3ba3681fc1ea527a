package fdb

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weft/internal/ether"
	"weft/internal/peer"
)

var start = time.Unix(1_700_000_000, 0)

// mac returns the nth unicast address.
func mac(n int) (a ether.Addr) {
	a[0] = 0x0a
	binary.BigEndian.PutUint32(a[2:], uint32(n))
	return a
}

// TestElsewhere: only addresses that are known behind others are returned.
func TestElsewhere(t *testing.T) {
	table := New(10, time.Minute, start)
	for n, where := range []peer.ID{{1}, {2}, {}} {
		table.Learn(mac(n), where, start)
	}
	table.Learn(mac(3), peer.ID{2}, start.Add(-time.Hour))
	got := table.Elsewhere([]ether.Addr{mac(0), mac(1), mac(2), mac(3), mac(4)}, peer.ID{1}, start)
	if want := []ether.Addr{mac(1), mac(2)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNeverLearned(t *testing.T) {
	table := New(16, time.Minute, start)
	for _, a := range []ether.Addr{{}, ether.Broadcast, {0x33, 0x33, 0, 0, 0, 1}} {
		if table.Learn(a, peer.ID{1}, start); table.Len() != 0 {
			t.Errorf("%s was learned", a)
		}
	}
}

func TestFull(t *testing.T) {
	table := New(4, time.Minute, start)
	for n := range 6 {
		table.Learn(mac(n), peer.ID{1}, start)
	}
	if table.Len() != 4 || table.Refused() != 2 {
		t.Fatalf("%d entries, %d refused; want 4 and 2", table.Len(), table.Refused())
	}
	if moved := table.Learn(mac(3), peer.ID{2}, start); !moved {
		t.Error("a full table does not let an address move")
	}
	table.Age(start.Add(time.Minute))
	if table.Learn(mac(5), peer.ID{1}, start.Add(time.Minute)); table.Len() != 1 {
		t.Errorf("%d entries after aging, want 1", table.Len())
	}
}

// TestPeerWithManyAddresses: a peer that sends from more addresses than the table holds loses its own ones, and displaces no
// other peer's.
func TestPeerWithManyAddresses(t *testing.T) {
	const limit = 64
	table := New(limit, time.Minute, start)
	hostile, early, late := peer.ID{1}, peer.ID{2}, peer.ID{3}
	learn := func(first, n int, where peer.ID) {
		for i := range n {
			table.Learn(mac(first+i), where, start)
		}
	}
	learn(0, 10, early)
	learn(1000, 10*limit, hostile)
	learn(100, 10, late) // the table is full
	learn(2000, 10*limit, hostile)
	learn(200, 2, peer.ID{}) // pods of this host
	learn(3000, 10*limit, hostile)
	for _, known := range []struct {
		first, n int
		where    peer.ID
	}{{0, 10, early}, {100, 10, late}, {200, 2, peer.ID{}}} {
		for i := range known.n {
			if where, ok := table.Lookup(mac(known.first+i), start); !ok || where != known.where {
				t.Errorf("address %d of %v: %v, %t", i, known.where, where, ok)
			}
		}
	}
	if table.Len() != limit || table.counts[binary.BigEndian.Uint64(hostile[:])] != limit-22 {
		t.Errorf("%d entries, %v", table.Len(), table.counts)
	}
	learn(5000, limit, late) // neither has more than half of what the others leave
	if table.Len() != limit {
		t.Errorf("%d entries", table.Len())
	}
	for _, where := range []peer.ID{hostile, early, late, {}} {
		table.Forget(where)
	}
	if table.Len() != 0 || len(table.counts) != 0 {
		t.Errorf("%d entries, %v after all are forgotten", table.Len(), table.counts)
	}
}

// model is a simple table for one goroutine.
type model map[ether.Addr]sighting

type sighting struct {
	where peer.ID
	seen  time.Time
}

const modelAge = 10 * time.Second

func (m model) fresh(a ether.Addr, now time.Time) bool {
	e, ok := m[a]
	return ok && now.Sub(e.seen) < modelAge
}

func (m model) entries(now time.Time) []Entry {
	entries := []Entry{}
	for _, a := range slices.SortedFunc(maps.Keys(m), func(a, b ether.Addr) int { return slices.Compare(a[:], b[:]) }) {
		if m.fresh(a, now) {
			entries = append(entries, Entry{MAC: a, Peer: m[a].where, Age: now.Sub(m[a].seen)})
		}
	}
	return entries
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, want, now := New(64, modelAge, start), model{}, start
		drawMAC := func(t *rapid.T) ether.Addr { return mac(rapid.IntRange(0, 12).Draw(t, "mac")) }
		drawPeer := func(t *rapid.T) peer.ID { return peer.ID{rapid.Byte().Draw(t, "peer") % 4} }
		t.Repeat(map[string]func(*rapid.T){
			"learn": func(t *rapid.T) {
				a, where := drawMAC(t), drawPeer(t)
				wantMoved := want.fresh(a, now) && want[a].where != where
				if moved := table.Learn(a, where, now); moved != wantMoved {
					t.Fatalf("Learn(%s, %s) = %v, want %v", a, where, moved, wantMoved)
				}
				want[a] = sighting{where, now}
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "s")) * time.Second) },
			"age": func(*rapid.T) {
				table.Age(now)
				maps.DeleteFunc(want, func(a ether.Addr, _ sighting) bool { return !want.fresh(a, now) })
				if table.Len() != len(want) {
					t.Fatalf("%d entries after aging, want %d", table.Len(), len(want))
				}
			},
			"forget": func(t *rapid.T) {
				where := drawPeer(t)
				table.Forget(where)
				maps.DeleteFunc(want, func(_ ether.Addr, s sighting) bool { return s.where == where })
			},
			"": func(t *rapid.T) {
				a := drawMAC(t)
				where, ok := table.Lookup(a, now)
				if ok != want.fresh(a, now) || ok && where != want[a].where {
					t.Fatalf("Lookup(%s) = %s, %v", a, where, ok)
				}
				if diff := cmp.Diff(want.entries(now), table.Entries(now)); diff != "" {
					t.Fatalf("entries (-want +got):\n%s", diff)
				}
				counted := 0
				for _, n := range table.counts {
					counted += n
				}
				if table.Len() != len(want) || counted != len(want) {
					t.Fatalf("Len = %d, %d counted by peer, want %d", table.Len(), counted, len(want))
				}
			},
		})
	})
}

// TestConcurrent is for the race detector. At the end, the length must agree with the chains.
func TestConcurrent(t *testing.T) {
	table := New(64, time.Second, start)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 4000 {
				now := start.Add(time.Duration(n) * 2 * time.Millisecond)
				table.Learn(mac((n*7+g)%100), peer.ID{byte(g)}, now)
				table.Lookup(mac(n%100), now)
				switch {
				case n%97 == 0:
					table.Age(now)
				case n%89 == 0:
					table.Forget(peer.ID{byte(g)})
				case n%83 == 0:
					table.Entries(now)
				}
			}
		})
	}
	wg.Wait()
	if inChains := len(table.Entries(start)); inChains != table.Len() || table.Len() > 64 {
		t.Errorf("Len = %d, in the chains %d, limit 64", table.Len(), inChains)
	}
}

func TestNoAllocation(t *testing.T) {
	table := New(DefaultLimit, time.Hour, start)
	table.Learn(mac(1), peer.ID{1}, start)
	now := start
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		table.Learn(mac(1), peer.ID{1}, now)
		table.Lookup(mac(1), now)
		table.Lookup(mac(2), now)
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkLookup(b *testing.B) { benchmark(b, func(t *Table, n int) { t.Lookup(mac(n), start) }) }

func BenchmarkRefresh(b *testing.B) {
	benchmark(b, func(t *Table, n int) { t.Learn(mac(n), peer.ID{1}, start) })
}

// benchmark runs f from as many goroutines as there are processors over a table of 10,000 entries.
func benchmark(b *testing.B, f func(*Table, int)) {
	table := New(DefaultLimit, DefaultAge, start)
	for n := range 10000 {
		table.Learn(mac(n), peer.ID{1}, start)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			f(table, n%10000)
		}
	})
}
