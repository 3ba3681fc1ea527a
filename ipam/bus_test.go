package ipam

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/ipam/store/storetest"
)

// bus is gossip in memory: it loses, repeats, delays and reorders messages. Use it within a synctest bubble. Its
// randomness comes from its seed, and no two things begin at one instant, so a seed can be replayed.
type bus struct {
	t    *testing.T
	seed uint64
	mu   sync.Mutex
	// Guarded by mu.
	rng     *rand.Rand
	nodes   []*node
	loss    float64            // of broadcasts
	repeat  float64            // of all messages
	silent  float64            // of unicasts that are lost without an error
	cut     map[peer.ID]bool   // nodes on the other side of a partition
	oneWay  map[[2]int]bool    // from which node to which nothing arrives, without an error
	awaited map[peer.ID]bool   // nodes that may be reachable again soon, as nodes see it
	away    map[peer.ID]bool   // nodes that are no members: they have left, or were removed
	sent    int                // messages
	stopped bool               // nothing is delivered any more
	unicast func(from, to int) // called for every unicast that is sent; may be nil
}

// node is one allocator and its disk, over several runs.
type node struct {
	bus    *bus
	index  int
	id     peer.ID
	disk   *storetest.Memory
	starts atomic.Uint64 // how often it was started

	// Guarded by bus.mu.
	alive  bool
	alloc  *Allocator
	cancel context.CancelFunc
	ended  chan struct{}
}

func nodeID(i int) peer.ID { return peer.ID{byte((i + 1) >> 8), byte(i + 1)} }

// newBus returns a bus with n nodes, not started.
func newBus(t *testing.T, n int, seed uint64) *bus {
	b := &bus{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)),
		cut: make(map[peer.ID]bool), oneWay: make(map[[2]int]bool), away: make(map[peer.ID]bool),
	}
	for i := range n {
		b.nodes = append(b.nodes, &node{bus: b, index: i, id: nodeID(i), disk: storetest.NewMemory()})
	}
	return b
}

// config returns the configuration of a node in a network of initPeers bootstrap nodes.
func (n *node) config(initPeers int, ranges ...string) Config {
	starts := n.starts.Add(1)
	return Config{
		Rand:       rand.NewPCG(n.bus.seed, uint64(n.index)<<32+starts),
		Self:       n.id,
		InitPeers:  initPeers,
		Store:      n.disk.Reopen(),
		Gossip:     endpoint{n},
		Membership: view{n},
		Ranges:     prefixes(ranges...),
	}
}

// prefixes parses ranges.
func prefixes(ranges ...string) (parsed []netip.Prefix) {
	for _, r := range ranges {
		parsed = append(parsed, netip.MustParsePrefix(r))
	}
	return parsed
}

// view is the Membership of a node.
type view struct{ node *node }

func (v view) Reachable(id peer.ID) bool { return v.node.bus.reachable(v.node, id) }
func (v view) Awaited(id peer.ID) bool {
	v.node.bus.mu.Lock()
	defer v.node.bus.mu.Unlock()
	return v.node.bus.awaited[id]
}
func (v view) Members() []peer.ID     { return v.node.bus.members() }
func (v view) Name(id peer.ID) string { return "n" + string(rune('a'+v.node.bus.find(id).index)) }

// start creates an allocator from the disk and runs it.
func (n *node) start(cfg Config) *Allocator {
	n.bus.t.Helper()
	a, err := New(cfg)
	if err != nil {
		n.bus.t.Fatal(err)
	}
	n.launch(a)
	return a
}

// launch runs a as the node.
func (n *node) launch(a *Allocator) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	n.bus.mu.Lock()
	n.alive, n.alloc, n.cancel, n.ended = true, a, cancel, ended
	n.bus.mu.Unlock()
	dice := n.dice("start", nil)
	begin, joinAt := within(dice, time.Millisecond), within(dice, 10*time.Second)
	go func() {
		defer close(ended)
		time.Sleep(begin)
		_ = a.Run(ctx) // a crashed disk
	}()
	go func() {
		time.Sleep(joinAt)
		n.exchange(ctx, a)
	}()
}

// crash ends a node at once; state that is not on its disk is lost.
func (n *node) crash() {
	n.bus.mu.Lock()
	n.alive = false
	n.bus.mu.Unlock()
	_ = n.disk.Close()
	n.cancel()
	<-n.ended
}

// stop ends all nodes, so that the bubble can end.
func (b *bus) stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	for _, n := range b.nodes {
		if n.cancel != nil {
			n.cancel()
			<-n.ended
		}
	}
	time.Sleep(time.Minute) // messages in flight arrive, and are dropped
}

func (b *bus) find(id peer.ID) *node {
	if i := int(id[0])<<8 + int(id[1]) - 1; i >= 0 && i < len(b.nodes) {
		return b.nodes[i]
	}
	return &node{index: 25}
}

func (b *bus) reachable(from *node, id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	to := b.find(id)
	return to.alive && b.cut[from.id] == b.cut[id]
}

// members returns the nodes that have joined and not left, alive or dead.
func (b *bus) members() (ids []peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.nodes {
		if n.alloc != nil && !b.away[n.id] {
			ids = append(ids, n.id)
		}
	}
	return ids
}

// dice returns the randomness for one action of a node at one time. It depends neither on other actions at that time
// nor on their order.
func (n *node) dice(what string, msg []byte) *rand.Rand {
	h := sha256.Sum256(fmt.Append(nil, n.bus.seed, n.index, n.starts.Load(), time.Now().UnixNano(), what, msg))
	return rand.New(rand.NewPCG(binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])))
}

// odds returns one of the bus's probabilities.
func (b *bus) odds(of *float64) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *of
}

// within returns a time below most, so fine-grained that no two things begin at one instant.
func within(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// isolate cuts exactly the given nodes off from the others.
func (b *bus) isolate(nodes ...*node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.cut)
	for _, n := range nodes {
		b.cut[n.id] = true
	}
}

func (b *bus) intn(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.IntN(n)
}

// deliver calls f with the allocator that to is at that time, after a delay, and sometimes twice.
func (b *bus) deliver(from, to *node, dice *rand.Rand, f func(a *Allocator)) {
	times := 1
	if dice.Float64() < b.odds(&b.repeat) {
		times = 2
	}
	for range times {
		time.AfterFunc(time.Millisecond+within(dice, 30*time.Millisecond), func() {
			if !b.reachable(from, to.id) {
				return
			}
			b.mu.Lock()
			a, stopped := to.alloc, b.stopped || b.oneWay[[2]int{from.index, to.index}]
			b.sent++
			b.mu.Unlock()
			if !stopped {
				f(a)
			}
		})
	}
}

// endpoint is a node's Gossip.
type endpoint struct{ *node }

// Broadcast sends delta to a few nodes; each of them broadcasts what is new to it.
func (e endpoint) Broadcast(delta []byte) {
	if len(delta) > MaxDelta {
		e.bus.t.Errorf("a delta of %d bytes", len(delta))
	}
	dice := e.dice("broadcast", delta)
	for range min(3, len(e.bus.nodes)-1) {
		to := e.bus.nodes[dice.IntN(len(e.bus.nodes))]
		if to == e.node || dice.Float64() < e.bus.odds(&e.bus.loss) {
			continue
		}
		e.bus.deliver(e.node, to, dice, func(a *Allocator) { _ = a.Merge(slices.Clone(delta)) })
	}
}

var errDown = errors.New("bus: node is down")

func (e endpoint) Unicast(id peer.ID, msg []byte) error {
	if !e.bus.reachable(e.node, id) {
		return errDown
	}
	to := e.bus.find(id)
	if e.bus.unicast != nil {
		e.bus.unicast(e.index, to.index)
	}
	if dice := e.dice(id.String(), msg); dice.Float64() >= e.bus.odds(&e.bus.silent) {
		e.bus.deliver(e.node, to, dice, func(a *Allocator) { _ = a.Message(e.id, slices.Clone(msg)) })
	}
	return nil
}

// exchange exchanges states with a random other node from time to time.
func (n *node) exchange(ctx context.Context, a *Allocator) {
	for {
		dice := n.dice("exchange", nil)
		pause := 5*time.Second + within(dice, 10*time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if to := n.bus.nodes[dice.IntN(len(n.bus.nodes))]; to != n && n.bus.reachable(n, to.id) {
			n.bus.pushPull(n, to)
		}
	}
}

// pushPull makes two nodes exchange their states at once.
func (b *bus) pushPull(x, y *node) {
	b.mu.Lock()
	broken := b.oneWay[[2]int{x.index, y.index}] || b.oneWay[[2]int{y.index, x.index}]
	b.mu.Unlock()
	if broken {
		return
	}
	for _, pair := range [][2]*node{{x, y}, {y, x}} {
		if state := pair[0].alloc.State(); state != nil {
			_ = pair[1].alloc.Merge(state)
		}
	}
}

// check checks the invariants of every live node.
func (b *bus) check() {
	b.t.Helper()
	for _, n := range b.nodes {
		if !n.alive {
			continue
		}
		n.alloc.mu.Lock()
		err := n.alloc.reload()
		if err == nil {
			err = n.alloc.check()
		}
		n.alloc.mu.Unlock()
		if err != nil && !errors.Is(err, storetest.ErrCrash) {
			b.t.Fatalf("node %d: %v", n.index, err)
		}
	}
}

// startAll starts all nodes of the bus at one instant, as the bootstrap nodes of ranges.
func (b *bus) startAll(ranges ...string) {
	for _, n := range b.nodes {
		n.start(n.config(len(b.nodes), ranges...))
	}
}

// eventually checks that ok holds within a minute of the bubble's time.
func (b *bus) eventually(what string, ok func() bool) {
	b.t.Helper()
	for range 600 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Fatalf("not within a minute: %s", what)
}

// allInformed reports whether every live node is ready and knows the owner of each address.
func (b *bus) allInformed() bool {
	return b.allReady() && !slices.ContainsFunc(b.nodes, func(n *node) bool {
		return n.alive && slices.ContainsFunc(n.alloc.Status().Ranges, func(r RangeStatus) bool {
			var known uint64
			for _, o := range r.Owners {
				known += o.Addresses
			}
			return known != 1<<(r.CIDR.Addr().BitLen()-r.CIDR.Bits())
		})
	})
}

func (b *bus) allReady() bool {
	return !slices.ContainsFunc(b.nodes, func(n *node) bool { return n.alive && !n.alloc.Ready() })
}

// sentences returns the findings of a Status as an operator reads them.
func sentences(s Status) (texts []string) {
	for _, f := range s.Findings {
		texts = append(texts, f.Sentences())
	}
	return texts
}
