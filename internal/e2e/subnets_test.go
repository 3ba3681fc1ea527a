package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/health"
	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// TestSubnets: namespaces in one subnet talk across nodes, and not with those of another one or of none, by whatever route. An address of
// the node in the subnet is their gateway.
func TestSubnets(t *testing.T) {
	t.Parallel()
	ms := newMachines(t, 2)
	a, b := ms[0], ms[1]
	a.up("host2")
	b.up("host1")
	in := func(m *machine, name, subnet string) string {
		t.Helper()
		addr := m.attach(name, "--in", subnet)
		if !strings.HasPrefix(addr, strings.TrimSuffix(subnet, "0/24")) {
			t.Errorf("%s is not in %s", addr, subnet)
		}
		if out := m.sh("ip netns exec " + name + " ip -4 -o addr show eth0"); !strings.Contains(out, addr+"/24") {
			t.Errorf("the interface has %s, want %s/24", out, addr)
		}
		return addr
	}
	red1, red2 := in(a, "red1", "10.32.1.0/24"), in(b, "red2", "10.32.1.0/24")
	blue1, blue2 := in(a, "blue1", "10.32.2.0/24"), in(b, "blue2", "10.32.2.0/24")
	plain := b.attach("plain")
	a.pings("red1", red2)
	b.pings("red2", red1)
	a.pings("blue1", blue2)
	b.pings("blue2", blue1)
	if again := a.sh("weft attach --netns red1"); again != red1+"/24" { // as before, without a further address
		t.Errorf("attached again: %s, want %s/24", again, red1)
	}
	apart := func(what string) {
		t.Helper()
		for _, c := range []struct {
			m        *machine
			from, to string
		}{
			{a, "red1", blue1}, {a, "red1", blue2}, {b, "red2", blue1}, {b, "red2", blue2}, {a, "blue1", red2},
			{a, "red1", plain}, {b, "plain", red1}, {b, "plain", red2},
		} {
			if out, err := c.m.try("ip netns exec " + c.from + " ping -n -c 1 -W 1 " + c.to); err == nil {
				t.Errorf("%s: %s reaches %s: %s", what, c.from, c.to, out)
			}
		}
	}
	apart("at the start")
	for _, m := range ms { // a gateway in each subnet, which routes between them if nothing prevents it
		for i, subnet := range []string{"10.32.1", "10.32.2"} {
			last := map[*machine]int{a: 251, b: 252}[m]
			m.sh(fmt.Sprintf("weft expose %s.%d/24 && sysctl -qw net.ipv4.ip_forward=1", subnet, last))
			name := map[*machine][]string{a: {"red1", "blue1"}, b: {"red2", "blue2"}}[m][i]
			m.sh("weft attach --netns " + name)
			if out := m.sh("ip netns exec " + name + " ip route"); !strings.Contains(out, fmt.Sprintf("default via %s.%d", subnet, last)) {
				t.Errorf("the routes of %s are %s", name, out)
			}
		}
	}
	a.sh("ip netns exec red1 ping -n -c 1 -W 2 10.32.1.251")
	a.sh("ip netns exec red1 ping -n -c 1 -W 2 " + b.Addr().String()) // outside of the overlay
	apart("with gateways")
	a.stop()
	a.up("host2")
	a.ready()
	a.pings("red1", red2)
	apart("after a restart")
	a.sh("nft flush ruleset")
	labtest.Until(t, patience, func() error {
		if out := a.sh("nft list ruleset"); !strings.Contains(out, "subnet-from") {
			return fmt.Errorf("the rules are not there again")
		}
		return nil
	})
	apart("after the rules were flushed")
	a.ends(health.GuardFailed)

	for _, c := range [][2]string{
		{"--in 10.99.0.0/24", "10.99.0.0/24 is not a part of a range"}, {"--in x", `"x" is not a subnet`},
		{"--in 10.32.1.0/24 --ip 10.32.1.7", "chooses the addresses"},
	} {
		a.sh("ip netns add n")
		if out, err := a.try("weft attach --netns n " + c[0]); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %s %v, want %q", c[0], out, err, c[1])
		}
		a.sh("ip netns del n")
	}
}

// TestAttachContainer: a running container is attached by its name, as docker knows it, and by its ID, as containerd does.
func TestAttachContainer(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(dockertest.Program); err != nil {
		labtest.Missing(t, "dockerd (Debian: docker.io)")
	}
	hosts := newEngines(t, newMachines(t, 2))
	a, b := hosts[0], hosts[1]
	pod := b.attach("pod")
	a.docker("run", "--detach", "--name", "Web_1", "--network", "none", dockertest.Image)
	addr, _, _ := strings.Cut(a.sh("weft attach --container Web_1"), "/")
	web := a.inspect("Web_1")
	a.in(web, "ping", "-n", "-c", "1", "-W", "1", pod)
	b.pings("pod", addr)
	labtest.Until(t, patience, func() error {
		if out := b.sh("weft dns list"); !strings.Contains(out, "web-1 ") {
			return fmt.Errorf("the name of the container is not known: %s", out)
		}
		return nil
	})
	a.sh("weft detach --container Web_1")
	b.forgets("web-1")

	// Beside another network, as a further interface; found by containerd alone.
	a.docker("run", "--detach", "--name", "other", dockertest.Image)
	other := a.inspect("other")
	a.engine.Kill()
	addr, _, _ = strings.Cut(a.sh("weft attach --ifname eth1 --hostname other --container "+other.ID[:12]), "/")
	b.pings("pod", addr)
	if out, err := a.try("weft attach --container nothing"); err == nil || !strings.Contains(err.Error(), `no container "nothing"`) {
		t.Errorf("an unknown container: %s, %v", out, err)
	}
	if err := a.engine.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
