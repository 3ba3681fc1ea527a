package vxlan_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
)

// asUser runs a script as a user without privileges.
func asUser(t *testing.T, s *nettest.Space, script string) {
	t.Helper()
	labtest.Run(t, s, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script)
}

// printed returns the script that sends a datagram from a socket of the shell, which the rules of the host may refuse.
func printed(to netip.Addr, datagram []byte) string {
	var b strings.Builder
	for _, c := range datagram {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return fmt.Sprintf("printf '%s' > /dev/udp/%s/%d || true", b.String(), to, port)
}

// wellKnown returns a VXLAN datagram with the VNI that all networks once had.
func wellKnown(content string) []byte {
	return append(vxlanHeader(6783), carriertest.Frame(ether.Broadcast, ether.Addr{2, 9}, content)...)
}

// counts returns a counter of a node's filter.
func (n *node) counts(t *testing.T, counter string) uint64 {
	t.Helper()
	drops, err := n.dev.FilterDrops(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return drops[counter]
}

// behindNAT adds a guest of the node that is in no overlay. Its packets leave with the address of the node.
func (n *node) behindNAT(t *testing.T, v6 bool) *nettest.Pod {
	t.Helper()
	guest := labtest.AddPod(t, n.Host.Host, "guest")
	carriertest.IP(t, n.Space, "link add docker0 type veth peer name eth0 netns "+guest.Name())
	carriertest.IP(t, n.Space, "link set docker0 up")
	carriertest.IP(t, guest.Space, "link set eth0 up")
	subnet, flag := "172.17.0.%d/16", ""
	if v6 {
		subnet, flag = "fd17::%d/64", " nodad"
	}
	carriertest.IP(t, n.Space, "addr add "+fmt.Sprintf(subnet, 1)+" dev docker0"+flag)
	carriertest.IP(t, guest.Space, "addr add "+fmt.Sprintf(subnet, 2)+" dev eth0"+flag)
	family, gateway := "", "172.17.0.1"
	if v6 {
		family, gateway = "-6 ", "fd17::1"
	}
	carriertest.IP(t, guest.Space, family+"route add default via "+gateway)
	labtest.Run(t, n.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	labtest.Run(t, n.Space, "nft", "add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; };"+
		`add rule inet nat post iifname "docker0" masquerade`)
	return guest
}

// TestForeignDatagrams: of datagrams to the port of the device only those of members reach a pod: not those with the address of a member
// but another VNI, of a guest of a member that is masqueraded, or of an unprivileged user of a member. Without the rules of the sender, or
// without any rules, it is the same.
func TestForeignDatagrams(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			l := labtest.New(t, nettest.Config{})
			a, b := newNode(t, l, 1, v6), newNode(t, l, 2, v6)
			for n, other := range map[*node]*node{a: b, b: a} {
				if _, err := n.dev.SetPeers(t.Context(), []carrier.Peer{other.peer()}); err != nil {
					t.Fatal(err)
				}
			}
			guest := b.behindNAT(t, v6)
			foreign := labtest.AddHost(t, l, "foreign")
			flag := ""
			if v6 {
				flag = " nodad"
			}
			carriertest.IP(t, foreign.Space, fmt.Sprintf("addr add %s/%d dev lo%s", b.Addr, b.Addr.BitLen(), flag)) // spoofed from here on
			pod := carriertest.Socket(t, a.Pod.Space, "eth0")
			attack := func(rules string) {
				sendTo(t, foreign.Space, b.Addr, a.Addr, wellKnown("well-known VNI, "+rules))
				sendFrom(t, foreign.Space, netip.AddrPortFrom(b.Addr, 0), a.Addr, forged("spoofed user, "+rules))
				asUser(t, b.Space, printed(a.Addr, forged("user, "+rules)))
			}
			attack("all rules")
			sendTo(t, guest.Space, netip.Addr{}, a.Addr, forged("masqueraded guest"))
			for _, c := range []struct {
				at      *node
				counter string
			}{{a, "vni"}, {a, "users"}, {b, "local"}, {b, "forwarded"}} {
				labtest.Until(t, patience, func() error {
					if n := c.at.counts(t, c.counter); n != 1 {
						return fmt.Errorf("%s counts %d datagrams as %s, want 1", c.at.Label(), n, c.counter)
					}
					return nil
				})
			}
			labtest.Run(t, b.Space, "nft", "delete table inet weft-weftvx")
			attack("none at the sender")
			labtest.Run(t, a.Space, "nft", "flush ruleset")
			attack("none")
			sendTo(t, b.Space, b.Addr, a.Addr, forged("member"))
			if got := collect(t, pod, "member"); len(got) != 1 {
				t.Errorf("the pod got %q", got)
			}
		})
	}
}

// TestSpoofedVNI shows what remains: a host that sends with the address of a member, from a privileged port and with the VNI, which it has
// to guess or to read from the network, is taken for the member.
func TestSpoofedVNI(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
	if _, err := a.dev.SetPeers(t.Context(), []carrier.Peer{b.peer()}); err != nil {
		t.Fatal(err)
	}
	foreign := labtest.AddHost(t, l, "foreign")
	carriertest.IP(t, foreign.Space, "addr add "+b.Addr.String()+"/32 dev lo")
	pod := carriertest.Socket(t, a.Pod.Space, "eth0")
	sendTo(t, foreign.Space, b.Addr, a.Addr, forged("knows the VNI"))
	collect(t, pod, "knows the VNI")
}

// TestUsersOfTheHost: the kernel path carries what unprivileged users of a host send into the overlay, also in superframes, and where
// the host masquerades all that it sends.
func TestUsersOfTheHost(t *testing.T) {
	for name, rules := range map[string]string{
		"plain": "",
		"masquerading": "add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; };" +
			"add rule inet nat post meta l4proto 17 masquerade fully-random",
	} {
		t.Run(name, func(t *testing.T) {
			l := labtest.New(t, nettest.Config{})
			a, b := newNode(t, l, 1, false), newNode(t, l, 2, false)
			if rules != "" {
				labtest.Run(t, b.Space, "nft", rules)
			}
			a.run(t, b.peer())
			b.run(t, a.peer())
			a.carries(t, b, true)
			b.carries(t, a, true)
			var server net.Listener
			if err := a.Do(func() (err error) {
				server, err = net.Listen("tcp", "10.32.1.1:0")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			received := make(chan int64, 1)
			go func() {
				conn, err := server.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn)
				received <- n
			}()
			const bytes = 3_000_000
			_, serverPort, err := net.SplitHostPort(server.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			asUser(t, b.Space, fmt.Sprintf("head -c %d /dev/zero > /dev/tcp/10.32.1.1/%s", bytes, serverPort))
			if n := <-received; n != bytes {
				t.Errorf("%d bytes arrived, want %d", n, bytes)
			}
			for _, n := range []*node{a, b} {
				for _, counter := range []string{"users", "local", "vni", "unknown", "forwarded"} {
					if dropped := n.counts(t, counter); dropped != 0 {
						t.Errorf("%s dropped %d datagrams as %s", n.Label(), dropped, counter)
					}
				}
			}
		})
	}
}
