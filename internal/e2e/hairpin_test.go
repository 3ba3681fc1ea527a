package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// container creates a container on a node through CNI, so its port is in hairpin mode.
func container(t *testing.T, n *cluster.Node, name string) *pod {
	t.Helper()
	p := labtest.AddPod(t, n.Host, name)
	result, err := newRuntime(t, n).Add(testContext(t), "weft", p.Path(), cnitest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
	return &pod{Pod: p, node: n, addr: addr.Unmap(), addrs: []netip.Addr{addr.Unmap()}}
}

// bridged makes eth0 of a pod a port of a bridge in the pod, which gets its address, and returns two further hosts on that bridge, as
// virtual machines or the containers of a Docker in the pod are.
func bridged(t *testing.T, p *pod) (inner []*pod) {
	t.Helper()
	ip := func(s *nettest.Space, lines ...string) {
		t.Helper()
		for _, line := range lines {
			labtest.Run(t, s, append([]string{"ip"}, strings.Fields(line)...)...)
		}
	}
	ip(p.Space, "link add br0 type bridge", "addr flush dev eth0", "link set eth0 master br0", "link set br0 up",
		fmt.Sprintf("addr add %s/12 dev br0", p.addr))
	addr := p.addr
	for range 100 { // beyond the addresses that this test leases
		addr = addr.Next()
	}
	for i := range 2 {
		name := fmt.Sprintf("%s-inner%d", strings.TrimPrefix(p.Name(), p.node.Name()+"."), i)
		h := labtest.AddPod(t, p.node.Host, name)
		addr = addr.Next()
		ip(p.Space, fmt.Sprintf("link add port%d master br0 type veth peer name eth0 netns %s", i, h.Name()),
			fmt.Sprintf("link set port%d up", i))
		ip(h.Space, "link set lo up", "link set eth0 up", fmt.Sprintf("addr add %s/12 dev eth0", addr))
		inner = append(inner, &pod{Pod: h, node: p.node, addr: addr, addrs: []netip.Addr{addr}})
	}
	return inner
}

// TestBridgeInsideAPod: hosts behind a bridge in a pod reach each other, the pod, pods of this and another node, and are reached by
// them, for a pod of "weft attach" and one of CNI.
func TestBridgeInsideAPod(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(*testing.T, *cluster.Node, string) *pod{
		"attach": func(t *testing.T, n *cluster.Node, name string) *pod { return attach(t, n, name) },
		"cni":    container,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			start(t, nodes)
			outer := create(t, nodes[0], "outer")
			all := append([]*pod{create(t, nodes[0], "near"), create(t, nodes[1], "far")}, bridged(t, outer)...)
			all = append(all, outer)
			for _, from := range all {
				for _, to := range all {
					labtest.Run(t, from.Space, "ip", "neigh", "flush", "all") // with questions in all directions
					from.reaches(t, to.addr)
				}
			}
		})
	}
}

// TestHairpinMode: a container reaches itself through a service address and does not hear its own broadcasts, also after its bridge
// was deleted and restored; a namespace of "weft attach" is not in hairpin mode.
func TestHairpinMode(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	n := nodes[0]
	do(t, n, "expose")
	p, q := container(t, n, "p"), attach(t, n, "q")
	labtest.Run(t, n.Space, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
	labtest.Run(t, n.Space, "nft", fmt.Sprintf(`table ip service {
		chain prerouting { type nat hook prerouting priority dstnat
			ip daddr 192.0.2.80 dnat to %s
		}
		chain postrouting { type nat hook postrouting priority srcnat
			ct status dnat masquerade
		}
	}`, p.addr))
	labtest.Run(t, p.Space, "ip", "route", "replace", "192.0.2.80", "via", gatewayOf(t, n))
	check := func() {
		t.Helper()
		p.reaches(t, netip.MustParseAddr("192.0.2.80"))
		for _, at := range []*pod{p, q} {
			out := sniffed(t, at.Space, "eth0", "inbound and arp src host "+at.addr.String(), func() {
				_, _ = at.Run(testContext(t), "ping", "-c", "1", "-W", "1", at.addr.Next().Next().Next().String())
			})
			if strings.Contains(out, "ARP, Request") {
				t.Errorf("%s hears its own broadcast:\n%s", at.Name(), out)
			}
		}
		modes := labtest.Run(t, n.Space, "bridge", "-d", "link", "show")
		if got := strings.Count(modes, "hairpin on"); got != 1 {
			t.Errorf("%d ports in hairpin mode, want that of the container alone:\n%s", got, modes)
		}
	}
	check()
	labtest.Run(t, n.Space, "ip", "link", "del", "weave")
	p.reaches(t, q.addr)
	check()
}

// gatewayOf returns the address of a node's bridge.
func gatewayOf(t *testing.T, n *cluster.Node) string {
	t.Helper()
	fields := strings.Fields(labtest.Run(t, n.Space, "ip", "-br", "-4", "addr", "show", "weave"))
	addr, _, _ := strings.Cut(fields[2], "/")
	return addr
}
