package dns

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"weft/internal/peer"
)

// anyEntries draws entries of a few nodes, names and addresses, so that many contradict one another.
func anyEntries(t *rapid.T, label string) []Entry {
	entry := rapid.Custom(func(t *rapid.T) Entry {
		return Entry{
			Node: peer.ID{byte(rapid.IntRange(2, 4).Draw(t, "node"))}, Name: rapid.SampledFrom([]string{"a", "b", "a.b"}).Draw(t, "name"),
			Addr:    rapid.SampledFrom([]netip.Addr{addr("10.32.0.1"), addr("fd00::1")}).Draw(t, "addr"),
			Version: rapid.Uint64Range(1, 4).Draw(t, "version"), Removed: rapid.Bool().Draw(t, "removed"),
			At: epoch.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "minutes")) * time.Minute),
		}
	})
	return rapid.SliceOfN(entry, 0, 12).Draw(t, label)
}

// merged returns the state of a node that has heard messages in this order.
func merged(t *rapid.T, messages ...[]byte) []byte {
	r, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Now: func() time.Time { return epoch }})
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range messages {
		if err := r.Merge(msg); err != nil {
			t.Fatal(err)
		}
	}
	return r.State()
}

func TestMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := encode(anyEntries(t, "a"), 0, epoch)[0]
		b := encode(anyEntries(t, "b"), 0, epoch)[0]
		c := encode(anyEntries(t, "c"), 0, epoch)[0]
		if !bytes.Equal(merged(t, a, b), merged(t, b, a)) {
			t.Error("not commutative")
		}
		if !bytes.Equal(merged(t, merged(t, a, b), c), merged(t, a, merged(t, b, c))) {
			t.Error("not associative")
		}
		if s := merged(t, a, b); !bytes.Equal(merged(t, s, s, a), s) {
			t.Error("not idempotent")
		}
	})
}

// TestNewsIsEnough passes on news alone: who hears it knows what its teller does.
func TestNewsIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := func() time.Time { return epoch }
		var passed [][]byte
		a, err := NewRegistry(RegistryConfig{
			Self: peer.ID{1}, Now: now, Broadcast: func(msg []byte) { passed = append(passed, msg) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := a.Merge(encode(anyEntries(t, fmt.Sprint(i)), 0, epoch)[0]); err != nil {
				t.Fatal(err)
			}
		}
		b, err := NewRegistry(RegistryConfig{Self: peer.ID{5}, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range passed {
			if err := b.Merge(msg); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := known(b), known(a); !maps.Equal(got, want) {
			t.Errorf("passed on %v, known %v", got, want)
		}
	})
}

// known returns what a registry holds, without the times.
func known(r *Registry) map[id]string {
	m := make(map[id]string)
	for _, of := range r.table.nodes {
		for _, e := range of {
			m[e.id()] = fmt.Sprint(e.Version, e.Removed)
		}
	}
	return m
}

// cluster is some nodes, the messages between them, and beside it a naive model: the set of names of each node.
type cluster struct {
	nodes []*node
	model []map[key]bool
	air   [][]byte
	clock time.Time
}

func newCluster(t *rapid.T) *cluster {
	c := &cluster{clock: epoch}
	for i := range rapid.IntRange(2, 4).Draw(t, "nodes") {
		c.nodes = append(c.nodes, newNode(t, byte(i+1), nil))
		c.model = append(c.model, make(map[key]bool))
	}
	return c
}

func (c *cluster) pick(t *rapid.T) int { return rapid.IntRange(0, len(c.nodes)-1).Draw(t, "node") }

func anyKey(t *rapid.T) key {
	return key{
		rapid.SampledFrom([]string{"a", "b", "a.b"}).Draw(t, "name"),
		netip.AddrFrom4([4]byte{10, 32, 0, byte(rapid.IntRange(1, 3).Draw(t, "addr"))}),
	}
}

// spread puts what nodes have broadcast into the air.
func (c *cluster) spread() {
	for _, n := range c.nodes {
		c.air = append(c.air, n.takeTold()...)
	}
}

// add, remove and release change names of a random node.
func (c *cluster) add(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	must(t, c.nodes[i].Add(k.name, "owner of "+k.addr.String(), k.addr))
	c.model[i][k] = true
	c.spread()
}

func (c *cluster) remove(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	err := c.nodes[i].Remove(k.name, k.addr)
	if (err == nil) != c.model[i][k] {
		t.Fatalf("Remove: %v, of %v", err, c.model[i])
	}
	delete(c.model[i], k)
	c.spread()
}

func (c *cluster) release(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	c.nodes[i].Release("owner of "+k.addr.String(), netip.Addr{})
	maps.DeleteFunc(c.model[i], func(other key, _ bool) bool { return other.addr == k.addr })
	c.spread()
}

// deliver hands a random message to a random node, and may keep it for another time.
func (c *cluster) deliver(t *rapid.T) {
	if len(c.air) == 0 {
		return
	}
	m, i := rapid.IntRange(0, len(c.air)-1).Draw(t, "message"), c.pick(t)
	msg := c.air[m]
	if rapid.Bool().Draw(t, "lost") {
		c.air = slices.Delete(c.air, m, m+1)
	}
	c.air = append(c.air, c.nodes[i].hears(t, msg)...)
}

// exchange lets two nodes exchange whole states.
func (c *cluster) exchange(t *rapid.T) {
	a, b := c.nodes[c.pick(t)], c.nodes[c.pick(t)]
	c.air = append(c.air, b.hears(t, a.State())...)
	c.air = append(c.air, a.hears(t, b.State())...)
}

// restart starts a node again: with what it saved, or with nothing; its clock may be set back.
func (c *cluster) restart(t *rapid.T) {
	i := c.pick(t)
	initial := c.nodes[i].saved
	if rapid.Bool().Draw(t, "state lost") {
		initial = nil
		clear(c.model[i])
	}
	c.nodes[i] = newNode(t, byte(i+1), initial)
	c.nodes[i].now = c.clock.Add(-time.Duration(rapid.IntRange(0, 60).Draw(t, "clock back")) * time.Second)
}

// tick lets a little time pass.
func (c *cluster) tick(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond
	c.clock = c.clock.Add(d)
	for _, n := range c.nodes {
		n.now = n.now.Add(d)
	}
}

// settle lets all exchange states until nothing is new.
func (c *cluster) settle(t *rapid.T) {
	for range 10 {
		isNew := false
		for _, a := range c.nodes {
			for _, b := range c.nodes {
				isNew = len(a.hears(t, b.State())) > 0 || isNew
			}
		}
		if !isNew {
			return
		}
	}
	t.Fatal("nodes still tell each other news")
}

// check compares what all nodes answer with the model.
func (c *cluster) check(t *rapid.T) {
	want := make(map[string]map[netip.Addr]bool)
	for _, m := range c.model {
		for k := range m {
			if want[k.name] == nil {
				want[k.name] = make(map[netip.Addr]bool)
			}
			want[k.name][k.addr] = true
		}
	}
	for i, n := range c.nodes {
		for _, name := range []string{"a", "b", "a.b"} {
			got := n.Lookup(name)
			slices.SortFunc(got, netip.Addr.Compare)
			wanted := slices.SortedFunc(maps.Keys(want[name]), netip.Addr.Compare)
			if !slices.Equal(got, wanted) {
				t.Fatalf("node %d has %s at %v, want %v", i, name, got, wanted)
			}
		}
	}
}

func TestClusterConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"add": c.add, "remove": c.remove, "release": c.release, "deliver": c.deliver, "exchange": c.exchange, "tick": c.tick,
			"restart": c.restart,
		})
		c.settle(rt)
		c.check(rt)
	})
}
