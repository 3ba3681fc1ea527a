package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// proxying are the modes of the ARP proxy, and whether nodes that are not involved see requests.
var proxying = []struct {
	name string
	args []string
	seen bool
}{{"directed", nil, false}, {"flooded", []string{"--no-arp-proxy"}, true}}

// TestARPStaysOffTheOverlay: an ARP request for a pod's address does not reach a third node, unless the proxy is disabled.
// A ping to an unused address still fails as unreachable.
func TestARPStaysOffTheOverlay(t *testing.T) {
	t.Parallel()
	for _, tt := range proxying {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b", "c")
			start(t, nodes, append(tt.args, "--datapath", "userspace")...)
			pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")}
			for _, p := range pods {
				for _, q := range pods {
					p.reaches(t, q.addr)
				}
			}
			out := sniffed(t, pods[2].Space, "eth0", "arp", func() {
				labtest.Run(t, pods[0].Space, "ip", "neigh", "flush", "all")
				pods[0].reaches(t, pods[1].addr)
			})
			if seen := strings.Contains(out, "who-has "+pods[1].addr.String()); seen != tt.seen {
				t.Errorf("the third node's pod saw the request: %v, want %v:\n%s", seen, tt.seen, out)
			}
			// An unused address of b's part of the range.
			free := pods[1].addr.Next().Next().Next()
			got, _ := pods[0].Run(testContext(t), "ping", "-n", "-c", "1", "-W", "5", free.String())
			if !strings.Contains(got, "Unreachable") {
				t.Errorf("a ping to the unused address %s: %s", free, got)
			}
			t.Logf("%+v", query[api.Status](t, nodes[0], "status").Neighbors)
		})
	}
}

// sniffed returns the output of tcpdump with a filter on a device. It starts tcpdump, calls during, and stops tcpdump five
// seconds after its start.
func sniffed(t *testing.T, at *nettest.Space, device, filter string, during func()) string {
	t.Helper()
	sniff := at.Command(testContext(t), "timeout", "5", "tcpdump", "-n", "-l", "-i", device, filter)
	var out lockedBuffer
	sniff.Stdout, sniff.Stderr = &out, &out
	if err := sniff.Start(); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		if !strings.Contains(out.String(), "listening") {
			return errors.New("tcpdump is starting")
		}
		return nil
	})
	during()
	_ = sniff.Wait() // "timeout" ends it
	return out.String()
}

// TestAddressMovesToAnotherNode: an address of b's part of the range that a pod on c has, as after a move by VRRP, is found from
// a and from b, by clients that never heard its announcement: b does not answer the first question.
func TestAddressMovesToAnotherNode(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes, "--datapath", "userspace", "--range", "10.32.0.0/12", "--range", range6)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")}
	for i, mine := range pods[1].addrs {
		vip := mine
		for range 20 {
			vip = vip.Next()
		}
		if owner := pods[2].addrs[i]; owner == vip {
			t.Fatalf("%s is leased", vip)
		}
		command := []string{"ip", "addr", "add", netip.PrefixFrom(vip, vip.BitLen()).String(), "dev", "eth0"}
		if vip.Is6() {
			command = append(command, "nodad")
		}
		labtest.Run(t, pods[2].Space, command...)
		pods[0].reaches(t, vip)
		pods[1].reaches(t, vip)
	}
}
