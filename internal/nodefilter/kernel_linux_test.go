package nodefilter_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nodefilter"
)

// gossip is the port that is closed, and other is one that stays open.
const (
	gossip = 6783
	other  = 7000
)

// host is a host with a pod on a bridge, which it masquerades.
type host struct {
	*nettest.Host
	pod *nettest.Pod
}

func newHost(t *testing.T, l *nettest.Lab) host {
	t.Helper()
	h := host{labtest.AddHost(t, l, "a"), nil}
	h.pod = labtest.AddPod(t, h.Host, "pod")
	run(t, h.Space, "link add weave type bridge", "addr add 10.32.0.1/12 dev weave", "addr add fd32::1/64 dev weave nodad",
		"link set weave up", "link add port master weave type veth peer name eth0 netns "+h.pod.Name(), "link set port up")
	run(t, h.pod.Space, "addr add 10.32.0.2/12 dev eth0", "addr add fd32::2/64 dev eth0 nodad", "link set eth0 up",
		"route add default via 10.32.0.1", "-6 route add default via fd32::1")
	labtest.Run(t, h.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	labtest.Run(t, h.Space, "nft", "add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; };"+
		`add rule inet nat post iifname "weave" oifname != "weave" masquerade`)
	return h
}

func run(t *testing.T, s *nettest.Space, lines ...string) {
	t.Helper()
	for _, line := range lines {
		labtest.Run(t, s, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// listen accepts TCP connections, and answers datagrams, at addresses of a namespace.
func listen(t *testing.T, s *nettest.Space, port uint16, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		at := net.JoinHostPort(addr, strconv.Itoa(int(port)))
		var tcp net.Listener
		var udp net.PacketConn
		err := s.Do(func() (err error) {
			if tcp, err = net.Listen("tcp", at); err != nil {
				return err
			}
			udp, err = net.ListenPacket("udp", at)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
		go func() {
			for {
				conn, err := tcp.Accept()
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		}()
		go func() {
			buf := make([]byte, 16)
			for {
				n, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(buf[:n], from)
			}
		}()
	}
}

// reaches reports whether something answers.
func reaches(t *testing.T, s *nettest.Space, network string, to netip.AddrPort) (ok bool) {
	t.Helper()
	err := s.Do(func() error {
		conn, err := net.DialTimeout(network, to.String(), 300*time.Millisecond)
		if err != nil {
			return ignore(err)
		}
		defer conn.Close()
		if network == "tcp" {
			ok = true
			return nil
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			return ignore(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, err = conn.Read(make([]byte, 16))
		ok = err == nil
		return ignore(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// ignore returns err unless it says that nothing answers.
func ignore(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// TestPods: a pod reaches no port of its node or of another one, over both families and protocols; and it does reach other ports of
// them, and the same port of a pod and of a host that is no node. The hosts reach each other.
func TestPods(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a := newHost(t, l)
	node, outside := labtest.AddHost(t, l, "node"), labtest.AddHost(t, l, "outside")
	second := labtest.AddPod(t, a.Host, "pod2")
	run(t, a.Space, "link add port2 master weave type veth peer name eth0 netns "+second.Name(), "link set port2 up")
	run(t, second.Space, "addr add 10.32.0.3/12 dev eth0", "addr add fd32::3/64 dev eth0 nodad", "link set eth0 up")
	for _, port := range []uint16{gossip, other} {
		listen(t, a.Space, port, "10.32.0.1", "fd32::1", a.Addr().String(), a.Addr6().String())
		listen(t, node.Space, port, node.Addr().String(), node.Addr6().String())
		listen(t, outside.Space, port, outside.Addr().String(), outside.Addr6().String())
		listen(t, second.Space, port, "10.32.0.3", "fd32::3")
	}
	var fw *nodefilter.NFT
	ports := []nodefilter.Port{{Protocol: nodefilter.TCP, Number: gossip}, {Protocol: nodefilter.UDP, Number: gossip}}
	rules := nodefilter.Ruleset{
		Bridge: "weave", Links: []string{"weft0", "vweft*"}, Own: ports,
		Nodes: []netip.Addr{node.Addr(), node.Addr6()},
	}
	apply := func() {
		t.Helper()
		if err := a.Do(func() (err error) {
			if fw == nil {
				if fw, err = nodefilter.New(t.Context()); err != nil {
					return err
				}
			}
			return fw.Apply(t.Context(), rules)
		}); err != nil {
			t.Fatal(err)
		}
	}
	type try struct {
		from *nettest.Space
		to   string
		port uint16
		want bool
	}
	var tries []try
	for _, to := range []string{"10.32.0.1", "fd32::1", a.Addr().String(), a.Addr6().String(), node.Addr().String(), node.Addr6().String()} {
		tries = append(tries, try{a.pod.Space, to, gossip, false}, try{a.pod.Space, to, other, true})
	}
	for _, to := range []string{"10.32.0.3", "fd32::3", outside.Addr().String(), outside.Addr6().String()} {
		tries = append(tries, try{a.pod.Space, to, gossip, true})
	}
	tries = append(tries, try{a.Space, node.Addr().String(), gossip, true}, try{node.Space, a.Addr6().String(), gossip, true})
	check := func(state string, open bool) {
		t.Helper()
		for _, c := range tries {
			for _, network := range []string{"tcp", "udp"} {
				want := c.want || open
				ok := func() error {
					if got := reaches(t, c.from, network, netip.AddrPortFrom(netip.MustParseAddr(c.to), c.port)); got != want {
						return fmt.Errorf("%s: from %s, %s port %d of %s: %v, want %v", state, c.from.Name(), network, c.port, c.to, got, want)
					}
					return nil
				}
				if !want {
					if err := ok(); err != nil {
						t.Error(err)
					}
					continue
				}
				labtest.Until(t, 10*time.Second, ok) // neighbors have to be found first
			}
		}
	}
	check("without rules", true)
	apply()
	check("with rules", false)
	all := rules.Nodes
	for _, nodes := range [][]netip.Addr{{outside.Addr()}, all} { // one leaves and is back
		rules.Nodes = nodes
		apply()
	}
	rules.Nodes, rules.KeepNodes = nil, true // as after a restart
	apply()
	check("after a restart", false)
	err := a.Do(func() error {
		if intact, err := fw.Intact(); err != nil || !intact {
			t.Errorf("intact: %v, %v", intact, err)
		}
		if n, err := fw.Dropped(t.Context()); err != nil || n == 0 {
			t.Errorf("%d packets dropped, %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, a.Space, "nft", "delete table inet weft-nodes; add table inet weft-nodes; add set inet weft-nodes own { type ipv4_addr; }")
	apply() // replaces a table that it cannot change
	rules.KeepNodes = false
	err = a.Do(func() error { return errors.Join(fw.Remove(t.Context()), fw.Remove(t.Context())) })
	if err != nil {
		t.Fatal(err)
	}
	check("removed", true)
}
