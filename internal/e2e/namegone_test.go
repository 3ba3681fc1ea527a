package e2e

import (
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestNamesOfDeadPods: the name of a namespace that is deleted, or of a process that is killed, is not answered any more on any node, long
// before its lease ends. It comes back with the attachment, also where the host or the daemon was restarted meanwhile.
func TestNamesOfDeadPods(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "dig")
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	near, far := attach(t, nodes[0], "near"), attach(t, nodes[1], "far")
	web := attach(t, nodes[0], "web", "--hostname", "web")
	endsSoon := func(name string, end func() error) {
		t.Helper()
		began := time.Now()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		far.answers(t, name+".weft.local")
		near.answers(t, name+".weft.local")
		t.Logf("%s was not answered any more after %s", name, time.Since(began).Round(time.Millisecond))
	}
	again := func() {
		t.Helper()
		if out, err := exec.CommandContext(testContext(t), "ip", "netns", "add", web.Name()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		addrs, err := nodes[0].Attach(testContext(t), web.Pod)
		if err != nil || addrs[0] != web.addr {
			t.Fatalf("attached again with %v, %v; want %s", addrs, err, web.addr)
		}
		far.answers(t, "web.weft.local", web.addr.String())
		far.answers(t, "-x "+web.addr.String(), "web.weft.local.")
	}
	far.answers(t, "web.weft.local", web.addr.String())
	endsSoon("web", func() error { return netns.DeleteNamed(web.Name()) })
	leased := false
	for _, l := range query[[]api.Lease](t, nodes[0], "ip", "list") {
		leased = leased || l.IP.Addr() == web.addr
	}
	if !leased {
		t.Errorf("the lease of %s has ended with the name", web.addr)
	}
	again()

	endsSoon("web", func() error { return netns.DeleteNamed(web.Name()) })
	restart := func() {
		t.Helper()
		up(t, nodes[0], others(nodes, nodes[0])...)
		waitReady(t, nodes)
	}
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	restart()
	near.answers(t, "web.weft.local")
	again() // the name has outlasted the restart

	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := netns.DeleteNamed(web.Name()); err != nil { // as a reboot of the host does
		t.Fatal(err)
	}
	restart()
	near.answers(t, "web.weft.local")
	again()

	process := labtest.Start(t, nodes[0].Host, nettest.ProcessConfig{
		Name: "proc", Argv: []string{"unshare", "--net", "sh", "-c", "echo ready; exec sleep 1000"},
	})
	labtest.Until(t, patience, func() error {
		if !strings.Contains(process.Logs(), "ready") {
			return errNotYet
		}
		return nil
	})
	addr := netip.MustParsePrefix(do(t, nodes[0], "attach", "--pid", strconv.Itoa(process.Pid()), "--hostname", "proc")).Addr()
	far.answers(t, "proc.weft.local", addr.String())
	endsSoon("proc", func() error { process.Kill(); return nil })
}
