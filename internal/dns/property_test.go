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

// anyEntries draws entries of a few nodes, names and addresses, so that many of them contradict one another.
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

// merged returns the state of a node that has received messages in this order.
func merged(t *rapid.T, messages ...[]byte) []byte {
	r, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Domain: testDomain, Clock: fixedClock{}})
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

// TestBroadcastsAreEnough: a node that receives only the broadcasts of another one has the same entries.
func TestBroadcastsAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent [][]byte
		a, err := NewRegistry(RegistryConfig{
			Domain: testDomain,
			Self:   peer.ID{1}, Clock: fixedClock{}, Gossip: gossipFunc(func(msg []byte) { sent = append(sent, msg) }),
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := a.Merge(encode(anyEntries(t, fmt.Sprint(i)), 0, epoch)[0]); err != nil {
				t.Fatal(err)
			}
		}
		b, err := NewRegistry(RegistryConfig{Self: peer.ID{5}, Domain: testDomain, Clock: fixedClock{}})
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range sent {
			if err := b.Merge(msg); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := entriesIn(b), entriesIn(a); !maps.Equal(got, want) {
			t.Errorf("received %v, want %v", got, want)
		}
	})
}

// entriesIn returns the entries of a registry without their times.
func entriesIn(r *Registry) map[id]string {
	m := make(map[id]string)
	for _, ofNode := range r.table.nodes {
		for _, e := range ofNode {
			m[e.id()] = fmt.Sprint(e.Version, e.Removed)
		}
	}
	return m
}

// cluster is some nodes and the messages between them, with a naive model: the set of names of each node.
type cluster struct {
	nodes []*node
	model []map[key]bool // false: withdrawn
	sent  [][]byte       // messages that may still arrive
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

// collectSent collects the broadcasts of all nodes.
func (c *cluster) collectSent() {
	for _, n := range c.nodes {
		c.sent = append(c.sent, n.takeSent()...)
	}
}

// add, remove and release change names of a random node.
func (c *cluster) add(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	must(t, c.nodes[i].Add(k.name, "owner of "+k.addr.String(), k.addr))
	c.model[i][k] = true
	c.collectSent()
}

func (c *cluster) remove(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	err := c.nodes[i].Remove(k.name, k.addr)
	if _, has := c.model[i][k]; (err == nil) != has {
		t.Fatalf("Remove: %v, of %v", err, c.model[i])
	}
	delete(c.model[i], k)
	c.collectSent()
}

func (c *cluster) release(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	c.nodes[i].Release("owner of "+k.addr.String(), netip.Addr{})
	maps.DeleteFunc(c.model[i], func(other key, _ bool) bool { return other.addr == k.addr })
	c.collectSent()
}

// withdraw and restore change whether the names of a holder are answered.
func (c *cluster) withdraw(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	c.nodes[i].Withdraw("owner of " + k.addr.String())
	c.setAnswered(i, k.addr, false)
}

func (c *cluster) restore(t *rapid.T) {
	i, k := c.pick(t), anyKey(t)
	must(t, c.nodes[i].Restore("owner of "+k.addr.String()))
	c.setAnswered(i, k.addr, true)
}

func (c *cluster) setAnswered(i int, a netip.Addr, answered bool) {
	for k := range c.model[i] {
		if k.addr == a {
			c.model[i][k] = answered
		}
	}
	c.collectSent()
}

// deliver delivers a random message to a random node, and may keep it to be delivered again.
func (c *cluster) deliver(t *rapid.T) {
	if len(c.sent) == 0 {
		return
	}
	m, i := rapid.IntRange(0, len(c.sent)-1).Draw(t, "message"), c.pick(t)
	msg := c.sent[m]
	if rapid.Bool().Draw(t, "lost") {
		c.sent = slices.Delete(c.sent, m, m+1)
	}
	c.sent = append(c.sent, c.nodes[i].receive(t, msg)...)
}

// exchange exchanges full states between two nodes.
func (c *cluster) exchange(t *rapid.T) {
	a, b := c.nodes[c.pick(t)], c.nodes[c.pick(t)]
	c.sent = append(c.sent, b.receive(t, a.State())...)
	c.sent = append(c.sent, a.receive(t, b.State())...)
}

// restart restarts a node with its saved state or without any; its clock may be set back.
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

// tick advances all clocks a little.
func (c *cluster) tick(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond
	c.clock = c.clock.Add(d)
	for _, n := range c.nodes {
		n.now = n.now.Add(d)
	}
}

// converge exchanges states between all nodes until nothing is new.
func (c *cluster) converge(t *rapid.T) {
	for range 10 {
		changed := false
		for _, a := range c.nodes {
			for _, b := range c.nodes {
				changed = len(a.receive(t, b.State())) > 0 || changed
			}
		}
		if !changed {
			return
		}
	}
	t.Fatal("the nodes still send each other changes")
}

// check compares the answers of all nodes with the model.
func (c *cluster) check(t *rapid.T) {
	want := make(map[string]map[netip.Addr]bool)
	for _, m := range c.model {
		for k, answered := range m {
			if !answered {
				continue
			}
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
			"restart": c.restart, "withdraw": c.withdraw, "restore": c.restore,
		})
		c.converge(rt)
		c.check(rt)
	})
}
