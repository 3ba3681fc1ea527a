package e2e

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/health"
	"weft/internal/hostports"
	"weft/internal/nettest"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/critest"
	"weft/internal/nettest/labtest"
)

// TestFlushedHostPorts: after "iptables -t nat -F" the ports that containers publish work again, with a condition that names them. The
// rules of weft end with the container, and with the original rules.
func TestFlushedHostPorts(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	n, other := nodes[0], nodes[1]
	runtime := newRuntime(t, n)
	labtest.Start(t, n.Host, nettest.ProcessConfig{Name: "weft", Argv: []string{ // with the cache of the runtime
		"unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /var/lib && exec "$@"`,
		filepath.Join(n.Dir(), "lib"), filepath.Join(bin, "weft"), "up",
		"--state-dir", n.StateDir(), "--socket", n.Socket(), "--init-peers", "1",
	}})
	labtest.Until(t, patience, func() error {
		_, err := n.Do(testContext(t), "wait", "--for", "ready", "--timeout", patience.String())
		return err
	})
	do(t, n, "expose")
	options := cnitest.Options{
		Args:         "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
		Capabilities: `{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`,
	}
	p := labtest.AddPod(t, n.Host, "container")
	add := func() {
		t.Helper()
		if _, err := runtime.Add(testContext(t), "weft", p.Path(), options); err != nil {
			t.Fatal(err)
		}
	}
	connect := func(from *nettest.Space, to netip.Addr) error {
		_, err := from.Run(testContext(t), "curl", "--silent", "--fail", "--max-time", "1", fmt.Sprintf("http://%s:8080", to))
		return err
	}
	works := func(what string) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			if err := connect(other.Space, n.Addr()); err != nil {
				return fmt.Errorf("%s: from another host: %w", what, err)
			}
			if err := connect(p.Space, n.Addr()); err != nil {
				return fmt.Errorf("%s: from the pod itself: %w", what, err)
			}
			return nil
		})
	}
	add()
	serveHTTP(t, &critest.Pod{Netns: p.Path()})
	works("at first")
	runLines(t, n, "iptables -t nat -F")
	if connect(other.Space, n.Addr()) == nil {
		t.Error("the port works without rules")
	}
	works("after the flush")
	waitCondition(t, n, "after the flush", health.HostPortsFlushed, "8080/tcp of default/web", "Restart these containers")
	runLines(t, n, "nft delete table ip "+hostports.Table)
	works("after the flush of weft's own rules")
	own := func() bool {
		return strings.Contains(labtest.Run(t, n.Space, "nft", "list", "tables"), hostports.Table)
	}
	waitGone := func(what string) {
		t.Helper()
		waitCondition(t, n, what, health.HostPortsFlushed)
		labtest.Until(t, patience, func() error {
			if own() {
				return fmt.Errorf("%s: the table is there", what)
			}
			return nil
		})
	}
	if err := runtime.Del(testContext(t), "weft", p.Path(), options); err != nil {
		t.Fatal(err)
	}
	waitGone("without the container")
	add()
	works("in a new container")
	if own() {
		t.Error("the port is published twice")
	}
}
