package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// patience is the timeout of all waits. It is generous: tests do not measure durations with it.
const patience = 30 * time.Second

// Folders with the programs under test: weft itself, and the CNI plugin with the tools that call it.
var bin, plugins string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command(
		"go",
		"build",
		"-trimpath",
		"-o",
		dir+"/",
		"weft/cmd/weft",
		"weft/cmd/weft-docker",
	) // as make build does, which fills the build cache
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs under test: %v\n%s", err, out)
		return 1
	}
	// The plugin is called weft as well, so it needs a separate folder.
	plugins = filepath.Join(dir, "plugins")
	if err := errors.Join(os.Mkdir(plugins, 0o700), cnitest.Build(context.Background(), plugins)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	return m.Run()
}

// testContext returns a context that ends with the test, at the latest after three minutes, which is before the timeout of
// go test.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newNodes returns nodes on new hosts with the given names, without daemons yet.
func newNodes(t *testing.T, names ...string) []*cluster.Node {
	t.Helper()
	lab := labtest.New(t, nettest.Config{})
	nodes := make([]*cluster.Node, 0, len(names))
	for _, name := range names {
		nodes = append(nodes, nodeOn(t, labtest.AddHost(t, lab, name)))
	}
	return nodes
}

// nodeOn returns a node on a host, without a daemon yet. If the test fails, its log is printed.
func nodeOn(t *testing.T, h *nettest.Host) *cluster.Node {
	t.Helper()
	n := cluster.NewNode(h, bin)
	t.Cleanup(func() {
		if p := n.Process(); t.Failed() && p != nil {
			t.Logf("weft on %s logged:\n%s", n.Label(), p.Logs())
		}
	})
	return n
}

// up starts the daemon of a node and does not wait until it is ready.
func up(t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	if err := n.Up(args...); err != nil {
		t.Fatal(err)
	}
}

// do runs a weft command that must succeed, and returns its output.
func do(t *testing.T, n *cluster.Node, args ...string) string {
	t.Helper()
	out, err := n.Do(testContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// query runs a weft command with --json that must succeed, and returns its decoded output.
func query[Doc any](t *testing.T, n *cluster.Node, args ...string) (doc Doc) {
	t.Helper()
	if err := n.Query(testContext(t), &doc, args...); err != nil {
		t.Fatal(err)
	}
	return doc
}

// start starts nodes with each other as peers, at the same time, and waits until they are one network.
func start(t *testing.T, nodes []*cluster.Node, args ...string) {
	t.Helper()
	for _, n := range nodes {
		up(t, n, append(slices.Clone(args), others(nodes, n)...)...)
	}
	waitReady(t, nodes)
}

// waitReady waits until all nodes see all of them alive and are ready.
func waitReady(t *testing.T, nodes []*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		do(t, n, "wait", "--for", fmt.Sprintf("peers=%d", len(nodes)), "--timeout", patience.String())
		do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	}
}

// others returns the addresses of all nodes but n.
func others(nodes []*cluster.Node, n *cluster.Node) []string {
	var addrs []string
	for _, o := range nodes {
		if o != n {
			addrs = append(addrs, o.Addr().String())
		}
	}
	return addrs
}

// pod is an attached pod.
type pod struct {
	*nettest.Pod
	node  *cluster.Node
	addr  netip.Addr   // the first of addrs
	addrs []netip.Addr // one per range
}

// attach creates a pod on a node and attaches it to the overlay.
func attach(t *testing.T, n *cluster.Node, name string, args ...string) *pod {
	t.Helper()
	p := labtest.AddPod(t, n.Host, name)
	addrs, err := n.Attach(testContext(t), p, args...)
	if err != nil {
		t.Fatal(err)
	}
	return &pod{p, n, addrs[0], addrs}
}

// reaches waits until p gets replies to pings from all the addresses.
func (p *pod) reaches(t *testing.T, to ...netip.Addr) {
	t.Helper()
	for _, addr := range to {
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), p.Space, addr) })
	}
}

// waitState waits until a node reports the given state for the peer called name.
func waitState(t *testing.T, n *cluster.Node, name string, state api.PeerState) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		for _, p := range query[[]api.Peer](t, n, "peers") {
			if p.Name == name {
				if p.State == state {
					return nil
				}
				return fmt.Errorf("%s sees %s as %s, want %s", n.Label(), name, p.State, state)
			}
		}
		return fmt.Errorf("%s does not know %s", n.Label(), name)
	})
}

// links returns the sorted names of the interfaces of a host.
func links(t *testing.T, h *nettest.Host) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(labtest.Run(t, h.Space, "ip", "-brief", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@") // after the @, "ip" prints the other end
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// conditions returns the conditions of one code of a node.
func conditions(t *testing.T, n *cluster.Node, code health.Code) (found []api.Condition) {
	t.Helper()
	for _, c := range query[api.Status](t, n, "status").Conditions {
		if c.Code == string(code) {
			found = append(found, c)
		}
	}
	return found
}
