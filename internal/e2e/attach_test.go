package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestAttachByProcess: a namespace without a name is attached and detached by a process in it.
func TestAttachByProcess(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	far, p := attach(t, nodes[1], "p"), labtest.AddPod(t, nodes[0].Host, "q")
	process := exec.Command("sleep", "infinity")
	if err := p.Do(process.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	pid := strconv.Itoa(process.Process.Pid)
	first := do(t, nodes[0], "attach", "--pid", pid, "--ifname", "net1")
	if again := do(t, nodes[0], "attach", "--pid", pid, "--ifname", "net1"); again != first {
		t.Errorf("attached as %s, then as %s", first, again)
	}
	far.reaches(t, netip.MustParsePrefix(first).Addr())
	do(t, nodes[0], "detach", "--pid", pid, "--ifname", "net1")
	if out := labtest.Run(t, p.Space, "ip", "-brief", "link"); strings.Contains(out, "net1") {
		t.Errorf("after detach: %s", out)
	}
	if list := do(t, nodes[0], "ip", "list"); strings.Contains(list, pid) {
		t.Errorf("after detach a lease is left:\n%s", list)
	}
}

// addressOf returns an address that a node owns.
func addressOf(t *testing.T, n *cluster.Node) string {
	t.Helper()
	addr, _, _ := strings.Cut(do(t, n, "ip", "allocate", "probe"), "/")
	do(t, n, "ip", "release", "probe")
	return addr
}

// TestAttachWithAnotherNodesAddress: an address that another node owns is leased from it, once, and goes back when the pod is detached.
func TestAttachWithAnotherNodesAddress(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	far := attach(t, nodes[1], "far", "--ip", "10.47.9.9")
	addr := addressOf(t, nodes[1])
	p := attach(t, nodes[0], "p", "--ip", addr)
	if p.addr.String() != addr {
		t.Errorf("attached as %s, want %s", p.addr, addr)
	}
	far.reaches(t, p.addr)
	p.reaches(t, far.addr)
	if out, err := nodes[1].Do(testContext(t), "ip", "claim", "other", addr); err == nil {
		t.Errorf("b leased it, too: %s", out)
	}
	do(t, nodes[0], "detach", "--netns", p.Path())
	do(t, nodes[1], "ip", "claim", "other", addr)
}

// TestPodMovesWithItsAddress: a pod is detached from one node and attached to another one with its address. Others reach it there, also
// those that knew it before, and it moves back.
func TestPodMovesWithItsAddress(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	watcher, neighbor := attach(t, nodes[2], "w"), attach(t, nodes[0], "n")
	p := attach(t, nodes[0], "p", "--hostname", "mover")
	for i := range 3 {
		watcher.reaches(t, p.addr)
		neighbor.reaches(t, p.addr)
		next := nodes[(i+1)%2]
		q := labtest.AddPod(t, next.Host, fmt.Sprintf("q%d", i))
		if _, err := next.Attach(testContext(t), q, "--ip", p.addr.String()); err == nil {
			t.Errorf("%s was leased twice", p.addr)
		}
		do(t, p.node, "detach", "--netns", p.Path())
		addrs, err := next.Attach(testContext(t), q, "--ip", p.addr.String(), "--hostname", "mover")
		if err != nil {
			t.Fatal(err)
		}
		p = &pod{q, next, addrs[0], addrs}
	}
	watcher.reaches(t, p.addr)
	neighbor.reaches(t, p.addr)
	watcher.answers(t, "mover.weft.local", p.addr.String())
}

// TestSingleAddresses: addresses are added to an attachment and removed from it without an interruption of the others.
func TestSingleAddresses(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--guard", "pods")
	far := attach(t, nodes[1], "far")
	p := attach(t, nodes[0], "p", "--hostname", "web")
	second, third := netip.MustParseAddr("10.47.5.2"), netip.MustParseAddr("10.33.5.3") // of both nodes
	ping := far.pinging(t, p.addr)
	ping.waitReplies(t, 3)
	for range 2 {
		do(t, nodes[0], "attach", "--netns", p.Path(), "--add-ip", second.String(), "--add-ip", third.String()+"/16")
		far.reaches(t, p.addr, second, third)
	}
	far.answers(t, "web.weft.local", p.addr.String(), second.String(), third.String())
	for range 2 {
		do(t, nodes[0], "attach", "--netns", p.Path(), "--remove-ip", second.String())
	}
	far.reaches(t, p.addr, third)
	far.answers(t, "web.weft.local", p.addr.String(), third.String())
	ping.waitReplies(t, 3)
	if sent, lost := ping.stop(t); lost > 0 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}
	do(t, nodes[1], "ip", "claim", "other", second.String()) // nothing holds it any more
	if a := query[api.Attachment](t, nodes[0], "attach", "--netns", p.Path()); len(a.Addresses) != 2 {
		t.Errorf("a repeated attach without addresses has %v", a.Addresses)
	}
	for _, args := range [][]string{
		{"--remove-ip", p.addr.String(), "--remove-ip", third.String()}, {"--add-ip", second.String()},
	} {
		if out, err := nodes[0].Do(testContext(t), append([]string{"attach", "--netns", p.Path()}, args...)...); cluster.ExitCode(err) != 1 {
			t.Errorf("weft attach %v: %v, want a refusal:\n%s", args, err, out)
		}
	}
	far.reaches(t, p.addr, third)
}

// TestAttachAtOnce: "weft up & weft attach" works at the first start of two nodes, and after a restart of one or both.
func TestAttachAtOnce(t *testing.T) {
	t.Parallel()
	for range 3 {
		nodes := newNodes(t, "a", "b")
		for round, restarted := range [][]*cluster.Node{nodes, nodes[:1], nodes} {
			for _, n := range restarted {
				if round > 0 {
					if err := n.Stop(); err != nil {
						t.Fatal(err)
					}
				}
			}
			pods := make([]*pod, len(restarted))
			for i, n := range restarted {
				pods[i] = &pod{Pod: labtest.AddPod(t, n.Host, fmt.Sprintf("p%d", round)), node: n}
			}
			ctx := testContext(t)
			var group errgroup.Group
			for i, n := range restarted {
				group.Go(func() (err error) {
					pods[i].addrs, err = n.Attach(ctx, pods[i].Pod)
					return err
				})
				up(t, n, others(nodes, n)...)
			}
			if err := group.Wait(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			for _, p := range pods {
				for _, q := range pods {
					p.reaches(t, q.addrs...)
				}
			}
		}
	}
}
