package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// Size of the flood of garbage, and the maximum cost for the daemon.
const (
	garbageDatagrams = 20000
	garbageLogLines  = 100
	garbageGrowth    = 32 << 20 // bytes of resident memory
)

// TestGarbageAtAllPorts: random bytes to every port, from a host that is not a member, neither disturb the traffic nor make
// the memory or the log of the node grow.
func TestGarbageAtAllPorts(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		nodes := newNodes(t, "a", "b")
		start(t, nodes)
		garbageAtAllPorts(t, nodes)
	})
	t.Run("sealed", func(t *testing.T) {
		nodes := newNodes(t, "a", "b")
		startSealed(t, nodes, do(t, nodes[0], "secret", "generate"))
		garbageAtAllPorts(t, nodes)
	})
}

func garbageAtAllPorts(t *testing.T, nodes []*cluster.Node) {
	outsider := labtest.AddHost(t, nodes[0].Lab(), "outsider")
	p, q := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
	p.reaches(t, q.addr)
	lines, memory := logLines(nodes[0]), residentBytes(t, nodes[0])

	random := rand.New(rand.NewPCG(1, 2))
	for _, port := range []uint16{6783, 6784} {
		sendGarbage(t, outsider, netip.AddrPortFrom(nodes[0].Addr(), port), random)
	}
	for range 20 {
		dialGarbage(t, outsider, netip.AddrPortFrom(nodes[0].Addr(), 6783), random)
		dialGarbage(t, nodes[0].Host, netip.MustParseAddrPort("127.0.0.1:6782"), random)
	}

	p.reaches(t, q.addr)
	drops := query[api.Status](t, nodes[0], "status").Drops
	if drops["session"] == 0 {
		t.Errorf("no datagram was counted as unauthenticated: %v", drops)
	}
	if n := logLines(nodes[0]) - lines; n > garbageLogLines {
		t.Errorf("the garbage caused %d log lines", n)
	}
	if n := residentBytes(t, nodes[0]) - memory; n > garbageGrowth {
		t.Errorf("the resident memory grew by %d bytes", n)
	}
}

// sendGarbage sends datagrams of all lengths; some start like datagrams of weft.
func sendGarbage(t *testing.T, from *nettest.Host, to netip.AddrPort, random *rand.Rand) {
	t.Helper()
	var conn *net.UDPConn
	err := from.Do(func() (err error) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range garbageDatagrams {
		length := random.IntN(1473)
		if i%100 == 0 {
			length = random.IntN(65508) // in fragments
		}
		b := make([]byte, length)
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		if len(b) > 0 && i%2 == 0 {
			b[0] = byte(random.IntN(20)) // similar to versions and message types
		}
		if i%3 == 0 {
			b = append([]byte("\xf4\x04weft"), b[:min(len(b), 65500)]...) // with the label of weft's gossip
		}
		_, _ = conn.Write(b) // an error, for example a full socket buffer, counts as a lost datagram
	}
}

// dialGarbage opens a TCP connection, sends random bytes and closes it.
func dialGarbage(t *testing.T, from *nettest.Host, to netip.AddrPort, random *rand.Rand) {
	t.Helper()
	var conn *net.TCPConn
	err := from.Do(func() (err error) {
		conn, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 1+random.IntN(5000))
	for j := range b {
		b[j] = byte(random.Uint32())
	}
	if random.IntN(2) == 0 {
		b = append([]byte("\xf4\x04weft\n"), b...) // the beginning of weft's encrypted gossip
	}
	_, _ = conn.Write(b)
}

func logLines(n *cluster.Node) int { return strings.Count(n.Process().Logs(), "\n") }

// residentBytes returns the resident memory of a node's daemon in bytes.
func residentBytes(t *testing.T, n *cluster.Node) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Process().Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
