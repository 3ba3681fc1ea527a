package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// printedNodes stands for the addresses of the nodes in the rules of OPERATIONS.md.
const printedNodes = "192.0.2.0/24"

// printedRules returns the blocks with rules in the section about firewalls of OPERATIONS.md, as they are printed.
func printedRules(t *testing.T) (nft, iptables string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Ports and firewalls\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for i, block := range strings.Split(section, "\n```\n") {
		switch {
		case i%2 == 0: // prose
		case strings.HasPrefix(block, "table inet filter {"):
			nft = block
		case strings.HasPrefix(block, "iptables "):
			iptables = block
		}
	}
	if !strings.Contains(nft, printedNodes) || !strings.Contains(iptables, printedNodes) {
		t.Fatalf("the section has no rules for %s:\n%s", printedNodes, section)
	}
	return nft, iptables
}

// closedPort is a port that no rule names.
const closedPort = 9999

// listenOn listens on a port of TCP in a namespace, and accepts nothing: the kernel answers.
func listenOn(t *testing.T, s *nettest.Space, port int) {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// getsNothing fails the test unless connections to a port get no answer at all.
func getsNothing(t *testing.T, what string, from *nettest.Space, to netip.Addr, port int) {
	t.Helper()
	err := from.Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, uint16(port)).String(), 700*time.Millisecond)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() { //nolint:errorlint // net returns it unwrapped
		t.Errorf("%s to %s port %d: %v, want no answer", what, to, port, err)
	}
}

// TestPrintedFirewallRules: hosts with the rules of OPERATIONS.md, and no others, carry everything that weft needs, by each carrier, and
// drop everything else.
func TestPrintedFirewallRules(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "iptables")
	labtest.Needs(t, "dig")
	nft, iptables := printedRules(t)
	const before = "iptables -P INPUT DROP; iptables -P FORWARD DROP; iptables -A INPUT -i lo -j ACCEPT; " +
		"iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; iptables -A INPUT -p icmp -j ACCEPT"
	for name, rules := range map[string]string{"nft": nft, "iptables": iptables} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b", "client")
			client, nodes := nodes[2], nodes[:2]
			addrs := nodes[0].Addr().String() + "," + nodes[1].Addr().String()
			for _, n := range nodes {
				text := strings.ReplaceAll(rules, printedNodes, addrs)
				if name == "nft" {
					labtest.Run(t, n.Space, "nft", text)
					continue
				}
				for _, line := range slices.Concat(strings.Split(before, "; "), strings.Split(text, "\n")) {
					labtest.Run(t, n.Space, strings.Fields(line)...)
				}
			}
			testPrintedRules(t, nodes, client)
		})
	}
}

func testPrintedRules(t *testing.T, nodes []*cluster.Node, client *cluster.Node) {
	t.Helper()
	secret := newSecret(t)
	for _, n := range nodes {
		writeSecret(t, n, secret)
	}
	for _, args := range [][]string{{"--datapath", "userspace"}, {"--datapath", "kernel"}, {"--secret-file"}} {
		for _, n := range nodes {
			if n.Process() != nil {
				if err := n.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			own := slices.Clone(args)
			if args[0] == "--secret-file" {
				own = append(own, secretFile(n))
			}
			up(t, n, append(own, others(nodes, n)...)...)
		}
		waitReady(t, nodes)
		if args[0] == "--datapath" {
			waitDatapath(t, nodes[0], "b", api.Datapath(args[1]))
			waitDatapath(t, nodes[1], "a", api.Datapath(args[1]))
		}
		name := "p" + strings.TrimLeft(args[len(args)-1], "-")
		p, q, near := attach(t, nodes[0], name, "--hostname", name), attach(t, nodes[1], name), attach(t, nodes[0], name+"-2")
		p.reaches(t, q.addr, near.addr, client.Addr()) // the last one by masquerading
		q.reaches(t, p.addr)
		q.answers(t, name+".weft.local", p.addr.String())
		if args[0] == "--secret-file" {
			testClosed(t, nodes, client, p, q)
		}
	}
	for _, n := range nodes {
		for _, code := range []health.Code{
			health.PodTrafficFiltered, health.OutsideTrafficFiltered, health.HostTrafficFiltered, health.NodePortFiltered,
			health.PeerUnreachable, health.HandshakeUnanswered,
		} {
			for _, c := range conditions(t, n, code) {
				t.Errorf("%s on %s: %s %s", code, n.Label(), c.Text, c.Remedy)
			}
		}
	}
}

// testClosed checks that nothing but what the rules name is accepted.
func testClosed(t *testing.T, nodes []*cluster.Node, client *cluster.Node, p, q *pod) {
	t.Helper()
	a := nodes[0]
	listenOn(t, a.Space, closedPort)
	listenOn(t, q.Space, closedPort)
	getsNothing(t, "a client", client.Space, a.Addr(), gossipPort)
	getsNothing(t, "a client", client.Space, a.Addr(), closedPort)
	getsNothing(t, "another node", nodes[1].Space, a.Addr(), closedPort)
	getsNothing(t, "a pod", p.Space, p.gateway(t), closedPort)
	getsNothing(t, "a pod", p.Space, p.gateway(t), gossipPort)
	labtest.Run(t, client.Space, "ip", "route", "add", "10.32.0.0/12", "via", nodes[1].Addr().String())
	getsNothing(t, "a client over node b", client.Space, q.addr, closedPort)
	connects(t, p.Space, q.addr, closedPort)
}
