package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// newRuntime returns a container runtime on the node's host, with the configuration that "weft-kube install" writes.
func newRuntime(t *testing.T, n *cluster.Node) *cnitest.Runtime {
	t.Helper()
	if _, err := os.Stat(filepath.Join(cnitest.SystemPlugins(), "portmap")); err != nil {
		t.Fatalf("the reference plugins are missing (Debian: containernetworking-plugins): %v", err)
	}
	r, err := cnitest.New(n.Host, plugins)
	if err == nil {
		err = r.Configure("weft", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "weft", "plugins": [
			{"type": "weft", "socket": %q, "hairpin": true},
			{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}`, n.Socket()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNamesOfContainers: a container has the name that its runtime passes, on all nodes until its runtime deletes it, or its namespace is
// gone. Its resolver is its node.
func TestNamesOfContainers(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "dig")
	nodes := newNodes(t, "a", "b")
	for i, n := range nodes {
		up(t, n, append([]string{"--dns-domain", "pods.example.org"}, others(nodes, nodes[i])...)...)
	}
	waitReady(t, nodes)
	r := newRuntime(t, nodes[0])
	if err := r.Configure("named", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "named", "plugins": [
		{"type": "weft", "socket": %q, "names": true}]}`, nodes[0].Socket())); err != nil {
		t.Fatal(err)
	}
	asker := attach(t, nodes[1], "asker")
	p := labtest.AddPod(t, nodes[0].Host, "web")
	options := cnitest.Options{Args: "IgnoreUnknown=1;K8S_POD_NAME=My_Web"}
	add := func() *pod {
		t.Helper()
		result, err := r.Add(testContext(t), "named", p.Path(), options)
		if err != nil {
			t.Fatal(err)
		}
		web := &pod{Pod: p, node: nodes[0]}
		addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		web.addr = addr.Unmap()
		gateway := result.IPs[0].Gateway.String()
		if diff := cmp.Diff(types.DNS{Nameservers: []string{gateway}, Search: []string{"pods.example.org"}}, result.DNS); diff != "" {
			t.Errorf("DNS of the result: %s", diff)
		}
		asker.answers(t, "my-web.pods.example.org", web.addr.String())
		web.answers(t, "my-web.pods.example.org", web.addr.String())
		return web
	}
	add()
	list := query[[]api.Name](t, nodes[0], "dns", "list")
	if len(list) != 1 || list[0].Source != api.NameFromContainer || !strings.HasPrefix(list[0].Owner, "cni/named/") {
		t.Errorf("names %+v", list)
	}
	if err := r.Del(testContext(t), "named", p.Path(), options); err != nil {
		t.Error(err)
	}
	asker.answers(t, "my-web.pods.example.org")

	options.Args = "IgnoreUnknown=1;K8S_POD_NAME=My_Web;K8S_POD_NAMESPACE=My_Web" // as older versions of podman do
	add()
	if err := netns.DeleteNamed(p.Name()); err != nil {
		t.Fatal(err)
	}
	asker.answers(t, "my-web.pods.example.org")
	if err := r.Del(testContext(t), "named", p.Path(), options); err != nil {
		t.Error(err)
	}
}

// TestContainersOfTwoNodes creates a container on each of two nodes, with cnitool as the runtime and the reference portmap
// plugin after weft's plugin. The containers reach each other, and a published port works.
func TestContainersOfTwoNodes(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	runtimes := []*cnitest.Runtime{newRuntime(t, nodes[0]), newRuntime(t, nodes[1])}
	waitCarrier(t, nodes, api.CarrierVXLAN) // which has links of its own
	hostBefore := links(t, nodes[1].Host)
	var pods []*pod
	options := cnitest.Options{Capabilities: `{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
	for i, n := range nodes {
		p := labtest.AddPod(t, n.Host, "container")
		result, err := runtimes[i].Add(testContext(t), "weft", p.Path(), options)
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		pods = append(pods, &pod{Pod: p, node: n, addr: addr.Unmap()})
	}
	pods[0].reaches(t, pods[1].addr)
	pods[1].reaches(t, pods[0].addr)

	// Host a connects to a server in the container on b through the published port.
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	server := pods[1].Command(ctx, "iperf3", "--server", "--port", "80")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		_, err := nodes[0].Run(testContext(t), "iperf3", "--client", nodes[1].Addr().String(), "--port", "8080", "--bytes", "1M")
		return err
	})
	stop()
	_ = server.Wait() // it was killed

	for range 2 { // runtimes call DEL twice
		if err := runtimes[1].Del(testContext(t), "weft", pods[1].Path(), options); err != nil {
			t.Error(err)
		}
	}
	labtest.Until(t, patience, func() error { // the daemon has links of its own for a moment, when it looks at the host
		if diff := cmp.Diff(hostBefore, links(t, nodes[1].Host)); diff != "" {
			return fmt.Errorf("links of the host (-before +after): %s", diff)
		}
		return nil
	})
	for _, l := range query[[]api.Lease](t, nodes[1], "ip", "list") {
		if strings.HasPrefix(l.Owner, "cni/") {
			t.Errorf("lease left behind: %+v", l)
		}
	}
}

// TestContainerWithoutDaemon: an ADD without a running daemon fails with an error that names the socket, and succeeds when
// the daemon runs again.
func TestContainerWithoutDaemon(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	runtime := newRuntime(t, nodes[0])
	p := labtest.AddPod(t, nodes[0].Host, "container")
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	_, err := runtime.Add(testContext(t), "weft", p.Path(), cnitest.Options{})
	if err == nil || !strings.Contains(err.Error(), nodes[0].Socket()) {
		t.Errorf("ADD without the daemon: %v, want an error that names the socket", err)
	}
	up(t, nodes[0])
	waitReady(t, nodes)
	if _, err := runtime.Add(testContext(t), "weft", p.Path(), cnitest.Options{}); err != nil {
		t.Errorf("ADD with the daemon back: %v", err)
	}
}
