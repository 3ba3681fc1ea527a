package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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

const (
	sourcePort = 7000 // of servers that answer with the address of the client
	dnatTo     = 8080 // port of a host that leads there
)

// serveSource answers on UDP and TCP in a namespace: with the address that a message came from.
func serveSource(t *testing.T, s *nettest.Space) {
	t.Helper()
	var packets *net.UDPConn
	var streams net.Listener
	err := s.Do(func() (err error) {
		if packets, err = net.ListenUDP("udp", &net.UDPAddr{Port: sourcePort}); err != nil {
			return err
		}
		streams, err = net.Listen("tcp", fmt.Sprintf(":%d", sourcePort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = packets.Close(); _ = streams.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := packets.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
				for buf := make([]byte, 1); ; {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					_, _ = fmt.Fprintf(conn, "%s\n", from)
				}
			}()
		}
	}()
}

// dialSource opens a connection from a namespace to a server of serveSource.
func dialSource(s *nettest.Space, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = s.Do(func() (err error) {
		conn, err = net.DialTimeout(network, to.String(), time.Second)
		return err
	})
	return conn, err
}

// askSource sends a message on a connection and returns the answer.
func askSource(conn net.Conn) (netip.Addr, error) {
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return netip.Addr{}, err
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil {
		return netip.Addr{}, err
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	return netip.ParseAddr(line)
}

// wantSource waits until a server sees new connections of a namespace come from an address.
func wantSource(t *testing.T, s *nettest.Space, network string, to netip.AddrPort, want netip.Addr) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		conn, err := dialSource(s, network, to)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		got, err := askSource(conn)
		if err == nil && got != want {
			err = fmt.Errorf("%s to %s comes from %s, want %s", network, to, got, want)
		}
		return err
	})
}

// outside is a host without weft that reaches pods by a route through node a.
type outside struct {
	*nettest.Host
	a, b *cluster.Node
	args []string // of both nodes
	pod  *pod     // on b
}

// newOutside returns a client beside two nodes with both families.
func newOutside(t *testing.T, args ...string) outside {
	t.Helper()
	lab := labtest.New(t, nettest.Config{})
	a, b := nodeOn(t, labtest.AddHost(t, lab, "a")), nodeOn(t, labtest.AddHost(t, lab, "b"))
	o := outside{labtest.AddHost(t, lab, "client"), a, b, append([]string{"--range", "10.32.0.0/12", "--range", range6}, args...), nil}
	start(t, []*cluster.Node{a, b}, o.args...)
	o.pod = attachAll(t, b, "q", 2)
	serveSource(t, o.pod.Space)
	labtest.Run(t, o.Space, "ip", "route", "add", "10.32.0.0/12", "via", a.Addr().String())
	labtest.Run(t, o.Space, "ip", "-6", "route", "add", range6, "via", a.Addr6().String())
	for _, rule := range []string{
		"table ip test { chain prerouting { type nat hook prerouting priority dstnat; " +
			fmt.Sprintf("meta l4proto { 6, 17 } th dport %d dnat to %s:%d; }; }", dnatTo, o.pod.addrs[0], sourcePort),
		"table ip6 test { chain prerouting { type nat hook prerouting priority dstnat; " +
			fmt.Sprintf("meta l4proto { 6, 17 } th dport %d dnat to [%s]:%d; }; }", dnatTo, o.pod.addrs[1], sourcePort),
	} {
		labtest.Run(t, a.Space, "nft", rule)
	}
	return o
}

// targets returns where the client reaches the pod: by routes, and by DNAT on a.
func (o outside) targets() []netip.AddrPort {
	return []netip.AddrPort{
		netip.AddrPortFrom(o.pod.addrs[0], sourcePort), netip.AddrPortFrom(o.pod.addrs[1], sourcePort),
		netip.AddrPortFrom(o.a.Addr(), dnatTo), netip.AddrPortFrom(o.a.Addr6(), dnatTo),
	}
}

// comesFrom waits until the pod sees the client as these addresses, for each way and protocol.
func (o outside) comesFrom(t *testing.T, want4, want6 netip.Addr) {
	t.Helper()
	for _, to := range o.targets() {
		want := want4
		if to.Addr().Is6() {
			want = want6
		}
		for _, network := range []string{"tcp", "udp"} {
			wantSource(t, o.Space, network, to, want)
		}
	}
	for _, addr := range o.pod.addrs {
		for _, size := range []string{"56", "4000"} { // the second in fragments
			labtest.Until(t, patience, func() error {
				_, err := o.Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-s", size, addr.String())
				return err
			})
		}
	}
}

// TestInward: a host outside of the overlay reaches a pod of node b through node a, over routes and by DNAT.
func TestInward(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(newSecret(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"sealed":    {"--secret-file", secret},
		"kernel":    {"--datapath", "kernel"},
		"userspace": {"--datapath", "userspace"},
		"guarded":   {"--guard", "pods", "--source-check", "enforce", "--direct-routing", "auto"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testInward(t, newOutside(t, args...))
		})
	}
}

func testInward(t *testing.T, o outside) {
	t.Helper()
	do(t, o.a, "expose")
	if conn, err := dialSource(o.Space, "tcp", netip.AddrPortFrom(o.a.Addr(), dnatTo)); err == nil {
		_ = conn.Close()
		t.Error("the client reaches the pod without --inward")
	}
	var own []netip.Addr
	for _, line := range strings.Fields(do(t, o.a, "expose", "--inward")) {
		own = append(own, netip.MustParsePrefix(line).Addr())
	}
	if len(own) != 2 {
		t.Fatalf("exposed as %v", own)
	}
	o.comesFrom(t, own[0], own[1])

	do(t, o.a, "expose", "--inward=keep")
	o.comesFrom(t, o.Addr(), o.Addr6())
	// What the pod begins itself leaves by its own node as before, also to a client of the other one.
	serveSource(t, o.Space)
	for _, network := range []string{"tcp", "udp"} {
		wantSource(t, o.pod.Space, network, netip.AddrPortFrom(o.Addr(), sourcePort), o.b.Addr())
		wantSource(t, o.pod.Space, network, netip.AddrPortFrom(o.Addr6(), sourcePort), o.b.Addr6())
	}

	var open []net.Conn
	for _, to := range o.targets() {
		for _, network := range []string{"tcp", "udp"} {
			conn, err := dialSource(o.Space, network, to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := askSource(conn); err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
	}
	o.restart(t)
	for _, conn := range open {
		if conn.RemoteAddr().Network() == "udp" {
			continue // a lost datagram is not sent again
		}
		labtest.Until(t, patience, func() error { _, err := askSource(conn); return err })
	}
	if s := query[api.Status](t, o.a, "status"); s.Inward != api.InwardKeep {
		t.Errorf("after the restart the mode is %q", s.Inward)
	}
	o.comesFrom(t, o.Addr(), o.Addr6())

	// A firewall that drops by default, as Docker makes one, is a condition with a remedy.
	runLines(t, o.a, "nft 'table inet strict { chain f { type filter hook forward priority 0; policy drop; ct state established accept; }; }'")
	waitCondition(t, o.a, "a firewall", health.ClientTrafficFiltered, "of clients outside the overlay to pods",
		"nft insert rule inet strict f")
	runLines(t, o.a, strings.Split(conditions(t, o.a, health.ClientTrafficFiltered)[0].Remedy, `"`)[1])
	waitCondition(t, o.a, "after its remedy", health.ClientTrafficFiltered)
	o.comesFrom(t, o.Addr(), o.Addr6())

	// Other programs remove the rules.
	labtest.Run(t, o.b.Space, "nft", "delete", "table", "bridge", "weft-inward")
	o.comesFrom(t, o.Addr(), o.Addr6())
	do(t, o.a, "expose", "--inward=nat")
	labtest.Run(t, o.a.Space, "nft", "delete", "table", "ip", "weft-inward")
	o.comesFrom(t, own[0], own[1])

	do(t, o.a, "expose", "--inward=off")
	if tables := labtest.Run(t, o.a.Space, "nft", "list", "tables"); strings.Contains(tables, "weft-inward") {
		t.Errorf("--inward=off leaves\n%s", tables)
	}
	do(t, o.a, "expose", "--inward=keep")
	do(t, o.a, "hide")
	if s := query[api.Status](t, o.a, "status"); s.Inward != api.InwardOff {
		t.Errorf("after weft hide the mode is %q", s.Inward)
	}
	do(t, o.b, "leave")
	if tables := labtest.Run(t, o.b.Space, "nft", "list", "tables"); strings.Contains(tables, "weft-inward") {
		t.Errorf("weft leave leaves\n%s", tables)
	}
}

// restart stops both daemons and starts them again, as an upgrade does.
func (o outside) restart(t *testing.T) {
	t.Helper()
	nodes := []*cluster.Node{o.a, o.b}
	for _, n := range nodes {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		up(t, n, append(slices.Clone(o.args), others(nodes, n)...)...)
	}
	waitReady(t, nodes)
}
