package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// doctor runs "weft doctor" for a node and returns its checks by name, and its exit code.
func doctor(t *testing.T, n *cluster.Node, args ...string) (found map[string]api.Check, code int) {
	t.Helper()
	args = append([]string{"doctor", "--json", "--state-dir", n.StateDir(), "--socket", n.Socket()}, args...)
	out, err := n.Weft(testContext(t), args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var checks []api.Check
	if err := json.Unmarshal(out, &checks); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found = map[string]api.Check{}
	for _, c := range checks {
		found[c.Name] = c
		if (c.Remedy == "") != (c.Result == api.CheckOK || c.Result == api.CheckUnknown) || c.Detail == "" {
			t.Errorf("%+v: want a detail, and a remedy exactly if there is a problem", c)
		}
	}
	return found, code
}

// TestDoctor: "weft doctor" finds problems of a host before a start and shows a remedy. It changes nothing.
func TestDoctor(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	found, code := doctor(t, n)
	for _, name := range []string{"config", "privileges", "tun", "nftables", "ports", "range", "mtu", "state", "bridge", "tap"} {
		if found[name].Result != api.CheckOK {
			t.Errorf("on a good host: %+v", found[name])
		}
	}
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	if links(t, n.Host)[0] == "weave" {
		t.Error("doctor created a bridge")
	}

	labtest.Run(t, n.Space, "ip", "link", "add", "weave", "type", "veth", "peer", "name", "evaew")
	labtest.Run(t, n.Space, "ip", "route", "add", "10.33.0.0/16", "dev", "eth0")
	labtest.Run(t, n.Space, "ip", "link", "set", "eth0", "mtu", "600")
	labtest.Run(t, n.Space, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=80")
	for _, rule := range []string{"add table ip strict", "add chain ip strict in { type filter hook input priority 0; policy drop; }"} {
		labtest.Run(t, n.Space, "nft", rule)
	}
	found, code = doctor(t, n, "192.168.77.99")
	for name, says := range map[string]string{
		"bridge": "is not a bridge but a link of kind", "range": "10.33.0.0/16 dev eth0", "mtu": "leaves",
		"vxlan":    "ip_unprivileged_port_start is 80",
		"firewall": "chain in of table ip strict", "peers": "192.168.77.99:6783",
	} {
		if c := found[name]; c.Result == api.CheckOK || !strings.Contains(c.Detail, says) {
			t.Errorf("on a bad host: %+v, want a detail with %q", c, says)
		}
	}
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out, err := n.Do(testContext(t), "doctor", "--range", "nonsense"); err == nil || !strings.Contains(out, "--range") {
		t.Errorf("a bad flag: %s", out)
	}
}

// TestReport: a report is one document with everything except the secret. The checks of a running node find no problem.
func TestReport(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	secret := newSecret(t)
	startSealed(t, nodes, secret)
	attach(t, nodes[0], "p")
	found, code := doctor(t, nodes[0], "--secret-file", secretFile(nodes[0]))
	if code != 0 || !strings.Contains(found["ports"].Detail, "held by the node that runs") {
		t.Errorf("beside a running node: exit code %d, %+v", code, found["ports"])
	}
	// Without flags, the running node does the checks, with its own secret and targets.
	var checks []api.Check
	if err := json.Unmarshal([]byte(do(t, nodes[1], "doctor", "--json")), &checks); err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		says := map[string]string{"secret": "1 in ", "peers": "1 of 1 reached"}[c.Name]
		if c.Result != api.CheckOK && c.Name != "clock" || !strings.HasPrefix(c.Detail, says) {
			t.Errorf("check by the node: %+v, want %q", c, says)
		}
	}
	out := do(t, nodes[0], "report")
	var r api.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Peers) != 2 || len(r.Leases) < 2 || len(r.Checks) == 0 || len(r.Log) == 0 || len(r.Host.Links) < 3 ||
		r.Flags["--secret-file"] != "true" || r.Names == nil ||
		!strings.Contains(r.Metrics, "weft_peer_transmit_bytes_total") || !strings.Contains(r.Goroutines, "goroutine") {
		t.Errorf("something is missing: %s", out)
	}
	_, key, _ := strings.Cut(secret, " ")
	for _, hidden := range []string{secret, key, fmt.Sprintf("%x", secretKey(t, secret))} {
		if strings.Contains(out, hidden) {
			t.Error("the secret is in the report")
		}
	}
}

// TestWarningsOfTheHost: the node restores a port that vanished and warns about it. It also warns about a path with a small
// MTU.
func TestWarningsOfTheHost(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--datapath", "userspace")
	from, to := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
	from.reaches(t, to.addr)
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", "weft0", "nomaster")
	labtest.Run(t, nodes[1].Space, "ip", "link", "set", "eth0", "mtu", "1300") // node a keeps its own MTU
	for code, says := range map[health.Code]string{
		health.BridgeRepaired: "Another program changed what weft set on this host", health.PathMTUSmall: "The path to node b",
	} {
		labtest.Until(t, patience, func() error {
			_ = cluster.Ping(testContext(t), from.Space, to.addr)
			_, _ = from.Run(testContext(t), "ping", "-c", "1", "-W", "1", "-s", "1380", "-M", "want", to.addr.String())
			if found := conditions(t, nodes[0], code); len(found) == 0 || !strings.HasPrefix(found[0].Text, says) {
				return fmt.Errorf("conditions of code %s: %+v, want %q", code, found, says)
			}
			return nil
		})
	}
}
