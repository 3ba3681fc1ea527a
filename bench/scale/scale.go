// Package scale measures what a node of a large network costs: the mesh and the allocators of all nodes run in this
// process, with real clocks and files, on a network in memory. The data plane, whose cost grows with those that a node
// talks to and not with those there are, is not part of it.
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
	"weft/ipam"
	"weft/ipam/store"
	"weft/mesh"
)

// founders is how many nodes must meet before the range is divided, or all where there are fewer.
const founders = 20

// settle is how long a network that has come together is left alone before anything is measured.
const settle = 10 * time.Second

// Options are what to measure.
type Options struct {
	Nodes []int         // how many there are, a network each
	Idle  time.Duration // for which the gossip of an idle network is counted
	Every time.Duration // a node is started so often, and less often in networks of more than 250
	Limit time.Duration // until which a network must have come together, after the last node was started
}

// Result is what one network costs.
type Result struct {
	Nodes int `json:"nodes"`
	// Known is when every node knew every other, Ready when every node had a share of the range, and Agreed when all had
	// one view of the whole ring, in seconds after the last was started. All nodes share the cores of this machine.
	Known  float64 `json:"known_s"`
	Ready  float64 `json:"ready_s"`
	Agreed float64 `json:"agreed_s"`
	// Bytes is the gossip that a node sends while nothing happens, in bytes a second.
	Bytes float64 `json:"idle_bytes_per_s"`
	// Heap is the memory in use a node in bytes, goroutine stacks included.
	Heap float64 `json:"memory_bytes"`
	// CPU is the part of a core that a node takes while nothing happens.
	CPU float64 `json:"idle_cpu"`
}

// node is one node without its data plane.
type node struct {
	mesh *mesh.Mesh
	ipam *ipam.Allocator
	db   store.Store
}

// gossip is the mesh as the allocator sees it.
type gossip struct{ mesh *mesh.Mesh }

func (g gossip) Broadcast(delta []byte) { _ = g.mesh.Sender(mesh.ChannelIPAM).Broadcast(delta) }

func (g gossip) Unicast(to peer.ID, msg []byte) error {
	return g.mesh.Sender(mesh.ChannelIPAM).Unicast(to, msg)
}

// Run measures a network of each size in turn and says on progress how it goes.
func Run(ctx context.Context, o Options, progress io.Writer) ([]Result, error) {
	var results []Result
	for _, n := range o.Nodes {
		r, err := measure(ctx, n, o)
		if err != nil {
			return results, fmt.Errorf("scale: %d nodes: %w", n, err)
		}
		_, _ = fmt.Fprintf(progress, "%5d nodes: known after %.1f s, ready %.1f s, agreed %.1f s; idle %.0f B/s, %.2f MiB, %.3f %% of a core a node\n",
			n, r.Known, r.Ready, r.Agreed, r.Bytes, r.Heap/(1<<20), 100*r.CPU)
		results = append(results, r)
	}
	return results, nil
}

func measure(ctx context.Context, n int, o Options) (r Result, err error) {
	dir, err := os.MkdirTemp("", "weft-scale-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	before := memory()
	defer debug.SetGCPercent(debug.SetGCPercent(200)) // all nodes' garbage in one process is not what is measured
	network := &network{}
	nodes := make([]*node, n)
	for i := range nodes {
		if nodes[i], err = network.node(i, n, filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return r, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	group, inner := errgroup.WithContext(ctx)
	// Each that joins costs all that are there something: on one machine a large network cannot take them in as fast.
	every := max(o.Every, time.Duration(n)*time.Millisecond)
	for i, node := range nodes {
		if i > 0 && pause(inner, every) != nil {
			break
		}
		group.Go(func() error { return node.mesh.Run(inner) })
		group.Go(func() error { return node.ipam.Run(inner) })
	}
	begin := time.Now()
	defer func() {
		cancel()
		err = errors.Join(err, group.Wait())
		for _, node := range nodes {
			err = errors.Join(err, node.db.Close())
		}
	}()
	r.Nodes = n
	for _, stage := range []struct {
		at   *float64
		done func() bool
	}{
		{&r.Known, func() bool { return known(nodes) }},
		{&r.Ready, func() bool { return ready(nodes) }},
		{&r.Agreed, func() bool { return agreed(nodes) }},
	} {
		for !stage.done() {
			if time.Since(begin) > o.Limit {
				return r, fmt.Errorf("not one network within %s", o.Limit)
			}
			if err := pause(inner, 100*time.Millisecond); err != nil {
				return r, err
			}
		}
		*stage.at = time.Since(begin).Seconds()
	}
	if err := pause(inner, settle); err != nil {
		return r, err
	}
	r.Heap = float64(memory()-before) / float64(n)
	sent, used, since := network.bytes.Load(), cpu(), time.Now()
	if err := pause(inner, o.Idle); err != nil {
		return r, err
	}
	over := time.Since(since).Seconds() * float64(n)
	r.Bytes, r.CPU = float64(network.bytes.Load()-sent)/over, (cpu()-used).Seconds()/over
	return r, nil
}

// node makes the ith of n nodes, with its state in dir. It is told of the first and of a neighbour.
func (n *network) node(i, size int, dir string) (*node, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	id, err := mesh.NewIdentity()
	if err != nil {
		return nil, err
	}
	targets, err := mesh.LoadTargets(dir)
	if err != nil {
		return nil, err
	}
	t := n.transport(i)
	node := &node{}
	var peers []mesh.Target
	for _, k := range []int{0, i / 2} {
		if k != i {
			peers = append(peers, mesh.Target{Host: netip.AddrFrom4([4]byte{127, 1, byte(k >> 8), byte(k)}).String(), Port: 6783})
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
		Self: id.ID, Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}, InitPeers: min(size, founders),
		Store: node.db, Gossip: gossip{node.mesh},
	})
	if err != nil {
		return nil, errors.Join(err, node.db.Close())
	}
	node.mesh.Register(mesh.ChannelIPAM, node.ipam)
	return node, nil
}

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

func ready(nodes []*node) bool {
	for _, n := range nodes {
		if !n.ipam.Ready() {
			return false
		}
	}
	return true
}

// agreed reports whether all nodes say the same of who owns what.
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

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// memory returns what is in use, in bytes.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
