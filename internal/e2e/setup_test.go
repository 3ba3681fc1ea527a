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
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// patience is how long anything may take before a test gives up; nothing is measured by it.
const patience = 30 * time.Second

// Folders with the programs under test: weft itself, and the plugin and what drives it.
var bin, plugins string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.Command("go", "build", "-o", dir+"/", "weft/cmd/weft")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program under test: %v\n%s", err, out)
		return 1
	}
	// The plugin is called weft as well: it has a folder of its own.
	plugins = filepath.Join(dir, "plugins")
	if err := errors.Join(os.Mkdir(plugins, 0o700), cnitest.Build(context.Background(), plugins)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	return m.Run()
}

// testContext ends with the test, and before go test's own timeout.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newNodes returns idle nodes on hosts of the given names.
func newNodes(t *testing.T, names ...string) []*cluster.Node {
	t.Helper()
	lab := labtest.New(t, nettest.Config{})
	nodes := make([]*cluster.Node, 0, len(names))
	for _, name := range names {
		nodes = append(nodes, nodeOn(t, labtest.AddHost(t, lab, name)))
	}
	return nodes
}

// nodeOn returns an idle node on a host.
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

// up starts a node and does not wait.
func up(t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	if err := n.Up(args...); err != nil {
		t.Fatal(err)
	}
}

// do runs a weft command that has to work.
func do(t *testing.T, n *cluster.Node, args ...string) string {
	t.Helper()
	out, err := n.Do(testContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// query runs a weft command with --json that has to work.
func query[Doc any](t *testing.T, n *cluster.Node, args ...string) (doc Doc) {
	t.Helper()
	if err := n.Query(testContext(t), &doc, args...); err != nil {
		t.Fatal(err)
	}
	return doc
}

// start starts nodes that all know each other, at the same instant, and waits until they are one network.
func start(t *testing.T, nodes []*cluster.Node, args ...string) {
	t.Helper()
	for _, n := range nodes {
		up(t, n, append(slices.Clone(args), others(nodes, n)...)...)
	}
	waitReady(t, nodes)
}

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
	addrs []netip.Addr // one of each range
}

// attach makes a pod on a node and joins it to the overlay.
func attach(t *testing.T, n *cluster.Node, name string, args ...string) *pod {
	t.Helper()
	p := labtest.AddPod(t, n.Host, name)
	addrs, err := n.Attach(testContext(t), p, args...)
	if err != nil {
		t.Fatal(err)
	}
	return &pod{p, n, addrs[0], addrs}
}

// reaches waits until pings from p to all the addresses are answered.
func (p *pod) reaches(t *testing.T, to ...netip.Addr) {
	t.Helper()
	for _, addr := range to {
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), p.Space, addr) })
	}
}

// waitState waits until a node sees the peer called name in a state.
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

// links returns the interfaces of a host, as "ip" names them.
func links(t *testing.T, h *nettest.Host) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(labtest.Run(t, h.Space, "ip", "-brief", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@") // behind which "ip" has the other end
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
