package e2e

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/nettest/labtest"
)

// TestDockerFilter: a Docker that starts on a host without IP forwarding makes the host drop what it forwards, bridged frames of
// pods among them. Pods reach one another all the same, whether Docker or weft came first, and weft takes its rule with it.
func TestDockerFilter(t *testing.T) {
	t.Parallel()
	machines := newMachines(t, 2)
	a, b := machines[0], machines[1]
	for _, m := range machines {
		m.sh("sysctl -qw net.ipv4.ip_forward=0 net.bridge.bridge-nf-call-iptables=1")
	}
	startEngine(t, a)
	a.up("host2")
	b.up("--no-masquerade", "host1") // which leaves forwarding as it is
	startEngine(t, b)

	pod := func(m *machine, last int) {
		m.sh(fmt.Sprintf("ip netns add pod && weft attach --netns /run/netns/pod --ip 10.32.7.%d", last))
	}
	pod(a, 1)
	pod(b, 2)
	for _, m := range machines {
		if policy := m.sh("iptables -S FORWARD | head -1"); policy != "-P FORWARD DROP" {
			t.Fatalf("%s has %q: this test needs a Docker that drops what no rule accepts", m.Label(), policy)
		}
	}
	reach := func() {
		t.Helper()
		labtest.Until(t, patience, func() error {
			_, err := a.try("ip netns exec pod ping -n -c 1 -W 1 10.32.7.2")
			return err
		})
	}
	const ours = "-i weave -o weave"
	reach()
	b.sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
	reach()
	for _, m := range machines {
		if out := m.sh("iptables -S DOCKER-USER"); strings.Count(out, ours) != 1 {
			t.Errorf("the rules of %s:\n%s", m.Label(), out)
		}
		m.sh("weft detach --netns /run/netns/pod && weft leave")
		if out := m.sh("iptables -S DOCKER-USER"); strings.Contains(out, ours) {
			t.Errorf("the rules of %s after the node has left:\n%s", m.Label(), out)
		}
	}
}
