package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// The monkey changes hosts at random, as administrators, network managers and other programs do. After each step the network is
// whole again, or a condition names what is missing.
//
// It runs for some steps in every test run. Two variables of the environment change that: WEFT_MONKEY is the time for which it
// runs, with the strict bound on repairs, and WEFT_SEED replays the sequence of a seed.

// monkeySteps is the number of steps of a run without WEFT_MONKEY.
const monkeySteps = 12

// repairBound is how long the network may take to be whole again, in a run with WEFT_MONKEY.
const repairBound = 5 * time.Second

// troop is a network of three nodes that the monkey plays with, two pods on each.
type troop struct {
	name   string
	nodes  []*cluster.Node
	pods   []*pod
	start  func(t *testing.T, n *cluster.Node)
	stream *stream
	moved  int // number of underlay addresses given so far
}

func TestMonkey(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("WEFT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	bound, steps, end := patience, monkeySteps, time.Time{}
	if text := os.Getenv("WEFT_MONKEY"); text != "" {
		duration, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		bound, steps, end = repairBound, 0, time.Now().Add(duration)
	}
	t.Logf("replay with WEFT_SEED=%d", seed)
	lab := labtest.New(t, nettest.Config{})
	troops := []*troop{newTroop(t, lab, "plain", false), newTroop(t, lab, "sealed", true)}
	random := rand.New(rand.NewPCG(seed, 0))
	for i := 0; i < steps || time.Now().Before(end); i++ {
		r := troops[random.IntN(len(troops))]
		s := monkeyTricks[random.IntN(len(monkeyTricks))]
		m := &victim{t: t, random: random, troop: r, node: r.nodes[random.IntN(len(r.nodes))]}
		m.pod = r.podOf(m.node, random)
		if s.only != "" && s.only != r.name {
			continue
		}
		r.play(t, fmt.Sprintf("step %d, %s network, node %s: %s", i, r.name, m.node.Label(), s.name), s, m, bound)
	}
}

// newTroop starts a network and waits until it is whole.
func newTroop(t *testing.T, lab *nettest.Lab, name string, sealed bool) *troop {
	t.Helper()
	r := &troop{name: name}
	for i := range 3 {
		r.nodes = append(r.nodes, nodeOn(t, labtest.AddHost(t, lab, fmt.Sprintf("%s%d", name, i))))
	}
	r.start = func(t *testing.T, n *cluster.Node) { up(t, n, others(r.nodes, n)...) }
	if sealed {
		secret := newSecret(t)
		for _, n := range r.nodes {
			writeSecret(t, n, secret)
		}
		r.start = func(t *testing.T, n *cluster.Node) { upSealed(t, r.nodes, n) }
	}
	for _, n := range r.nodes {
		r.start(t, n)
	}
	waitReady(t, r.nodes)
	for _, n := range r.nodes {
		do(t, n, "expose")
		r.pods = append(r.pods, attach(t, n, "p"), attach(t, n, "q"))
	}
	labtest.Until(t, patience, func() error { return r.whole(testContext(t)) })
	r.stream = newStream(t, r.pods[0], r.pods[2])
	return r
}

// podOf returns one of the pods of a node.
func (r *troop) podOf(n *cluster.Node, random *rand.Rand) *pod {
	of := slices.DeleteFunc(slices.Clone(r.pods), func(p *pod) bool { return p.node != n })
	return of[random.IntN(len(of))]
}

// play does one trick and checks the result.
func (r *troop) play(t *testing.T, label string, s trick, m *victim, bound time.Duration) {
	t.Helper()
	t.Log(label)
	before := r.stream.received.Load()
	s.do(m)
	err := r.within(t, bound, func(ctx context.Context) error {
		broken := r.whole(ctx)
		if broken != nil && explained(ctx, m.node, s.codes) {
			return nil
		}
		return broken
	})
	if err != nil {
		t.Errorf("%s: %v\n%s", label, err, r.report())
	}
	if s.undo != nil {
		s.undo(m)
		if err := r.within(t, bound, r.whole); err != nil {
			t.Errorf("%s, undone: %v\n%s", label, err, r.report())
		}
	}
	// A network that is broken now would fail all later steps.
	labtest.Until(t, patience, func() error { return r.whole(testContext(t)) })
	labtest.Until(t, patience, func() error {
		if r.stream.received.Load() == before {
			return fmt.Errorf("%s: the TCP connection has stopped", label)
		}
		return nil
	})
}

// within calls f until it returns nil, for the time bound at most.
func (r *troop) within(t *testing.T, bound time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	return nettest.Until(ctx, func() error { return f(ctx) })
}

// whole returns an error unless all pods and all hosts reach all pods, and all pods the other hosts' underlay addresses.
func (r *troop) whole(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(32)
	reach := func(from *nettest.Space, to netip.Addr, what string) {
		group.Go(func() error {
			if err := cluster.Ping(ctx, from, to); err != nil {
				return fmt.Errorf("%s does not reach %s", what, to)
			}
			return nil
		})
	}
	for _, p := range r.pods {
		name := p.node.Label() + "." + p.addr.String()
		for _, q := range r.pods {
			if p != q {
				reach(p.Space, q.addr, "pod "+name)
			}
		}
		for _, n := range r.nodes {
			reach(n.Space, p.addr, "host "+n.Label())
		}
		reach(p.Space, p.node.Lab().SwitchAddr(), "pod "+name) // masqueraded
	}
	return group.Wait()
}

// explained reports whether a node has a condition with one of the codes.
func explained(ctx context.Context, n *cluster.Node, codes []health.Code) bool {
	var s api.Status
	if n.Query(ctx, &s, "status") != nil {
		return false
	}
	return slices.ContainsFunc(s.Conditions, func(c api.Condition) bool { return slices.Contains(codes, health.Code(c.Code)) })
}

// report returns what the nodes say about themselves, for a failed step.
func (r *troop) report() string {
	var b strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range r.nodes {
		for _, args := range [][]string{{"status"}, {"peers"}} {
			out, err := n.Do(ctx, args...)
			fmt.Fprintf(&b, "%s, weft %s: %v\n%s\n", n.Label(), args[0], err, out)
		}
		for _, argv := range [][]string{{"ip", "-brief", "addr"}, {"ip", "route"}, {"bridge", "-d", "link"}, {"nft", "list", "tables"}} {
			out, _ := n.Run(ctx, argv...)
			fmt.Fprintf(&b, "%s, %s:\n%s\n", n.Label(), strings.Join(argv, " "), out)
		}
	}
	return b.String()
}

// stream is a TCP connection between two pods that carries data during all steps.
type stream struct{ received atomic.Int64 }

// newStream connects two pods. The connection ends with the test.
func newStream(t *testing.T, from, to *pod) *stream {
	t.Helper()
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", netip.AddrPortFrom(to.addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var out net.Conn
	if err := from.Do(func() (err error) {
		out, err = new(net.Dialer).DialContext(testContext(t), "tcp", l.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{}
	var group errgroup.Group
	group.Go(func() error {
		line := make([]byte, 1000)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		buf := make([]byte, 64<<10)
		for {
			n, err := in.Read(buf)
			s.received.Add(int64(n))
			if err != nil {
				return err
			}
		}
	})
	t.Cleanup(func() {
		_ = errors.Join(out.Close(), in.Close(), l.Close())
		_ = group.Wait()
	})
	return s
}
