// Package scale measures the cost of a node in a large network. The meshes and allocators of all nodes run in this
// process, with real clocks and files, on a network in memory. The datapath is not part of it: its cost depends on the
// number of peers with traffic, not on the size of the network.
package scale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/peer"
	"weft/internal/target"
	"weft/ipam"
	"weft/ipam/store"
	"weft/mesh"
	"weft/mesh/addressbook"
)

// bootstrapNodes is the number of nodes that must be connected before the range is divided, in networks of that size or
// larger. In smaller ones it is all nodes.
const bootstrapNodes = 20

// restTime is the time between the forming of a network and the first measurement.
const restTime = 10 * time.Second

// pollInterval is the time between two checks of a stage.
const pollInterval = 100 * time.Millisecond

// Options configure Run.
type Options struct {
	Nodes []int         // the number of nodes of each network to measure
	Idle  time.Duration // how long to count the gossip of an idle network
	Every time.Duration // time between the starts of two nodes; longer in networks of more than 250 nodes
	Limit time.Duration // maximum time for a network to form, from the start of its last node
}

// Result is the cost of one network.
type Result struct {
	Nodes int `json:"nodes"`
	// Known, Ready and Agreed are times in seconds from the start of the last node: until every node knew every other,
	// until every node owned a part of the range, and until all nodes had the same view of the whole ring. All nodes share
	// the cores of this machine.
	Known  float64 `json:"known_s"`
	Ready  float64 `json:"ready_s"`
	Agreed float64 `json:"agreed_s"`
	// Bytes is the gossip that a node of an idle network sends, in bytes per second.
	Bytes float64 `json:"idle_bytes_per_s"`
	// Heap is the memory in use per node in bytes, including goroutine stacks.
	Heap float64 `json:"memory_bytes"`
	// CPU is the share of a core that a node of an idle network uses.
	CPU float64 `json:"idle_cpu"`
}

// node is one node without its datapath.
type node struct {
	mesh *mesh.Mesh
	ipam *ipam.Allocator
	db   store.Store
}

// gossip implements ipam's gossip interface with the mesh.
type gossip struct{ mesh *mesh.Mesh }

func (g gossip) Broadcast(delta []byte) { _ = g.mesh.Sender(mesh.ChannelIPAM).Broadcast(delta) }

func (g gossip) Unicast(to peer.ID, msg []byte) error {
	return g.mesh.Sender(mesh.ChannelIPAM).Unicast(to, msg)
}

// Run measures a network of each size, one after another, and prints a line per network to progress. After an error it
// returns the results so far.
func Run(ctx context.Context, o Options, progress io.Writer) ([]Result, error) {
	var results []Result
	for _, n := range o.Nodes {
		r, err := measure(ctx, n, o)
		if err != nil {
			return results, fmt.Errorf("scale: %d nodes: %w", n, err)
		}
		_, _ = fmt.Fprintf(progress,
			"%5d nodes: known after %.1f s, ready %.1f s, agreed %.1f s; idle per node %.0f B/s, %.2f MiB, %.3f %% of a core\n",
			n, r.Known, r.Ready, r.Agreed, r.Bytes, r.Heap/(1<<20), 100*r.CPU)
		results = append(results, r)
	}
	return results, nil
}

// measure starts a network of n nodes, measures it and stops it.
func measure(ctx context.Context, n int, o Options) (r Result, err error) {
	dir, err := os.MkdirTemp("", "weft-scale-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	before := memory()
	// All nodes share one garbage collector: let it run less often, because its cost is not part of the measurement.
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	s, err := startNetwork(ctx, n, o.Every, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	r.Nodes = n
	for _, stage := range []struct {
		at   *float64
		done func(nodes []*node) bool
	}{{&r.Known, known}, {&r.Ready, ready}, {&r.Agreed, agreed}} {
		if *stage.at, err = s.waitUntil(stage.done, o.Limit); err != nil {
			return r, err
		}
	}
	if err := pause(s.ctx, restTime); err != nil {
		return r, err
	}
	r.Heap = float64(memory()-before) / float64(n)
	r.Bytes, r.CPU, err = s.idleCost(o.Idle)
	return r, err
}

// simulation is a running network.
type simulation struct {
	network *network
	nodes   []*node
	begin   time.Time       // when all nodes were started
	ctx     context.Context // of all nodes; ends with stop, or when a node fails
	cancel  context.CancelFunc
	group   *errgroup.Group
}

// startNetwork creates n nodes with their state in dir and starts them, one every interval. A large network is started
// more slowly, because each join has a cost on every other node, and all of them share this machine.
func startNetwork(ctx context.Context, n int, interval time.Duration, dir string) (_ *simulation, err error) {
	s := &simulation{network: &network{}, nodes: make([]*node, n)}
	for i := range s.nodes {
		if s.nodes[i], err = s.network.node(i, n, filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return nil, err
		}
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.group, s.ctx = errgroup.WithContext(ctx)
	interval = max(interval, time.Duration(n)*time.Millisecond)
	for i, node := range s.nodes {
		if i > 0 {
			_ = pause(s.ctx, interval) // waitUntil returns the error of a context that ended
		}
		s.group.Go(func() error { return node.mesh.Run(s.ctx) })
		s.group.Go(func() error { return node.ipam.Run(s.ctx) })
	}
	s.begin = time.Now()
	return s, nil
}

// stop stops all nodes, waits for them and closes their stores.
func (s *simulation) stop() error {
	s.cancel()
	err := s.group.Wait()
	for _, node := range s.nodes {
		err = errors.Join(err, node.db.Close())
	}
	return err
}

// waitUntil waits until done returns true, and returns the time since the start of the last node in seconds. It fails
// when that exceeds limit.
func (s *simulation) waitUntil(done func(nodes []*node) bool, limit time.Duration) (float64, error) {
	for !done(s.nodes) {
		if time.Since(s.begin) > limit {
			return 0, fmt.Errorf("the nodes did not form one network within %s", limit)
		}
		if err := pause(s.ctx, pollInterval); err != nil {
			return 0, err
		}
	}
	return time.Since(s.begin).Seconds(), nil
}

// idleCost returns what a node uses on average over the given time: bytes of gossip per second, and the share of a core.
func (s *simulation) idleCost(over time.Duration) (bytes, share float64, err error) {
	sent, used, since := s.network.bytes.Load(), cpu(), time.Now()
	if err := pause(s.ctx, over); err != nil {
		return 0, 0, err
	}
	nodeSeconds := time.Since(since).Seconds() * float64(len(s.nodes))
	return float64(s.network.bytes.Load()-sent) / nodeSeconds, (cpu() - used).Seconds() / nodeSeconds, nil
}

// node creates the ith of size nodes, with its state in dir. Its peers are the first node and node i/2.
func (n *network) node(i, size int, dir string) (*node, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	id, err := mesh.NewIdentity()
	if err != nil {
		return nil, err
	}
	targets, err := addressbook.Load(dir)
	if err != nil {
		return nil, err
	}
	t := n.transport(i)
	node := &node{}
	var peers []target.Target
	for _, k := range []int{0, i / 2} {
		if k != i {
			peers = append(peers, target.Target{Host: netip.AddrFrom4([4]byte{127, 1, byte(k >> 8), byte(k)}).String(), Port: 6783})
		}
	}
	node.mesh, err = mesh.New(mesh.Config{
		Identity: id, Name: fmt.Sprintf("node-%d", i), Transport: t, Advertise: t.addr, DataPort: 6784, Targets: targets,
		Peers: peers, Discovery: true,
	})
	if err != nil {
		return nil, err
	}
	if node.db, err = store.Open(dir); err != nil {
		return nil, err
	}
	node.ipam, err = ipam.New(ipam.Config{
		Self: id.ID, Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}, InitPeers: min(size, bootstrapNodes),
		Store: node.db, Gossip: gossip{node.mesh},
	})
	if err != nil {
		return nil, errors.Join(err, node.db.Close())
	}
	node.mesh.Register(mesh.ChannelIPAM, node.ipam)
	return node, nil
}

// known reports whether all nodes see all nodes alive.
func known(nodes []*node) bool {
	for _, n := range nodes {
		alive := 0
		for _, m := range n.mesh.Members() {
			if m.State == mesh.StateAlive {
				alive++
			}
		}
		if alive < len(nodes) {
			return false
		}
	}
	return true
}

// ready reports whether all nodes own a part of the range.
func ready(nodes []*node) bool {
	for _, n := range nodes {
		if !n.ipam.Ready() {
			return false
		}
	}
	return true
}

// agreed reports whether all nodes report the same owners with the same number of addresses.
func agreed(nodes []*node) bool {
	first := nodes[0].ipam.Status().Ranges[0].Owners
	for _, n := range nodes[1:] {
		owners := n.ipam.Status().Ranges[0].Owners
		if len(owners) != len(first) || len(owners) != len(nodes) {
			return false
		}
		for i, o := range owners {
			if !bytes.Equal(o.ID[:], first[i].ID[:]) || o.Addresses != first[i].Addresses {
				return false
			}
		}
	}
	return true
}

// pause sleeps, and returns the error of ctx if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// memory returns the bytes of heap and stacks in use, after garbage collection.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
