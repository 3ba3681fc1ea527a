// Package demo demonstrates weft on one machine. It starts three nodes with a shared secret in network namespaces and
// attaches a pod to each. It pings between all pods and measures one TCP stream: encrypted, plain, on the kernel path, and
// through the kernel's VXLAN for comparison. At the end it removes everything.
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

// Config configures the demo.
type Config struct {
	// Bin is the folder with the weft programs.
	Bin string
	// Out receives the output, which is for people.
	Out io.Writer
	// Seconds is the duration of each throughput measurement.
	Seconds int
}

// errRoot is returned if the demo does not run as root.
var errRoot = errors.New("demo: creating network namespaces needs root: run sudo make demo")

// readyTimeout bounds the time for nodes to start, and to agree on a path.
const readyTimeout = 20 * time.Second

// names are the names of the demo's hosts. Each host has one pod.
var names = []string{"a", "b", "c"}

// demo is the state of one run.
type demo struct {
	cfg        Config
	lab        *nettest.Lab
	secretFile string // shared by all nodes here; on separate machines each has a copy

	nodes []*cluster.Node
	pods  []*nettest.Pod
	addrs []netip.Addr
	since []time.Time // when each pod was attached
}

// Run runs the demo until it is complete or ctx ends. It removes everything it has created, also after an error.
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
	d.printf("\nEverything is removed again.\n")
	return nil
}

func (d *demo) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.cfg.Out, format, args...) }

// start generates a secret, starts a daemon on each host and waits until all are connected and have divided the range.
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
	d.printf("Three hosts on one switch. A common secret, and a node on each host:\n  $ weft secret generate > secret\n")
	for _, n := range d.nodes {
		peers := d.others(n)
		d.printf("  %s$ weft up --secret-file secret %s %s\n", n.Label(), peers[0], peers[1])
	}
	started := time.Now()
	if err := d.up(ctx, "--secret-file", d.secretFile); err != nil {
		return err
	}
	d.printf("All three nodes are connected and share the range after %.1f s.\n", time.Since(started).Seconds())
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
			if _, err := n.Do(ctx, "wait", "--for", what, "--timeout", readyTimeout.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// restart stops all nodes as an upgrade does, so that pods keep their addresses, and starts them with other flags. It
// restarts all nodes, because nodes with a secret cannot connect to nodes without one.
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
	d.printf("\nA pod on each host:\n")
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
		d.printf("  %s$ weft attach --netns %s\n     %s\n", n.Label(), pod.Path(), addrs[0])
	}
	return nil
}

func (d *demo) ping(ctx context.Context) error {
	last := len(d.pods) - 1
	if err := cluster.Ping(ctx, d.pods[last].Space, d.addrs[0]); err != nil {
		return err
	}
	d.printf("  the newest pod received its first ping reply %d ms after it was attached\n", time.Since(d.since[last]).Milliseconds())
	d.printf("\nEvery pod pings every other:\n")
	for i, from := range d.pods {
		for j, to := range d.addrs {
			if i == j {
				continue
			}
			started := time.Now()
			if err := cluster.Ping(ctx, from.Space, to); err != nil {
				return fmt.Errorf("demo: the pod on %s cannot ping the pod on %s: %w", names[i], names[j], err)
			}
			d.printf("  %s -> %s  reply (%d ms, including the start of ping)\n", d.addrs[i], to, time.Since(started).Milliseconds())
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
		d.printf("\n  a$ weft %s\n%s\n", args[0], out)
	}
	return nil
}

// modes are the ways in which weft carries frames, in the order of the measurement.
var modes = []struct {
	name      string
	flags     []string // flags to restart the nodes with; nil: the nodes keep running as they were started
	datapath  api.Datapath
	encrypted bool
}{
	{"weft, encrypted, in userspace", nil, api.DatapathUserspace, true},
	{"weft, plain, in userspace", []string{"--plain", "--datapath", "userspace"}, api.DatapathUserspace, false},
	{"weft, plain, by the kernel", []string{"--plain", "--datapath", "auto"}, api.DatapathKernel, false},
}

// throughput measures one TCP stream from pod to pod through weft in all modes, and through a VXLAN that it configures on
// the same hosts.
func (d *demo) throughput(ctx context.Context) error {
	d.printf("\nOne TCP stream from pod to pod, %d s each (iperf3, cubic, all on this machine):\n", d.cfg.Seconds)
	rates := make([]float64, len(modes))
	for i, mode := range modes {
		if mode.flags != nil {
			if err := d.restart(ctx, mode.flags...); err != nil {
				return err
			}
		}
		err := d.waitDatapath(ctx, mode.datapath, mode.encrypted)
		if err == nil {
			rates[i], err = stream(ctx, d.pods[0].Space, d.pods[1].Space, d.addrs[1], d.cfg.Seconds)
		}
		if err != nil {
			return err
		}
		d.printf("  %-30s %6.2f Gbit/s\n", mode.name, rates[i])
	}
	baseline, err := newVXLAN(ctx, d.nodes[0].Host, d.nodes[1].Host)
	if err != nil {
		return err
	}
	vxlan, err := stream(ctx, baseline.pods[0].Space, baseline.pods[1].Space, baseline.addrs[1], d.cfg.Seconds)
	if err != nil {
		return err
	}
	d.printf("  %-30s %6.2f Gbit/s\n", "the kernel's VXLAN", vxlan)
	d.printf("  ratios to VXLAN: encrypted %.2f, plain in userspace %.2f, by the kernel %.2f\n",
		rates[0]/vxlan, rates[1]/vxlan, rates[2]/vxlan)
	return nil
}

// waitDatapath waits until the pods of the first two nodes reach each other, and the nodes use the given datapath for
// each other, with or without encryption.
func (d *demo) waitDatapath(ctx context.Context, datapath api.Datapath, encrypted bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// A session starts with the first frame.
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
				if p.Name == names[1-i] && p.State == api.PeerAlive && p.Datapath == datapath && p.Encrypted == encrypted {
					return nil
				}
			}
			return fmt.Errorf("demo: %s does not reach %s by %s, encrypted %t: %+v", names[i], names[1-i], datapath, encrypted, peers)
		}); err != nil {
			return err
		}
	}
	return nil
}

// logs returns the logs of the daemons as an error, for a demo that failed.
func (d *demo) logs() error {
	var errs []error
	for _, n := range d.nodes {
		if p := n.Process(); p != nil {
			errs = append(errs, fmt.Errorf("--- weft on %s:\n%s", n.Label(), p.Logs()))
		}
	}
	return errors.Join(errs...)
}
