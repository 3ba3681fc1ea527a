package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/kube"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/critest"
	"weft/internal/nettest/labtest"
)

// containerds returns the paths of the runtimes to test: the one in PATH, and optionally the one in $CONTAINERD.
func containerds(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	path, err := exec.LookPath("containerd")
	if err != nil {
		labtest.Missing(t, "containerd (Debian: containerd)")
	}
	found["system"] = path
	if other := os.Getenv("CONTAINERD"); other != "" {
		found["other"] = other
	}
	return found
}

// installOn installs the plugin and the necessary reference plugins into a folder of a host. Configuration on the result
// writes the CNI configuration.
func installOn(t *testing.T, n *cluster.Node) *kube.Install {
	t.Helper()
	i := &kube.Install{
		Plugin: filepath.Join(t.TempDir(), "weft-cni"), Socket: n.Socket(),
		BinDir: filepath.Join(n.Dir(), "cni-bin"), ConfDir: filepath.Join(n.Dir(), "cni-conf"),
	}
	from := map[string]string{i.Plugin: filepath.Join(plugins, "weft")}
	for _, name := range []string{"portmap", "loopback"} {
		from[filepath.Join(filepath.Dir(i.Plugin), name)] = filepath.Join(plugins, "reference", name)
	}
	// Plugins keeps an existing file, even an old one.
	from[filepath.Join(i.BinDir, "portmap")] = filepath.Join(cnitest.SystemPlugins(), "portmap")
	for _, dir := range []string{i.BinDir, i.ConfDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for to, source := range from {
		if err := os.Symlink(source, to); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.Plugins(); err != nil {
		t.Fatal(err)
	}
	return i
}

// countOfPort matches an element of the guard's set with the broadcasts of each port.
var countOfPort = regexp.MustCompile(`"vweft\w+" limit rate`)

// leftovers returns everything that pods may leave behind on a host.
func leftovers(t *testing.T, n *cluster.Node) map[string][]string {
	t.Helper()
	left := map[string][]string{"links": links(t, n.Host)}
	for line := range strings.Lines(labtest.Run(t, n.Space, "nft", "--stateless", "list", "ruleset")) {
		if strings.Contains(line, "elements") && strings.Contains(line, " timeout ") || countOfPort.MatchString(line) {
			continue // they end by themselves
		}
		left["rules"] = append(left["rules"], strings.TrimSpace(line))
	}
	slices.Sort(left["rules"]) // the order of tables is the order of their last creation
	for _, l := range query[[]api.Lease](t, n, "ip", "list") {
		left["leases"] = append(left["leases"], l.Owner)
	}
	spaces, err := filepath.Glob("/run/netns/cni-*")
	if err != nil {
		t.Fatal(err)
	}
	left["namespaces"] = spaces
	return left
}

// TestContainerd: containerd creates and removes fifty pods, several at once. The pods are reachable by their addresses and
// by ports of the host, from another node and from themselves. Nothing is left of them at the end.
func TestContainerd(t *testing.T) {
	for name, path := range containerds(t) {
		t.Run(name, func(t *testing.T) { testContainerd(t, path) })
	}
}

func testContainerd(t *testing.T, containerd string) {
	const count = 50
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	a, b := nodes[0], nodes[1]
	install := installOn(t, a)
	r, err := critest.Start(testContext(t), a.Host, containerd, install.BinDir, install.ConfDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd logged:\n%s", r.Logs())
		}
		_ = r.Close()
	})
	if missing, err := r.NetworkReady(testContext(t)); err != nil || missing == "" {
		t.Errorf("without a configuration the network is ready: %v", err)
	}
	if _, err := install.Configuration(); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		missing, err := r.NetworkReady(testContext(t))
		if err == nil && missing != "" {
			err = fmt.Errorf("the network is not ready: %s", missing)
		}
		return err
	})
	ports := func(i int) map[int32]int32 { return map[int32]int32{int32(20000 + i): 80} }
	remove := func(p *critest.Pod) error {
		for range 2 {
			if err := r.Stop(testContext(t), p); err != nil {
				return err
			}
		}
		return r.Remove(testContext(t), p)
	}
	first, err := r.Run(testContext(t), "first", ports(count)) // the first pod creates rules and devices that stay
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(first); err != nil {
		t.Fatal(err)
	}
	before := leftovers(t, a)

	pods := make([]*critest.Pod, count)
	var group errgroup.Group
	group.SetLimit(10)
	for i := range pods {
		group.Go(func() (err error) {
			pods[i], err = r.Run(testContext(t), fmt.Sprint("pod", i), ports(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range pods {
		if seen[p.IPs[0]] {
			t.Errorf("%s was assigned twice", p.IPs[0])
		}
		seen[p.IPs[0]] = true
	}
	client := attach(t, b, "client")
	for _, i := range []int{0, count / 2, count - 1} {
		client.reaches(t, netip.MustParseAddr(pods[i].IPs[0]))
		reachedByPort(t, a, b, pods[i], 20000+i)
	}
	for _, p := range pods {
		group.Go(func() error { return remove(p) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, leftovers(t, a)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// reachedByPort starts a server in a pod of host a, and checks that host b and the pod itself reach it by a port of host a.
func reachedByPort(t *testing.T, a, b *cluster.Node, p *critest.Pod, port int) {
	t.Helper()
	serveHTTP(t, p)
	url := "http://" + net.JoinHostPort(a.Addr().String(), fmt.Sprint(port))
	labtest.Until(t, patience, func() error {
		_, err := b.Run(testContext(t), "curl", "--silent", "--fail", "--max-time", "3", url)
		return err
	})
	itself := exec.CommandContext(testContext(t), "nsenter", "--net="+p.Netns, "curl", "--silent", "--fail", "--max-time", "3", url)
	if out, err := itself.CombinedOutput(); err != nil {
		t.Errorf("pod %s does not reach itself by port %d of the host: %v %s", p.ID, port, err, out)
	}
}

// serveHTTP serves HTTP at port 80 of a pod until the test ends.
func serveHTTP(t *testing.T, p *critest.Pod) {
	t.Helper()
	var l net.Listener
	err := ns.WithNetNSPath(p.Netns, func(ns.NetNS) (err error) {
		l, err = net.Listen("tcp", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		hello := func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "hello") }
		_ = http.Serve(l, http.HandlerFunc(hello)) //nolint:gosec // a test
	}()
}
