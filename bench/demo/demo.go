// Package demo shows weft at work on one machine: three nodes in network namespaces that share a secret, a pod on each, pings
// between all of them, and one TCP stream, sealed, plain and by the kernel, beside the kernel's VXLAN. It removes everything
// again.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
)

// Config says how to run the demo.
type Config struct {
	// Bin is the folder with the weft programs.
	Bin string
	// Out takes the story, for people.
	Out io.Writer
	// Seconds is how long each throughput measurement takes.
	Seconds int
}

// errRoot is returned where the demo may not make namespaces.
var errRoot = errors.New("demo: it makes network namespaces and needs root: sudo make demo")

// switchPatience is how long nodes may take to start and to agree on a path.
const switchPatience = 20 * time.Second

// names of the demo's hosts, each with one pod.
var names = []string{"a", "b", "c"}

// demo is a run.
type demo struct {
	cfg        Config
	lab        *nettest.Lab
	secretFile string // that all nodes share here; on machines of their own each has a copy

	nodes []*cluster.Node
	pods  []*nettest.Pod
	addrs []netip.Addr
	since []time.Time // when each pod was attached
}

// Run runs the demo; ctx ends it early. Whatever happens, nothing is left behind.
func Run(ctx context.Context, cfg Config) (err error) {
	if os.Geteuid() != 0 {
		return errRoot
	}
	lab, err := nettest.New(nettest.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	d := &demo{cfg: cfg, lab: lab, secretFile: filepath.Join(lab.Dir(), "secret")}
	for _, step := range []func(context.Context) error{d.start, d.attach, d.ping, d.status, d.throughput} {
		if err := step(ctx); err != nil {
			return errors.Join(err, d.logs())
		}
	}
	d.say("\nEverything is removed again.\n")
	return nil
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.cfg.Out, format, args...) }

// start makes a secret, starts a daemon on each host and waits until all have met and divided the range.
func (d *demo) start(ctx context.Context) error {
	for _, name := range names {
		host, err := d.lab.AddHost(name)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, cluster.NewNode(host, d.cfg.Bin))
	}
	secret, err := cluster.GenerateSecret(ctx, d.cfg.Bin)
	if err == nil {
		err = os.WriteFile(d.secretFile, []byte(secret+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	d.say("Three hosts, one switch. A secret for all, and a node on each:\n  $ weft secret generate > secret\n")
	for _, n := range d.nodes {
		peers := d.others(n)
		d.say("  %s$ weft up --secret-file secret %s %s\n", n.Label(), peers[0], peers[1])
	}
	started := time.Now()
	if err := d.up(ctx, "--secret-file", d.secretFile); err != nil {
		return err
	}
	d.say("All three have met and share the range after %.1f s.\n", time.Since(started).Seconds())
	return nil
}

// up starts all nodes with the given flags and waits until they are one network.
func (d *demo) up(ctx context.Context, flags ...string) error {
	for _, n := range d.nodes {
		if err := n.Up(append(slices.Clone(flags), d.others(n)...)...); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		for _, what := range []string{"peers=3", "ready"} {
			if _, err := n.Do(ctx, "wait", "--for", what, "--timeout", switchPatience.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// restart stops all nodes as an upgrade would, so that pods stay and keep their addresses, and starts them with other flags. All of
// them, as nodes with a secret and nodes without do not understand each other.
func (d *demo) restart(ctx context.Context, flags ...string) error {
	for _, n := range d.nodes {
		if err := n.Stop(); err != nil {
			return err
		}
	}
	return d.up(ctx, flags...)
}

// others returns the addresses of all nodes but n.
func (d *demo) others(n *cluster.Node) (addrs []string) {
	for _, other := range d.nodes {
		if other != n {
			addrs = append(addrs, other.Addr().String())
		}
	}
	return addrs
}

func (d *demo) attach(ctx context.Context) error {
	d.say("\nA pod on each host:\n")
	for _, n := range d.nodes {
		pod, err := n.AddPod("pod")
		if err != nil {
			return err
		}
		addrs, err := n.Attach(ctx, pod)
		if err != nil {
			return err
		}
		d.pods, d.addrs, d.since = append(d.pods, pod), append(d.addrs, addrs[0]), append(d.since, time.Now())
		d.say("  %s$ weft attach --netns %s\n     %s\n", n.Label(), pod.Path(), addrs[0])
	}
	return nil
}

func (d *demo) ping(ctx context.Context) error {
	last := len(d.pods) - 1
	if err := cluster.Ping(ctx, d.pods[last].Space, d.addrs[0]); err != nil {
		return err
	}
	d.say("  the newest pod had its first ping answered %d ms after its attach\n", time.Since(d.since[last]).Milliseconds())
	d.say("\nEvery pod pings every other:\n")
	for i, from := range d.pods {
		for j, to := range d.addrs {
			if i == j {
				continue
			}
			started := time.Now()
			if err := cluster.Ping(ctx, from.Space, to); err != nil {
				return fmt.Errorf("demo: the pod on %s cannot ping the pod on %s: %w", names[i], names[j], err)
			}
			d.say("  %s -> %s  answered (%d ms with the start of ping)\n", d.addrs[i], to, time.Since(started).Milliseconds())
		}
	}
	return nil
}

func (d *demo) status(ctx context.Context) error {
	for _, args := range [][]string{{"status"}, {"peers"}, {"ipam"}} {
		out, err := d.nodes[0].Do(ctx, args...)
		if err != nil {
			return err
		}
		d.say("\n  a$ weft %s\n%s\n", args[0], out)
	}
	return nil
}

// ways are how weft carries frames, in the order in which they are measured.
var ways = []struct {
	name     string
	flags    []string // instead of those with the secret; nil: the nodes run as they are
	datapath api.Datapath
	sealed   bool
}{
	{"weft, sealed, in userspace", nil, api.DatapathUserspace, true},
	{"weft, plain, in userspace", []string{"--datapath", "userspace"}, api.DatapathUserspace, false},
	{"weft, plain, by the kernel", []string{"--datapath", "auto"}, api.DatapathKernel, false},
}

// throughput measures one TCP stream from pod to pod through weft in all ways, and through a VXLAN that was set up by hand on
// the same hosts.
func (d *demo) throughput(ctx context.Context) error {
	d.say("\nOne TCP stream from pod to pod, %d s each (iperf3, cubic, all on this machine):\n", d.cfg.Seconds)
	rates := make([]float64, len(ways))
	for i, way := range ways {
		if way.flags != nil {
			if err := d.restart(ctx, way.flags...); err != nil {
				return err
			}
		}
		err := d.carriedBy(ctx, way.datapath, way.sealed)
		if err == nil {
			rates[i], err = stream(ctx, d.pods[0].Space, d.pods[1].Space, d.addrs[1], d.cfg.Seconds)
		}
		if err != nil {
			return err
		}
		d.say("  %-28s %6.2f Gbit/s\n", way.name, rates[i])
	}
	baseline, err := newVXLAN(ctx, d.nodes[0].Host, d.nodes[1].Host)
	if err != nil {
		return err
	}
	vxlan, err := stream(ctx, baseline.pods[0].Space, baseline.pods[1].Space, baseline.addrs[1], d.cfg.Seconds)
	if err != nil {
		return err
	}
	d.say("  %-28s %6.2f Gbit/s\n", "the kernel's VXLAN, by hand", vxlan)
	d.say("  ratios to that: sealed %.2f, plain in userspace %.2f, by the kernel %.2f\n", rates[0]/vxlan, rates[1]/vxlan, rates[2]/vxlan)
	return nil
}

// carriedBy waits until the first two nodes carry frames to each other as said, and their pods reach each other.
func (d *demo) carriedBy(ctx context.Context, datapath api.Datapath, sealed bool) error {
	ctx, cancel := context.WithTimeout(ctx, switchPatience)
	defer cancel()
	// The first frame is what starts a session.
	if err := nettest.Until(ctx, func() error { return cluster.Ping(ctx, d.pods[0].Space, d.addrs[1]) }); err != nil {
		return err
	}
	for i, n := range d.nodes[:2] {
		if err := nettest.Until(ctx, func() error {
			var peers []api.Peer
			if err := n.Query(ctx, &peers, "peers"); err != nil {
				return err
			}
			for _, p := range peers {
				if p.Name == names[1-i] && p.State == api.PeerAlive && p.Datapath == datapath && p.Encrypted == sealed {
					return nil
				}
			}
			return fmt.Errorf("demo: %s does not reach %s by %s, encrypted %t: %+v", names[i], names[1-i], datapath, sealed, peers)
		}); err != nil {
			return err
		}
	}
	return nil
}

// logs returns what the daemons said, as an error, for a demo that failed.
func (d *demo) logs() error {
	var errs []error
	for _, n := range d.nodes {
		if p := n.Process(); p != nil {
			errs = append(errs, fmt.Errorf("--- weft on %s:\n%s", n.Label(), p.Logs()))
		}
	}
	return errors.Join(errs...)
}
