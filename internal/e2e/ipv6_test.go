package e2e

import (
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

const range6 = "fd32::/64"

// attachAll is attach, and requires that the pod has an address of each of the given number of ranges.
func attachAll(t *testing.T, n *cluster.Node, name string, ranges int) *pod {
	t.Helper()
	p := attach(t, n, name)
	if len(p.addrs) != ranges {
		t.Fatalf("attach: %v; want an address of each of %d ranges", p.addrs, ranges)
	}
	return p
}

// TestDualStack runs an overlay with IPv4 and IPv6 over each family of the underlay, plain and encrypted.
func TestDualStack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		over6, secret bool
		mtu           int
		datapath      api.Datapath
		link          api.Link
	}{
		{"over IPv4", false, false, 1438, api.DatapathKernel, api.LinkDirect},
		{"over IPv6", true, false, 1418, api.DatapathKernel, api.LinkDirect},
		{"sealed, over IPv6", true, true, 1402, api.DatapathUserspace, api.LinkDirect},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			secret := newSecret(t)
			for i, n := range nodes {
				args := []string{"--range", "10.32.0.0/12", "--range", range6}
				if tt.secret {
					writeSecret(t, n, secret)
					args = append(args, "--secret-file", secretFile(n))
				}
				if tt.over6 {
					args = append(args, "--advertise", n.Addr6().String(), "["+nodes[1-i].Addr6().String()+"]")
				} else {
					args = append(args, nodes[1-i].Addr().String())
				}
				up(t, n, args...)
			}
			waitReady(t, nodes)
			p, q := attachAll(t, nodes[0], "p", 2), attachAll(t, nodes[1], "q", 2)
			p.reaches(t, q.addrs...)
			if s := query[api.Status](t, nodes[0], "status"); s.MTU != tt.mtu || s.Encrypted != tt.secret {
				t.Errorf("MTU %d, encrypted %v; want %d, %v", s.MTU, s.Encrypted, tt.mtu, tt.secret)
			}
			waitDatapath(t, nodes[0], "b", tt.datapath) // the nodes must first probe the kernel path
			if peer := waitLink(t, nodes[0], "b", tt.link); peer.Addr.Addr().Is6() != tt.over6 {
				t.Errorf("%+v", peer)
			}
			ranges := query[api.IPAM](t, nodes[0], "ipam").Ranges
			if len(ranges) != 2 || len(ranges[0].Owners) != 2 || len(ranges[1].Owners) != 2 {
				t.Errorf("%+v, want both ranges divided among both nodes", ranges)
			}
		})
	}
}

// TestIPv6Only runs an overlay without IPv4 addresses. Pods reach each other across nodes, the host reaches pods, and a
// container of a CNI runtime gets an address and a default route.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for i, n := range nodes {
		up(t, n, "--advertise", n.Addr6().String(), "--range", range6, "["+nodes[1-i].Addr6().String()+"]")
	}
	waitReady(t, nodes)
	p, q := attachAll(t, nodes[0], "p", 1), attachAll(t, nodes[1], "q", 1)
	p.reaches(t, q.addrs...)

	do(t, nodes[0], "expose")
	labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), nodes[0].Space, q.addr) })

	container := &pod{Pod: labtest.AddPod(t, nodes[1].Host, "container")}
	result, err := newRuntime(t, nodes[1]).Add(testContext(t), "weft", container.Path(), cnitest.Options{})
	if err != nil || len(result.IPs) != 1 || result.IPs[0].Address.IP.To4() != nil {
		t.Fatalf("%+v, %v; want one IPv6 address", result, err)
	}
	got := labtest.Run(t, container.Space, "ip", "-6", "route", "show", "default")
	if !strings.Contains(got, "via "+result.IPs[0].Gateway.String()) {
		t.Errorf("default route %q, want via %s", got, result.IPs[0].Gateway)
	}
	container.reaches(t, p.addrs...)
}

// TestContainerOfBothFamilies: the result of ADD has an address, a gateway and a default route of each family, and both
// families work.
func TestContainerOfBothFamilies(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--range", "10.32.0.0/12", "--range", range6)
	q := attachAll(t, nodes[1], "q", 2)
	container := &pod{Pod: labtest.AddPod(t, nodes[0].Host, "container")}
	result, err := newRuntime(t, nodes[0]).Add(testContext(t), "weft", container.Path(), cnitest.Options{})
	if err != nil || len(result.IPs) != 2 || result.IPs[0].Address.IP.To4() == nil || result.IPs[1].Address.IP.To4() != nil {
		t.Fatalf("%+v, %v; want one address per family", result, err)
	}
	defaults := 0
	for _, r := range result.Routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			defaults++
		}
	}
	if defaults != 2 {
		t.Errorf("routes %v, want a default route per family", result.Routes)
	}
	container.reaches(t, q.addrs...)
}

// TestSolicitationsStayOffTheOverlay is TestARPStaysOffTheOverlay for IPv6: a neighbor solicitation for a pod's address is
// sent only to the node that owns the address.
func TestSolicitationsStayOffTheOverlay(t *testing.T) {
	t.Parallel()
	for _, tt := range proxying {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b", "c")
			start(t, nodes, append(tt.args, "--datapath", "userspace", "--range", range6)...)
			pods := []*pod{attachAll(t, nodes[0], "p", 1), attachAll(t, nodes[1], "p", 1), attachAll(t, nodes[2], "p", 1)}
			for _, p := range pods {
				p.reaches(t, pods[0].addr, pods[1].addr, pods[2].addr)
			}
			// Solicitations go to a multicast group. The bridge of the third node would see them, even if its pods do not listen.
			out := sniffed(t, nodes[2].Space, "weave", "icmp6", func() {
				labtest.Run(t, pods[0].Space, "ip", "-6", "neigh", "flush", "all")
				pods[0].reaches(t, pods[1].addr)
			})
			if seen := strings.Contains(out, "who has "+pods[1].addr.String()); seen != tt.seen {
				t.Errorf("the third node saw the solicitation: %v, want %v:\n%s", seen, tt.seen, out)
			}
			if n := query[api.Status](t, nodes[0], "status").Neighbors; !tt.seen && n.Directed+n.Answered == 0 {
				t.Errorf("%+v, want a solicitation that was directed or answered", n)
			}
		})
	}
}
