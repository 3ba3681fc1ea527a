// Package scale measures the cost of a node in a large network. The control planes of all nodes run in this process: mesh, allocator
// and registry of names, on a network in memory, with state in memory, in virtual time. Times are those of a network in which every node
// has enough CPU; CPU time is measured beside them. The datapath is not part of it: its cost depends on the number of peers with
// traffic, not on the size of the network.
package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"weft/internal/secret"
	"weft/mesh"
)

// bootstrapNodes is the number of nodes that must be connected before the range is divided, in networks of that size or
// larger. In smaller ones it is all nodes.
const bootstrapNodes = 20

// The course of a measurement, in virtual time.
const (
	startTime     = time.Minute      // within which all nodes are started
	restTime      = 30 * time.Second // between the forming of a network and the idle phase
	churnTime     = 3 * time.Minute
	churnShare    = 100 // each minute one of so many nodes is restarted, and another reports a broken link
	brokenTime    = 30 * time.Second
	restartTime   = time.Second      // between two processes of a node
	rebootTime    = 30 * time.Second // the same, for every second restart of the churn
	rollingTime   = time.Minute      // within which all nodes are restarted
	partitionTime = time.Minute
	steadyTime    = 10 * time.Second // for which a view must last to count
)

// podsPerNode is how many addresses each node requests at its start.
const podsPerNode = 2

// pollInterval is the time between two looks at the nodes.
const pollInterval = 100 * time.Millisecond

// Options configure Run.
type Options struct {
	Nodes           []int         // the number of nodes of each network to measure
	Idle            time.Duration // how long to measure an idle network
	Limit           time.Duration // maximum time until a network has one view after a change
	Latency, Jitter time.Duration // of messages, in one direction; Jitter is the most that is added at random
	Loss            float64       // of packets, and of segments of streams
	Seed            uint64        // of the random decisions of the network and of the measurement, not of those of the nodes
	Profiles        string        // folder for a CPU profile of each phase and the heap profile of each network; empty: none
	Logger          *slog.Logger  // of the nodes; nil: nothing is logged
}

// Result is the cost of one network.
type Result struct {
	Nodes  int     `json:"nodes"`
	Seed   uint64  `json:"seed"`
	Phases []Phase `json:"phases"`
	Heap   float64 `json:"memory_bytes"` // per node, when idle, with goroutine stacks
	Leases int     `json:"leases"`       // at the end; no address has two
}

// Phase returns the phase with a name; zero if there is none.
func (r Result) Phase(name string) Phase {
	for _, p := range r.Phases {
		if p.Name == name {
			return p
		}
	}
	return Phase{}
}

// Names of the phases, in their order.
const (
	PhaseStart     = "start"
	PhaseIdle      = "idle"
	PhaseChurn     = "churn"
	PhaseRolling   = "rolling restart"
	PhasePartition = "partition"
	PhaseHeal      = "heal"
)

// Run measures a network of each size, one after another, and prints a line per phase to progress. After an error it
// returns the results so far.
func Run(ctx context.Context, o Options, progress io.Writer) ([]Result, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// All nodes share one garbage collector: let it run less often, because its cost is not part of the measurement.
	defer debug.SetGCPercent(debug.SetGCPercent(200))
	var results []Result
	for _, n := range o.Nodes {
		if n < 2 || n > 1<<16 {
			return results, fmt.Errorf("scale: %d nodes: not within 2 and %d", n, 1<<16)
		}
		var r Result
		before := memory()
		err := inVirtualTime(func(outside worker) (err error) {
			r, err = measure(ctx, n, o, outside, before, progress)
			return err
		})
		if err != nil {
			return results, fmt.Errorf("scale: %d nodes: %w", n, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// bootstrapNodesOf returns the number of bootstrap nodes of a network.
func bootstrapNodesOf(nodes int) int { return min(nodes, bootstrapNodes) }

// simulation is a running network.
type simulation struct {
	ctx      context.Context // of outside the bubble: only to be asked
	o        Options
	outside  worker
	dice     *rand.Rand
	hosts    []*host
	nodes    []*node
	progress io.Writer
	result   Result
	errs     chan error // of nodes that did not start or run, the first ones
}

// measure starts a network of n nodes, takes it through all phases and stops it. before is the memory in use without it.
func measure(ctx context.Context, n int, o Options, outside worker, before uint64, progress io.Writer) (_ Result, err error) {
	s := &simulation{
		ctx: ctx, o: o, outside: outside, dice: rand.New(rand.NewPCG(o.Seed, 0)), progress: progress, result: Result{Nodes: n, Seed: o.Seed},
		errs: make(chan error, 10),
	}
	if err := s.build(n); err != nil {
		return s.result, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.phase(PhaseStart, s.startAll); err != nil {
		return s.result, err
	}
	if err := sleepUntil(ctx, time.Now().Add(restTime)); err != nil {
		return s.result, err
	}
	if err := s.phase(PhaseIdle, func(*run) error { return sleepUntil(ctx, time.Now().Add(o.Idle)) }); err != nil {
		return s.result, err
	}
	s.result.Heap = float64(memory()-before) / float64(n)
	if err := s.writeHeap(); err != nil {
		return s.result, err
	}
	for _, p := range []struct {
		name string
		do   func(*run) error
	}{{PhaseChurn, s.churn}, {PhaseRolling, s.restartAll}, {PhasePartition, s.divide}, {PhaseHeal, s.heal}} {
		if err := s.phase(p.name, p.do); err != nil {
			return s.result, err
		}
	}
	s.result.Leases, err = checkLeases(s.nodes)
	_, _ = fmt.Fprintf(progress, "%5d nodes: %.2f MiB per node, %d leases\n", n, s.result.Heap/(1<<20), s.result.Leases)
	return s.result, err
}

// build makes the network and its nodes, which do not run yet.
func (s *simulation) build(n int) error {
	s.hosts = newHosts(n, s.o)
	list, err := secret.Parse([]byte(secret.Generate()))
	if err != nil {
		return err
	}
	key := mesh.GossipKey{Key: list[0].GossipKey(), Fingerprint: list[0].Fingerprint()}
	first := bootstrapNodesOf(n)
	for i, h := range s.hosts {
		// The first target makes a circle of the bootstrap nodes, so that all of them are connected.
		node, err := newNode(h, key, s.hosts, [2]int{(i + 1) % first, s.dice.IntN(first)}, s.o.Logger)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, node)
	}
	return nil
}

// stop stops all nodes and waits until nothing of them runs any more.
func (s *simulation) stop() error {
	for _, n := range s.nodes {
		if p := n.process.Load(); p != nil {
			p.cancel()
		}
	}
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.stop())
	}
	time.Sleep(time.Minute) // streams that nothing waits for end, and messages in flight arrive at no node
	return errors.Join(errs...)
}

// report records an error of a node.
func (s *simulation) report(n *node, err error) {
	if err == nil {
		return
	}
	select {
	case s.errs <- fmt.Errorf("%s: %w", n.name, err):
	default: // the first ones suffice
	}
}

// failed returns the first error of a node, or that of the context.
func (s *simulation) failed() error {
	select {
	case err := <-s.errs:
		return err
	default:
		return s.ctx.Err()
	}
}

// phase measures what do does.
func (s *simulation) phase(name string, do func(*run) error) error {
	stopProfile, err := s.profile(name)
	if err != nil {
		return err
	}
	r := &run{simulation: s, meter: newMeter(s.hosts), Phase: Phase{Name: name}}
	err = do(r)
	r.end(&r.Phase)
	if err := errors.Join(err, stopProfile(), s.failed()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.result.Phases = append(s.result.Phases, r.Phase)
	_, _ = fmt.Fprintf(s.progress, "%5d nodes: %s\n", s.result.Nodes, r.Phase)
	return nil
}

// String returns the figures for one line of text.
func (p Phase) String() string {
	return fmt.Sprintf("%-15s %4.0f s; known %5.1f s, agreed %5.1f s, leased %5.1f s; per node %6.0f B/s in packets (%.1f/s), "+
		"%6.0f B/s in streams (%.2f/s), busiest %.0f B/s, CPU %.3f %%",
		p.Name, p.Seconds, p.Known, p.Agreed, p.Leased, p.PacketBytes, p.Packets, p.StreamBytes, p.Streams, p.Busiest, 100*p.CPU)
}
