package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// The ECN field (RFC 3168), and a DSCP as a TOS without ECN.
const (
	notECT, ect1, ect0, ce = 0, 1, 2, 3
	af41                   = 34 << 2
)

// TestECN: on every datapath and over both families of the underlay, marks of congestion on the underlay reach the pods, a
// packet without ECN that would carry one is dropped and counted, and the DSCP of the pods is on the underlay only behind the
// node that copies it.
func TestECN(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		over6, sealed bool
		datapath      api.Datapath
	}{
		{"kernel", false, false, api.DatapathKernel},
		{"kernel over IPv6", true, false, api.DatapathKernel},
		{"userspace", false, false, api.DatapathUserspace},
		{"userspace over IPv6", true, false, api.DatapathUserspace},
		{"sealed", false, true, api.DatapathUserspace},
		{"sealed over IPv6", true, true, api.DatapathUserspace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			secret := newSecret(t)
			for i, n := range nodes {
				args := []string{"--range", "10.32.0.0/12", "--range", range6, "--dscp", []string{"none", "copy"}[i]}
				if tt.sealed {
					writeSecret(t, n, secret)
					args = append(args, "--secret-file", secretFile(n))
				}
				if tt.datapath == api.DatapathUserspace {
					args = append(args, "--datapath", "userspace")
				}
				if tt.over6 {
					args = append(args, "--advertise", n.Addr6().String(), "["+nodes[1-i].Addr6().String()+"]")
				} else {
					args = append(args, nodes[1-i].Addr().String())
				}
				up(t, n, args...)
			}
			waitReady(t, nodes)
			pods := []*pod{attachAll(t, nodes[0], "p", 2), attachAll(t, nodes[1], "q", 2)}
			pods[0].reaches(t, pods[1].addrs...)
			for i, n := range nodes {
				waitDatapath(t, n, nodes[1-i].Label(), tt.datapath)
			}
			u := &markingUnderlay{nodes: nodes, port: 6784, ip: "ip"}
			if tt.datapath == api.DatapathKernel {
				u.port = 6785
			}
			if tt.over6 {
				u.ip = "ip6"
			}
			u.open(t)
			var links []*tosLink
			for i := range pods {
				for family := range 2 {
					links = append(links, newTOSLink(t, pods[i], pods[1-i], family))
				}
			}
			checkDSCP(t, u, links)
			u.mark(t, "udp dport %d %s ecn != not-ect %s ecn set ce")
			for _, l := range links {
				for sent, want := range map[uint8]uint8{ect0: ce, ect1: ce, ce: ce, notECT: notECT, af41 | ect0: af41 | ce} {
					l.arrives(t, sent, want)
				}
			}
			checkTCP(t, u, pods)
			u.mark(t, "udp dport %d %s ecn set ce") // no router may do this
			for _, l := range links {
				l.isLost(t, notECT, ect0)
			}
			for _, n := range nodes {
				checkNotECT(t, n, tt.datapath)
			}
		})
	}
}

// checkDSCP requires that the DSCP of a pod on b is on the underlay, and that of a pod on a is not.
func checkDSCP(t *testing.T, u *markingUnderlay, links []*tosLink) {
	t.Helper()
	for _, l := range links {
		for _, ecn := range []uint8{notECT, ect0, ect1, ce} {
			l.arrives(t, af41|ecn, af41|ecn)
		}
	}
	for i, n := range u.nodes {
		if packets := u.seen(t, n, "af41"); (packets > 0) != (i == 0) { // a receives what b has sent
			t.Errorf("%s has received %d datagrams with the DSCP of a pod", n.Label(), packets)
		}
		if packets := u.seen(t, n, "ect1"); packets == 0 {
			t.Errorf("%s has received no datagram with the ECN of a pod", n.Label())
		}
	}
}

// checkTCP makes pods with ECN exchange a stream while the underlay marks some datagrams, one by one. The stream arrives
// unchanged, and the receiver sees the marks.
func checkTCP(t *testing.T, u *markingUnderlay, pods []*pod) {
	t.Helper()
	for _, p := range pods {
		labtest.Run(t, p.Space, "sysctl", "-qw", "net.ipv4.tcp_ecn=1")
	}
	disableBatching(t, u.nodes)
	before := netstat(t, pods[1], "InCEPkts")
	u.mark(t, "udp dport %d %s ecn != not-ect numgen random mod 50 == 0 %s ecn set ce")
	if err := transfer(testContext(t), pods[0], pods[1], 8<<20); err != nil {
		t.Error(err)
	}
	if marked := netstat(t, pods[1], "InCEPkts") - before; marked == 0 {
		t.Error("the receiver of the stream has seen no mark")
	}
	if seen := netstat(t, pods[0], "TCPDeliveredCE"); seen == 0 {
		t.Error("the sender of the stream has learned of no mark")
	}
}

// checkNotECT requires that n has counted a packet that was marked although it has no ECN.
func checkNotECT(t *testing.T, n *cluster.Node, datapath api.Datapath) {
	t.Helper()
	if datapath == api.DatapathUserspace {
		const line = `weft_drops_total{reason="not_ect"} `
		metrics := labtest.Run(t, n.Space, "curl", "-s", "http://127.0.0.1:6782/metrics")
		if !strings.Contains(metrics, line) || strings.Contains(metrics, line+"0\n") {
			t.Errorf("%s has counted no packet as not_ect", n.Label())
		}
		return
	}
	var list []struct {
		Stats64 struct{ Rx struct{ Errors int } }
	}
	if err := json.Unmarshal([]byte(labtest.Run(t, n.Space, "ip", "-j", "-s", "link", "show", "dev", kernelDevice)), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Stats64.Rx.Errors == 0 {
		t.Errorf("the kernel of %s has counted no error: %+v", n.Label(), list)
	}
}

// netstat returns a counter of a pod's kernel.
func netstat(t *testing.T, p *pod, name string) int {
	t.Helper()
	lines := strings.Split(labtest.Run(t, p.Space, "cat", "/proc/net/netstat"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		values := strings.Fields(lines[i+1])
		for at, field := range strings.Fields(lines[i]) {
			if field == name {
				n, err := strconv.Atoi(values[at])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	t.Fatalf("the kernel does not count %s", name)
	return 0
}

// markingUnderlay counts and marks the datagrams between nodes where they arrive, as routers on the way would.
type markingUnderlay struct {
	nodes []*cluster.Node
	port  int
	ip    string // ip or ip6, as nftables names the family
}

func (u *markingUnderlay) open(t *testing.T) {
	t.Helper()
	for _, n := range u.nodes {
		for _, command := range []string{
			"add table inet underlay",
			"add counter inet underlay af41", "add counter inet underlay ect1",
			"add chain inet underlay counting { type filter hook prerouting priority -300; }",
			fmt.Sprintf("add rule inet underlay counting udp dport %d %s dscp af41 counter name af41", u.port, u.ip),
			fmt.Sprintf("add rule inet underlay counting udp dport %d %s ecn ect1 counter name ect1", u.port, u.ip),
			"add chain inet underlay marking { type filter hook prerouting priority -299; }",
		} {
			labtest.Run(t, n.Space, "nft", command)
		}
	}
}

// mark replaces the rule that marks: a format of the port and twice the family.
func (u *markingUnderlay) mark(t *testing.T, rule string) {
	t.Helper()
	for _, n := range u.nodes {
		labtest.Run(t, n.Space, "nft", "flush chain inet underlay marking")
		labtest.Run(t, n.Space, "nft", "add rule inet underlay marking "+fmt.Sprintf(strings.ReplaceAll(rule, "%s", "%[2]s"), u.port, u.ip))
	}
}

// seen returns a counter of n.
func (u *markingUnderlay) seen(t *testing.T, n *cluster.Node, counter string) (packets int) {
	t.Helper()
	out := labtest.Run(t, n.Space, "nft", "list counter inet underlay "+counter)
	_, rest, _ := strings.Cut(out, "packets ")
	if _, err := fmt.Sscan(rest, &packets); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return packets
}

// tosLink sends datagrams with a TOS from one pod to another.
type tosLink struct {
	name    string
	out, in *net.UDPConn
	six     bool
	sent    int
}

// newTOSLink makes a link of the first or second address of each pod.
func newTOSLink(t *testing.T, from, to *pod, family int) *tosLink {
	t.Helper()
	addr := to.addrs[family]
	in := listenUDP(t, &pod{to.Pod, to.node, addr, to.addrs})
	l := &tosLink{
		name: from.node.Label() + " to " + addr.String(), in: in, six: addr.Is6(),
		out: dialUDP(t, from, netip.AddrPortFrom(addr, uint16(in.LocalAddr().(*net.UDPAddr).Port))),
	}
	if l.six {
		l.set(t, in, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	} else {
		l.set(t, in, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	}
	return l
}

func (l *tosLink) set(t *testing.T, conn *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }), failed); err != nil {
		t.Fatal(err)
	}
}

// send sends one datagram and returns its text.
func (l *tosLink) send(t *testing.T, tos uint8) string {
	t.Helper()
	if l.six {
		l.set(t, l.out, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(tos))
	} else {
		l.set(t, l.out, unix.IPPROTO_IP, unix.IP_TOS, int(tos))
	}
	l.sent++
	text := fmt.Sprintf("datagram %d with %02x", l.sent, tos)
	if _, err := l.out.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return text
}

// receive returns the next datagram and its TOS.
func (l *tosLink) receive(t *testing.T) (text string, tos uint8, err error) {
	t.Helper()
	_ = l.in.SetReadDeadline(time.Now().Add(time.Second))
	buf, oob := make([]byte, 100), make([]byte, 100)
	n, m, _, _, err := l.in.ReadMsgUDP(buf, oob)
	if err != nil {
		return "", 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 || len(messages[0].Data) == 0 {
		t.Fatalf("%s: control messages %+v, %v", l.name, messages, err)
	}
	return string(buf[:n]), messages[0].Data[0], nil // of IPv6 an int, of which this is the lowest byte
}

// arrives sends datagrams with a TOS until one arrives, and compares its TOS.
func (l *tosLink) arrives(t *testing.T, tos, want uint8) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		sent := l.send(t, tos)
		for {
			text, got, err := l.receive(t)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", l.name, sent, err)
			}
			if text != sent { // a late one of an earlier call
				continue
			}
			if got != want {
				t.Errorf("%s: %s arrived with %02x, want %02x", l.name, sent, got, want)
			}
			return nil
		}
	})
}

// isLost sends datagrams with a TOS, none of which may arrive before a datagram with the TOS last that is sent behind them.
func (l *tosLink) isLost(t *testing.T, tos, last uint8) {
	t.Helper()
	lost := map[string]bool{}
	for range 3 {
		lost[l.send(t, tos)] = true
	}
	labtest.Until(t, patience, func() error {
		sent := l.send(t, last)
		for {
			text, _, err := l.receive(t)
			if err != nil {
				return err
			}
			if lost[text] {
				t.Errorf("%s: %s has arrived under a mark", l.name, text)
			}
			if text == sent {
				return nil
			}
		}
	})
}
