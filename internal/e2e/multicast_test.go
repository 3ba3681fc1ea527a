package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestMulticastBesideAnotherDefaultRoute: pods of two nodes with a default route by another interface, as that of Docker, send multicast
// to each other over the overlay, without naming an interface; and not with --no-multicast-route.
func TestMulticastBesideAnotherDefaultRoute(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 7001}
	from, to := attachBeside(t, nodes[0], "p"), attachBeside(t, nodes[1], "p")
	if route := labtest.Run(t, from.Space, "ip", "route", "show", "default"); !strings.Contains(route, "dev eth1") {
		t.Errorf("the default route has changed: %s", route)
	}
	var in *net.UDPConn
	if err := to.Do(func() (err error) { in, err = net.ListenMulticastUDP("udp4", nil, group); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	labtest.Until(t, patience, func() error {
		if err := from.Do(func() error {
			out, err := net.DialUDP("udp4", nil, group)
			if err != nil {
				return err
			}
			defer func() { _ = out.Close() }()
			_, err = out.Write([]byte("hello"))
			return err
		}); err != nil {
			return err
		}
		if err := in.SetReadDeadline(time.Now().Add(time.Second / 2)); err != nil {
			return err
		}
		_, _, err := in.ReadFrom(make([]byte, 16))
		return err
	})
	do(t, nodes[0], "attach", "--netns", from.Path()) // again
	if routes := multicastRoutes(t, from.Pod); len(routes) != 1 || !strings.Contains(routes[0], "dev eth0") {
		t.Errorf("routes for multicast: %q", routes)
	}
	labtest.Run(t, from.Space, "ip", "route", "del", "224.0.0.0/4")
	do(t, nodes[0], "attach", "--netns", from.Path(), "--no-multicast-route")
	if routes := multicastRoutes(t, from.Pod); len(routes) > 0 {
		t.Errorf("with --no-multicast-route: %q", routes)
	}
	if routes := multicastRoutes(t, attach(t, nodes[0], "plain").Pod); len(routes) > 0 {
		t.Errorf("a pod with the default route by weft has %q", routes)
	}
}

// addOther gives a pod a second interface with the default route, to a bridge of its host that leads nowhere.
func addOther(t *testing.T, n *cluster.Node, p *nettest.Pod) {
	t.Helper()
	for _, line := range []string{
		"link add other type bridge", "addr add 172.30.0.1/24 dev other", "link set other up",
		"link add other0 master other type veth peer name eth1 netns " + p.Name(), "link set other0 up",
	} {
		labtest.Run(t, n.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	for _, line := range []string{"addr add 172.30.0.2/24 dev eth1", "link set eth1 up", "route add default via 172.30.0.1"} {
		labtest.Run(t, p.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// multicastRoutes returns the routes of a pod for multicast.
func multicastRoutes(t *testing.T, p *nettest.Pod) []string {
	t.Helper()
	return slices.DeleteFunc(strings.Split(labtest.Run(t, p.Space, "ip", "route", "show", "224.0.0.0/4"), "\n"),
		func(s string) bool { return s == "" })
}

// attachBeside attaches a pod that has another interface with the default route.
func attachBeside(t *testing.T, n *cluster.Node, name string, args ...string) *pod {
	t.Helper()
	p := labtest.AddPod(t, n.Host, name)
	addOther(t, n, p)
	addrs, err := n.Attach(testContext(t), p, args...)
	if err != nil {
		t.Fatal(err)
	}
	return &pod{p, n, addrs[0], addrs}
}
