package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"weft/internal/nettest/dockertest"
	"weft/internal/nettest/labtest"
)

// TestDockerNetworks: networks are isolated from one another, whatever a container tries; a running container joins and leaves them; an
// internal one has no way out; addresses and MACs can be chosen.
func TestDockerNetworks(t *testing.T) {
	t.Parallel()
	hosts := newDockerHosts(t, 2, "--range", "10.32.0.0/12", "--range", "fd32::/64")
	a, b := hosts[0], hosts[1]
	for _, h := range hosts {
		h.network("--subnet", "10.32.1.0/24", "--subnet", "fd32::77:0:0/104", "--ipv6", "red")
		h.network("--subnet", "10.32.2.0/24", "--ip-range", "10.32.2.64/26", "--internal", "blue")
	}
	red := a.run("red1", "--network", "red", "--ip", "10.32.1.77", "--ip6", "fd32::77:0:77", "--mac-address", "02:42:0a:20:01:4d")
	if red.IPs["red"] != "10.32.1.77" || red.MACs["red"] != "02:42:0a:20:01:4d" {
		t.Errorf("the container has %+v", red)
	}
	peer := b.run("red2", "--network", "red")
	b.in(peer, "ping", "-n", "-c", "1", "-W", "1", "10.32.1.77")
	b.in(peer, "ping", "-n", "-c", "1", "-W", "1", "fd32::77:0:77")

	blue := b.run("blue1", "--network", "blue")
	if in := netip.MustParsePrefix("10.32.2.64/26"); !in.Contains(netip.MustParseAddr(blue.IPs["blue"])) {
		t.Errorf("%s is outside of %s", blue.IPs["blue"], in)
	}
	if out := b.in(blue, "ip", "route"); strings.Contains(out, "default") {
		t.Errorf("a container of an internal network has the routes %s", out)
	}
	for _, h := range hosts {
		c := h.run("other", "--network", "blue")
		h.serves(c)
		for _, from := range []*dockerHost{a, b} {
			of := map[*dockerHost]dockertest.Container{a: red, b: peer}[from]
			from.blocked(of, c.IPs["blue"])
			// Also by a route of its own making, as a container with CAP_NET_ADMIN can add it.
			from.in(of, "sh", "-c", "ip route replace 10.32.2.0/24 dev eth0")
			from.blocked(of, c.IPs["blue"])
			from.in(of, "ip", "route", "del", "10.32.2.0/24")
		}
	}
	labtest.Until(t, patience, func() error { // the frames were dropped by the rules about subnets
		if a.status().Guard.Dropped["subnet"] == 0 {
			return fmt.Errorf("dropped: %v", a.status().Guard.Dropped)
		}
		return nil
	})
	b.docker("network", "connect", "--alias", "both", "red", "blue1")
	both := b.inspect("blue1")
	b.in(both, "ping", "-n", "-c", "1", "-W", "1", "10.32.1.77")
	a.in(red, "ping", "-n", "-c", "1", "-W", "1", both.IPs["red"])
	b.docker("network", "disconnect", "blue", "blue1")
	b.in(both, "ping", "-n", "-c", "1", "-W", "1", "10.32.1.77")

	testMulticast(t, a, red, b, peer)
}

// testMulticast checks that a datagram for a group arrives in a container on another host: its default route leads elsewhere.
func testMulticast(t *testing.T, from *dockerHost, sender dockertest.Container, to *dockerHost, receiver dockertest.Container) {
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 5000}
	received := make(chan string, 1)
	var listener *net.UDPConn
	if err := ns.WithNetNSPath(fmt.Sprintf("/proc/%d/ns/net", receiver.Pid), func(ns.NetNS) (err error) {
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		listener, err = net.ListenMulticastUDP("udp4", eth, group)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		text := make([]byte, 100)
		if n, _, err := listener.ReadFromUDP(text); err == nil {
			received <- string(text[:n])
		}
	}()
	labtest.Until(t, patience, func() error {
		err := ns.WithNetNSPath(fmt.Sprintf("/proc/%d/ns/net", sender.Pid), func(ns.NetNS) error {
			c, err := net.DialUDP("udp4", nil, group)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("hello group"))
			return err
		})
		if err != nil {
			return err
		}
		select {
		case text := <-received:
			if text != "hello group" {
				t.Errorf("received %q", text)
			}
			return nil
		default:
			return fmt.Errorf("nothing from %s on %s", from.Label(), to.Label())
		}
	})
}

// TestDockerMistakes: what cannot work is refused in one line that Docker shows, which says how to fix it, and leaves nothing behind.
func TestDockerMistakes(t *testing.T) {
	t.Parallel()
	hosts := newDockerHosts(t, 2)
	a, b := hosts[0], hosts[1]
	weft := []string{"network", "create", "-d", "weft", "--ipam-driver", "weft"}
	refused := func(h *dockerHost, args []string, want ...string) {
		t.Helper()
		_, err := h.engine.Docker(testContext(t), args...)
		if err == nil {
			t.Errorf("docker %s succeeded", strings.Join(args, " "))
			return
		}
		out := err.Error()
		for _, w := range append(want, "weft: ") {
			if !strings.Contains(out, w) {
				t.Errorf("docker %s: %s, without %q", strings.Join(args, " "), out, w)
			}
		}
	}
	a.network("--subnet", "10.32.1.0/24", "mynet")
	waitName := func(h *dockerHost, name string) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			if out := h.sh("weft dns list"); !strings.Contains(out, name) {
				return fmt.Errorf("%s is not in %s", name, out)
			}
			return nil
		})
	}
	waitName(a, "mynet.24.networks") // errors name the network from now on
	clean := a.sh("weft ip list")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--subnet", "192.168.5.0/24", "n"}, []string{
			"192.168.5.0/24 is outside of the overlay's range 10.32.0.0/12", "such as 10.47.255.0/24",
		}},
		{[]string{"--subnet", "10.32.1.128/25", "n"}, []string{"overlaps the network mynet"}},
		{[]string{"--subnet", "10.32.9.0/31", "n"}, []string{"no room"}},
		{[]string{"-o", "color=red", "n"}, []string{"unknown option -o color", "weft.guard"}},
		{[]string{"-o", "weft.guard=maybe", "n"}, []string{"weft.guard=maybe", "pods, host or off"}},
		{[]string{"-o", "com.docker.network.driver.mtu=many", "n"}, []string{"number of bytes"}},
		{[]string{"--ipam-opt", "a=b", "n"}, []string{"--ipam-opt a"}},
		{[]string{"--ipv6", "--subnet", "fd99::/80", "n"}, []string{"no range of IPv6", "further --range fd32::/64"}},
	} {
		refused(a, append(slices.Clone(weft), c.args...), c.want...)
	}
	refused(a, []string{"network", "create", "-d", "weft", "n"}, "--ipam-driver weft")
	if now := a.sh("weft ip list"); now != clean {
		t.Errorf("left behind: %s, before: %s", now, clean)
	}

	// The same name with another subnet, and another name with the same subnet, on the other host.
	waitName(b, "mynet.24.networks")
	b.network("--subnet", "10.32.2.0/24", "mynet")
	refused(b, []string{"run", "--detach", "--network", "mynet", dockertest.Image}, "10.32.2.0/24 here, and 10.32.1.0/24 on node host1",
		"docker network rm mynet", "--subnet 10.32.1.0/24")
	a.run("unharmed", "--network", "mynet")
	b.docker("container", "prune", "--force")
	b.docker("network", "rm", "mynet")
	b.network("--subnet", "10.32.1.0/24", "yournet")
	refused(b, []string{"run", "--detach", "--network", "yournet", dockertest.Image}, "is the network mynet on node host1")
	b.docker("container", "prune", "--force")
	b.docker("network", "rm", "yournet")

	// The same command on the other host finds the subnet by itself, also with the gateway that the other host has.
	b.network("--subnet", "10.32.1.0/24", "--gateway", "10.32.1.1", "mynet")
	b.run("first", "--network", "mynet", "--ip", "10.32.1.50")
	refused(a, []string{"run", "--detach", "--network", "mynet", "--ip", "10.32.1.50", dockertest.Image}, "10.32.1.50", "on node host2")
	refused(b, []string{"run", "--detach", "--network", "mynet", "--ip", "10.32.1.255", dockertest.Image}, "first or the last address")
	mac := b.inspect("first").MACs["mynet"]
	refused(b, []string{"run", "--detach", "--network", "mynet", "--mac-address", mac, dockertest.Image}, "MAC "+mac)
	if out, err := b.engine.Docker(testContext(t), "network", "rm", "mynet"); err == nil ||
		!strings.Contains(err.Error(), "active endpoints") {
		t.Errorf("a network with containers is removed: %s, %v", out, err)
	}

	// Exhaustion: a network of four addresses has room for one container.
	a.network("--subnet", "10.32.3.0/30", "tiny")
	a.run("only", "--network", "tiny")
	refused(a, []string{"run", "--detach", "--network", "tiny", dockertest.Image}, "no address left", "10.32.3.0/30")

	// Without the daemon.
	a.stop()
	refused(a, []string{"run", "--detach", "--network", "mynet", dockertest.Image}, "no weft daemon answers", "weft up")
}
