package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// renumberModes are the ways in which frames are carried, and the families of the underlay.
var renumberModes = []struct {
	name   string
	over6  bool
	secret bool
	args   []string
	want   api.Datapath
}{
	{"userspace", false, false, []string{"--datapath", "userspace"}, api.DatapathUserspace},
	{"sealed", false, true, nil, api.DatapathUserspace},
	{"kernel", false, false, nil, api.DatapathKernel},
	{"userspace over IPv6", true, false, []string{"--datapath", "userspace"}, api.DatapathUserspace},
	{"sealed over IPv6", true, true, nil, api.DatapathUserspace},
	{"kernel over IPv6", true, false, nil, api.DatapathKernel},
}

// TestRenumber: the address of a running node is replaced by another one, as by DHCP; then a second address replaces that one,
// before the first is removed. Traffic of pods continues, in both directions and as before, and all nodes know the new address.
func TestRenumber(t *testing.T) {
	t.Parallel()
	for _, mode := range renumberModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b", "c")
			startOver(t, nodes, mode.over6, mode.secret, mode.args...)
			pods := reachingPods(t, nodes)
			ping := pods[0].pinging(t, pods[1].addr)
			ping.waitReplies(t, 5)

			labtest.Run(t, nodes[1].Space, "sysctl", "-w", "net.ipv4.conf.eth0.promote_secondaries=1") // as systemd does
			first, second, third := addrOf(nodes[1], mode.over6), address(mode.over6, 102), address(mode.over6, 103)
			changeAddress(t, nodes[1], "del", first)
			changeAddress(t, nodes[1], "add", second)
			waitAddress(t, nodes, nodes[1], second)
			ping.waitReplies(t, 20)

			changeAddress(t, nodes[1], "add", third)
			changeAddress(t, nodes[1], "del", second)
			waitAddress(t, nodes, nodes[1], third)
			ping.waitReplies(t, 20)

			pods[1].reaches(t, pods[0].addr)
			transferBoth(t, pods, 1<<20)
			waitDatapath(t, nodes[0], "b", mode.want)
			waitDatapath(t, nodes[1], "a", mode.want)
			waitCondition(t, nodes[1], "with an address", health.AddressMissing)
		})
	}
}

// TestRenumberTogether: two of three nodes get other addresses at the same time. They find each other over the third.
func TestRenumberTogether(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	pods := reachingPods(t, nodes)
	for i, n := range nodes[:2] {
		changeAddress(t, n, "del", n.Addr())
		changeAddress(t, n, "add", address(false, 101+i))
	}
	for i, n := range nodes[:2] {
		waitAddress(t, nodes, n, address(false, 101+i))
	}
	pods[0].reaches(t, pods[1].addr)
	pods[1].reaches(t, pods[0].addr)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
}

// TestAddressReturns: a node without any address has a condition and is not ready. It recovers when the same address returns, and
// when another one comes. A short flap changes nothing.
func TestAddressReturns(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	pods := reachingPods(t, nodes)
	for _, last := range []int{2, 102} {
		s := query[api.Status](t, nodes[1], "status")
		changeAddress(t, nodes[1], "del", s.Advertise.Addr())
		waitCondition(t, nodes[1], "without an address", health.AddressMissing, s.Advertise.Addr().String())
		if query[api.Status](t, nodes[1], "status").Ready {
			t.Error("a node without an address is ready")
		}
		changeAddress(t, nodes[1], "add", address(false, last))
		waitAddress(t, nodes, nodes[1], address(false, last))
		pods[0].reaches(t, pods[1].addr)
		waitCondition(t, nodes[1], "with an address", health.AddressMissing)
		waitReady(t, nodes)
	}
}

// TestAdvertisedAddressRemoved: an address that the operator has given is never replaced. A condition names it while it is missing.
func TestAdvertisedAddressRemoved(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for _, n := range nodes {
		up(t, n, append([]string{"--advertise", n.Addr().String()}, others(nodes, n)...)...)
	}
	waitReady(t, nodes)
	pods := reachingPods(t, nodes)
	changeAddress(t, nodes[1], "add", address(false, 102))
	changeAddress(t, nodes[1], "del", nodes[1].Addr())
	waitCondition(t, nodes[1], "without its address", health.AddressMissing, nodes[1].Addr().String(), "--advertise")
	changeAddress(t, nodes[1], "add", nodes[1].Addr())
	waitCondition(t, nodes[1], "with an address", health.AddressMissing)
	waitAddress(t, nodes, nodes[1], nodes[1].Addr())
	pods[0].reaches(t, pods[1].addr)
}

// TestAddressMovesToBridge: the interface of the underlay becomes a port of a bridge, which gets its address, as tools for virtual
// machines do it. The bridge has a smaller MTU, which pods follow.
func TestAddressMovesToBridge(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	addr := nodes[1].Addr()
	for _, line := range []string{
		"link add br0 type bridge", "link set br0 mtu 1450", "link set eth0 mtu 1450", "addr del " + addr.String() + "/24 dev eth0",
		"link set eth0 master br0", "link set br0 up", "addr add " + addr.String() + "/24 dev br0",
	} {
		labtest.Run(t, nodes[1].Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	waitMTU(t, pods[1].Space, "eth0", 1450-62)
	pods[0].reaches(t, pods[1].addr)
	pods[1].reaches(t, pods[0].addr)
	waitAddress(t, nodes, nodes[1], addr)
}

// startOver is start over one family of the underlay, without --advertise.
func startOver(t *testing.T, nodes []*cluster.Node, over6, secret bool, args ...string) {
	t.Helper()
	key := newSecret(t)
	for _, n := range nodes {
		own := args
		if secret {
			writeSecret(t, n, key)
			own = append([]string{"--secret-file", secretFile(n)}, own...)
		}
		for _, o := range nodes {
			if o != n {
				own = append(own[:len(own):len(own)], peerText(addrOf(o, over6)))
			}
		}
		up(t, n, own...)
	}
	waitReady(t, nodes)
}

// peerText returns an address as an argument of "weft up".
func peerText(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

func addrOf(n *cluster.Node, over6 bool) netip.Addr {
	if over6 {
		return n.Addr6()
	}
	return n.Addr()
}

// address returns an address of the underlay that no host of the lab has at first.
func address(over6 bool, last int) netip.Addr {
	if over6 {
		return netip.MustParseAddr(fmt.Sprintf("fd77::%x", last))
	}
	return netip.MustParseAddr(fmt.Sprintf("192.168.77.%d", last))
}

// changeAddress adds or removes an address of a host.
func changeAddress(t *testing.T, n *cluster.Node, verb string, addr netip.Addr) {
	t.Helper()
	bits := "/24"
	if addr.Is6() {
		bits = "/64"
	}
	labtest.Run(t, n.Space, "ip", "addr", verb, addr.String()+bits, "dev", "eth0")
}

// waitAddress waits until all nodes know one of them, alive, by an address.
func waitAddress(t *testing.T, nodes []*cluster.Node, of *cluster.Node, addr netip.Addr) {
	t.Helper()
	for _, n := range nodes {
		labtest.Until(t, patience, func() error {
			for _, p := range query[[]api.Peer](t, n, "peers") {
				if p.Name == of.Label() && (p.Addr.Addr() != addr || p.State != api.PeerAlive) {
					return fmt.Errorf("%s has %s at %s, %s; want it alive at %s", n.Label(), p.Name, p.Addr, p.State, addr)
				}
			}
			return nil
		})
	}
	if got := query[api.Status](t, of, "status").Advertise.Addr(); got != addr {
		t.Errorf("the status of %s has address %s, want %s", of.Label(), got, addr)
	}
}
