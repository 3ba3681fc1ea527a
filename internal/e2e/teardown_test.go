package e2e

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
	"weft/internal/nettest/wireguardtest"
	"weft/internal/teardown"
)

// TestTeardown: a node that stopped, or crashed, without "weft leave" is removed from its host: links, rules, routes and settings are as
// before its start. Before that, the ways through the kernel, policies, packets from outside and the address of the host left theirs.
func TestTeardown(t *testing.T) {
	t.Parallel()
	for _, carrier := range []api.Carrier{api.CarrierDirect, api.CarrierWireGuard} {
		t.Run(string(carrier), func(t *testing.T) {
			t.Parallel()
			testTeardown(t, carrier)
		})
	}
}

func testTeardown(t *testing.T, carrier api.Carrier) {
	t.Helper()
	nodes, secret := newNodes(t, "a", "b"), newSecret(t)
	before := map[*cluster.Node]string{}
	for _, n := range nodes {
		args := slices.Clone(directRouting)
		if carrier == api.CarrierWireGuard {
			args = nil
			if !wireguardtest.Kernel() {
				device := wireguardtest.Start(t, n.Host)
				labtest.Run(t, n.Space, "ip", "link", "set", device, "up") // a device of the configuration stays up
				args = append(args, "--wireguard-device", device)
			}
			writeSecret(t, n, secret)
		}
		// "weft-kube prepare" turns forwarding on before the daemon does, and records that.
		labtest.Run(t, n.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
		labtest.Run(t, n.Space, "nft", "add", "table", "inet", "other")
		before[n] = hostState(t, n)
		if carrier == api.CarrierWireGuard {
			upSealed(t, nodes, n, args...)
		} else {
			up(t, n, append(args, others(nodes, n)...)...)
		}
	}
	waitReady(t, nodes)
	reachingPods(t, nodes)
	waitCarrier(t, nodes, carrier)
	for i, n := range nodes {
		do(t, n, "expose", "--inward=nat")
		if err := n.Host.Do(func() error {
			fw, err := firewall.New(t.Context())
			if err == nil {
				err = fw.Apply(t.Context(), policy.Compile(&policy.Cluster{Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{
					{Namespace: "x", Name: "p", IPs: []netip.Addr{netip.MustParseAddr("10.32.0.1")}, Local: true},
				}}))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
		} else {
			n.Process().Kill()
		}
		if hostState(t, n) == before[n] {
			t.Fatal("the daemon has left nothing on its host: the test has no effect")
		}
		if err := n.Host.Do(func() error {
			r, err := teardown.Host(t.Context())
			if r.Pods != 1 || len(r.Kept) > 0 {
				t.Errorf("%s: %+v", n.Label(), r)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(strings.Split(before[n], "\n"), strings.Split(hostState(t, n), "\n")); diff != "" {
			t.Errorf("%s (-before the start +after the teardown):\n%s", n.Label(), diff)
		}
	}
}

// hostSetting matches the settings that are compared: those of the host, and those of interfaces that all hosts have.
var hostSetting = regexp.MustCompile(`^net\.(bridge\.|ipv4\.ip_forward |ipv[46]\.(conf|neigh)\.(all|default|lo|eth0)\.)`)

// hostState returns what a daemon changes on a host.
func hostState(t *testing.T, n *cluster.Node) string {
	t.Helper()
	out := []string{strings.Join(links(t, n.Host), " ")}
	for _, line := range []string{
		"ip -brief address show scope global", "nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all",
		"ip -6 route show table all", "bridge vlan", "tc qdisc",
	} {
		out = append(out, "# "+line, labtest.Run(t, n.Space, strings.Fields(line)...))
	}
	for line := range strings.Lines(labtest.Run(t, n.Space, "sysctl", "-a")) {
		if hostSetting.MatchString(line) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}
