package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/guard/guardtest"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// addContainer adds a container by CNI.
func addContainer(t *testing.T, r *cnitest.Runtime, n *cluster.Node, name string) *pod {
	t.Helper()
	p := labtest.AddPod(t, n.Host, name)
	result, err := r.Add(testContext(t), "weft", p.Path(), cnitest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
	return &pod{Pod: p, node: n, addr: addr.Unmap(), addrs: []netip.Addr{addr.Unmap()}}
}

// waitGuards waits until a node has numbers of bound and open ports.
func waitGuards(t *testing.T, n *cluster.Node, bound, open int) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		if s := query[api.Status](t, n, "status").Guard; s.Bound != bound || s.Open != open {
			return fmt.Errorf("%d bound and %d open, want %d and %d", s.Bound, s.Open, bound, open)
		}
		return nil
	})
}

// TestGuardRunning: pods that were attached before --guard are bound while they run. Those that a guard would cut off go on, and are
// named until an operator says what they may send.
func TestGuardRunning(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	n := nodes[0]
	ranges := []string{"--range", "10.32.0.0/12", "--range", range6}
	start(t, nodes, ranges...)
	plain, open := newStation(t, attach(t, n, "plain")), newStation(t, attach(t, n, "open", "--guard", "off"))
	container := newStation(t, addContainer(t, newRuntime(t, n), n, "container"))
	virtual, nested := newStation(t, attach(t, n, "virtual")), newStation(t, attach(t, n, "nested"))
	copycat := newStation(t, attach(t, n, "copycat"))
	plain.warmUp(t, open, container, virtual, nested, copycat)
	vip := netip.MustParseAddr("10.32.200.1")
	labtest.Run(t, virtual.Space, "ip", "addr", "add", vip.String()+"/32", "dev", "eth0")
	labtest.Run(t, nested.Space, "ip", "link", "add", "upper", "link", "eth0", "type", "macvlan", "mode", "bridge")
	labtest.Run(t, copycat.Space, "ip", "-6", "addr", "flush", "dev", "eth0") // one of them follows from the MAC
	labtest.Run(t, copycat.Space, "ip", "link", "set", "eth0", "address", plain.MAC.String())
	plain.sends(t, open, true, guardtest.VIP(plain.Station, open.Station, vip))

	ping := plain.pinging(t, open.addr)
	ping.waitReplies(t, 3)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, nodes, append(ranges, "--guard", "pods")...)
	waitGuards(t, n, 2, 1)
	plain.sends(t, open, false, guardtest.Forbidden(plain.Station, open.Station))
	container.sends(t, open, false, guardtest.VIP(container.Station, open.Station, vip))
	ping.waitReplies(t, 5)
	ping.stop(t)
	plain.warmUp(t, open, container, virtual)

	// Those that use more go on.
	virtual.sends(t, open, true, guardtest.VIP(virtual.Station, open.Station, vip))
	named := func() string {
		c := conditions(t, n, health.PodsUnguarded)
		if len(c) != 1 || !strings.Contains(c[0].Remedy, "--allow-address") {
			t.Fatalf("conditions: %+v", c)
		}
		return c[0].Text
	}
	for _, part := range []string{
		"3 pods", virtual.Path(), vip.String(), nested.Path(), "other interfaces", copycat.Path(), "the MAC " + plain.MAC.String(),
	} {
		if text := named(); !strings.Contains(text, part) {
			t.Errorf("%q does not name %q", text, part)
		}
	}
	// Attaching again without a request does not cut them off, either.
	do(t, n, "attach", "--netns", virtual.Path())
	virtual.sends(t, open, true, guardtest.VIP(virtual.Station, open.Station, vip))
	do(t, n, "attach", "--netns", virtual.Path(), "--allow-address", vip.String())
	do(t, n, "attach", "--netns", nested.Path(), "--guard", "off")
	waitGuards(t, n, 3, 2)
	virtual.sends(t, open, true, guardtest.VIP(virtual.Station, open.Station, vip))
	virtual.sends(t, open, false, guardtest.Forbidden(virtual.Station, open.Station))
	if text := named(); !strings.Contains(text, "1 pods") {
		t.Errorf("afterwards: %q", text)
	}
	do(t, n, "detach", "--netns", copycat.Path())
	if c := conditions(t, n, health.PodsUnguarded); len(c) > 0 {
		t.Errorf("after the pod is gone: %+v", c)
	}
}

// TestGuardRunningByRequest: in Kubernetes, running containers are bound or opened as weft-kube requests, with what their annotations
// say, and not before.
func TestGuardRunningByRequest(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	n := nodes[0]
	start(t, nodes)
	r := newRuntime(t, n)
	bound, opened := newStation(t, addContainer(t, r, n, "bound")), newStation(t, addContainer(t, r, n, "opened"))
	virtual := newStation(t, addContainer(t, r, n, "virtual"))
	vip := netip.MustParseAddr("10.32.200.1")
	labtest.Run(t, virtual.Space, "ip", "addr", "add", vip.String()+"/32", "dev", "eth0")
	bound.warmUp(t, opened, virtual)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	argv := []string{
		filepath.Join(bin, "weft"), "up", "--name", n.Label(), "--state-dir", n.StateDir(), "--socket", n.Socket(), "--guard", "pods",
	}
	attached := newStation(t, attachUnguarded(t, n, argv))
	waitGuards(t, n, 1, 0) // the one that no annotation is for
	for _, s := range []*station{bound, opened, virtual} {
		s.sends(t, attached, true, guardtest.VIP(s.Station, attached.Station, netip.MustParseAddr("10.32.200.9")))
	}
	if c := conditions(t, n, health.PodsUnguarded); len(c) > 0 {
		t.Errorf("before weft-kube had time: %+v", c)
	}
	client, on, off := api.NewClient(n.Socket()), api.GuardPods, api.GuardOff
	request := func(s *station, mode api.GuardMode, allow ...netip.Prefix) error {
		return client.Guard(testContext(t), api.GuardRequest{IPs: s.addrs, Guard: mode, Allow: allow})
	}
	if err := request(bound, on); err != nil {
		t.Fatal(err)
	}
	if err := request(opened, off); err != nil {
		t.Fatal(err)
	}
	if err := request(virtual, on); err == nil || !strings.Contains(err.Error(), vip.String()) {
		t.Errorf("binding a pod with a further address: %v", err)
	}
	bound.sends(t, opened, false, guardtest.Forbidden(bound.Station, opened.Station))
	opened.sends(t, attached, true, guardtest.VIP(opened.Station, attached.Station, vip))
	virtual.sends(t, opened, true, guardtest.VIP(virtual.Station, opened.Station, vip))
	if c := conditions(t, n, health.PodsUnguarded); len(c) != 1 || !strings.Contains(c[0].Text, vip.String()) {
		t.Errorf("conditions: %+v", c)
	}
	if err := request(virtual, on, netip.PrefixFrom(vip, 32)); err != nil {
		t.Fatal(err)
	}
	virtual.sends(t, opened, true, guardtest.VIP(virtual.Station, opened.Station, vip))
	virtual.sends(t, opened, false, guardtest.VIP(virtual.Station, opened.Station, netip.MustParseAddr("10.32.200.9")))
	if err := client.Guard(testContext(t), api.GuardRequest{IPs: []netip.Addr{attached.addr}, Guard: off}); err == nil {
		t.Error("a request by address changed an attachment of weft attach")
	}
}

// attachUnguarded attaches a pod on a node without --guard, and starts the node again as if it was in a pod of Kubernetes.
func attachUnguarded(t *testing.T, n *cluster.Node, argv []string) *pod {
	t.Helper()
	up(t, n)
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	p := attach(t, n, "attached")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	labtest.Start(t, n.Host, nettest.ProcessConfig{Name: "weft", Argv: argv, Env: []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1", "PATH=" + os.Getenv("PATH"),
	}})
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	return p
}
