package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// orphanOwner is the prefix of the owners of leases that the node holds for pods with lost leases.
const orphanOwner = "weft:orphan/"

// TestPodsOutliveTheirLeases removes ipam.db while pods keep running. New pods get other addresses, and the node warns. An
// address becomes free when its pod is deleted, and belongs to its pod again when the pod is attached again.
func TestPodsOutliveTheirLeases(t *testing.T) {
	t.Parallel()
	ranges := []string{"--range", "10.32.0.0/12", "--range", "fd32::/64"}
	nodes := newNodes(t, "a", "b")
	start(t, nodes, ranges...)
	n, runtime := nodes[0], newRuntime(t, nodes[0])
	p, q, far := attach(t, n, "p"), attach(t, n, "q"), attach(t, nodes[1], "far")
	named := attach(t, n, "named", "--owner", "web")
	container := labtest.AddPod(t, n.Host, "container")
	result, err := runtime.Add(testContext(t), "weft", container.Path(), cnitest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	running := slices.Concat(p.addrs, q.addrs, named.addrs)
	for _, ip := range result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		running = append(running, addr.Unmap())
	}
	gateways := query[api.Status](t, n, "status").Exposed

	loseLeases(t, n)
	up(t, n, append(slices.Clone(ranges), others(nodes, n)...)...)
	waitReady(t, nodes)
	if got := query[api.Status](t, n, "status").Exposed; !slices.Equal(got, gateways) {
		t.Errorf("the bridge has %v, before %v", got, gateways)
	}
	for i := range 8 {
		fresh := attach(t, n, fmt.Sprintf("fresh%d", i))
		for _, addr := range fresh.addrs {
			if slices.Contains(running, addr) || slices.ContainsFunc(gateways, func(g netip.Prefix) bool { return g.Addr() == addr }) {
				t.Errorf("%s was leased twice", addr)
			}
		}
	}
	p.reaches(t, append(slices.Clone(q.addrs), far.addrs...)...)
	far.reaches(t, running...)
	labtest.Until(t, patience, func() error { // the pods in named namespaces have their leases back
		return orphans(t, n, 2, running[len(p.addrs)+len(q.addrs):]...)
	})
	if out, err := n.Do(testContext(t), "ip", "release", orphanOwner+"x"); err == nil || !strings.Contains(out, "is reserved") {
		t.Errorf("releasing a lease that the daemon holds: %q, %v", out, err)
	}
	if err := runtime.Check(testContext(t), "weft", container.Path(), cnitest.Options{}); err != nil {
		t.Errorf("CHECK of a container that lost its lease: %v", err)
	}

	if err := netns.DeleteNamed(q.Name()); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error { return orphans(t, n, 2, named.addrs...) })
	for _, again := range []struct {
		pod   *pod
		owner string
		args  []string
	}{{p, "netns:" + p.Path() + "/eth0", nil}, {named, "web", []string{"--owner", "web"}}} {
		addrs, err := n.Attach(testContext(t), again.pod.Pod, again.args...)
		if err != nil || !slices.Equal(addrs, again.pod.addrs) {
			t.Errorf("attached again as %v, %v, want %v", addrs, err, again.pod.addrs)
		}
		for _, l := range query[[]api.Lease](t, n, "ip", "lookup", again.owner) {
			if l.Owner != again.owner || !slices.Contains(again.pod.addrs, l.IP.Addr()) {
				t.Errorf("%+v, want the lease of %q for one of %v", l, again.owner, again.pod.addrs)
			}
		}
		again.pod.reaches(t, far.addrs...)
	}
	if err := runtime.Del(testContext(t), "weft", container.Path(), cnitest.Options{}); err != nil {
		t.Error(err)
	}
	if held := heldFor(t, n); len(held) > 0 { // DEL ends the lease of the container
		t.Errorf("%v are still held after the last pod was deleted", held)
	}
	labtest.Until(t, patience, func() error { return orphans(t, n, 0) })
}

// TestPodsOutliveTheirNode removes all state of a node. It starts again as another node, which does not own the addresses
// of its pods until they are reclaimed.
func TestPodsOutliveTheirNode(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	n := nodes[0]
	p, far := attach(t, n, "p"), attach(t, nodes[1], "far")
	old := query[api.Status](t, n, "status").ID
	loseLeases(t, n)
	if err := os.Remove(filepath.Join(n.StateDir(), "node.key")); err != nil {
		t.Fatal(err)
	}
	waitState(t, nodes[1], "a", api.PeerDead)
	up(t, n, others(nodes, n)...)
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	labtest.Until(t, patience, func() error {
		found := conditions(t, n, health.PodAddressNotOwned)
		if len(found) == 0 || !strings.Contains(found[0].Text, p.addr.String()+", which node "+old.String()+" allocates") {
			return fmt.Errorf("the conditions are %+v", found)
		}
		return nil
	})
	do(t, nodes[1], "reclaim", old.String())
	labtest.Until(t, patience, func() error {
		if warnings := strings.Join(query[api.Status](t, n, "status").Warnings, "\n"); strings.Contains(warnings, "The pod behind vweft") {
			return fmt.Errorf("the warnings are %q", warnings)
		}
		return nil
	})
	labtest.Until(t, patience, func() error {
		if leases := query[[]api.Lease](t, n, "ip", "lookup", "netns:"+p.Path()+"/eth0"); len(leases) != 1 || leases[0].IP.Addr() != p.addr {
			return fmt.Errorf("the pod has %+v, want %s", leases, p.addr)
		}
		return nil
	})
	far.reaches(t, p.addr)
}

// loseLeases stops a node and renames its ipam.db.
func loseLeases(t *testing.T, n *cluster.Node) {
	t.Helper()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.StateDir(), "ipam.db")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
}

// orphans returns an error unless a node warns about the given number of pods without a lease, names all of addrs in the
// warning, and holds the addresses of these pods.
func orphans(t *testing.T, n *cluster.Node, pods int, addrs ...netip.Addr) error {
	t.Helper()
	warnings := strings.Join(query[api.Status](t, n, "status").Warnings, "\n")
	held := heldFor(t, n)
	owners := map[string]bool{}
	for _, owner := range held {
		owners[owner] = true
	}
	if len(owners) != pods {
		return fmt.Errorf("addresses of %d pods are held, want %d: %v", len(owners), pods, held)
	}
	if (pods > 0) != strings.Contains(warnings, "without a known lease") ||
		pods > 0 && !strings.Contains(warnings, fmt.Sprintf("%d pods run here without a known lease", pods)) {
		return fmt.Errorf("%d pods, and the warnings are %q", pods, warnings)
	}
	for _, addr := range addrs {
		if held[addr] == "" || !strings.Contains(warnings, addr.String()) {
			return fmt.Errorf("%s is not held: %v, %s", addr, held, warnings)
		}
	}
	return nil
}

// heldFor returns the addresses that a node holds for pods without a lease, with their owners.
func heldFor(t *testing.T, n *cluster.Node) map[netip.Addr]string {
	t.Helper()
	held := map[netip.Addr]string{}
	for _, l := range query[[]api.Lease](t, n, "ip", "list") {
		if strings.HasPrefix(l.Owner, orphanOwner) {
			held[l.IP.Addr()] = l.Owner
		}
	}
	return held
}

// TestAddressesOfAnotherManager: the node does not lease an address of its range that another IPAM plugin assigned to a
// container, while the container uses it, and does not warn. It ignores addresses outside of the range.
func TestAddressesOfAnotherManager(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	n := nodes[0]
	attach(t, n, "p") // divides the range
	runtime := newRuntime(t, n)
	for network, subnet := range map[string]string{"inside": "10.40.7.0/24", "outside": "172.30.7.0/24"} {
		conflist := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "weft", "socket": %q,
			"ipam": {"type": "host-local", "dataDir": %q, "subnet": %q}}]}`, network, n.Socket(), filepath.Join(n.Dir(), "ipam"), subnet)
		if err := runtime.Configure(network, conflist); err != nil {
			t.Fatal(err)
		}
	}
	var want netip.Addr
	inside, outside := labtest.AddPod(t, n.Host, "inside"), labtest.AddPod(t, n.Host, "outside")
	for network, pod := range map[string]string{"inside": inside.Path(), "outside": outside.Path()} {
		result, err := runtime.Add(testContext(t), network, pod, cnitest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if network == "inside" {
			addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
			want = addr.Unmap()
		}
	}
	labtest.Until(t, patience, func() error {
		if held := heldFor(t, n); len(held) != 1 || held[want] == "" {
			return fmt.Errorf("held: %v, want %s", held, want)
		}
		return nil
	})
	for _, code := range []health.Code{health.PodsWithoutLease, health.PodAddressesUnknown, health.PodScanFailed} {
		if found := conditions(t, n, code); len(found) > 0 {
			t.Errorf("the conditions are %+v", found)
		}
	}
	if err := runtime.Del(testContext(t), "inside", inside.Path(), cnitest.Options{}); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		if held := heldFor(t, n); len(held) > 0 {
			return fmt.Errorf("held: %v", held)
		}
		return nil
	})
}
