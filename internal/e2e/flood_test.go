package e2e

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
)

// Size of the flood of handshakes, and the maximum cost for the node.
const (
	floodDatagrams = 100_000
	floodBurst     = 25 // datagrams per millisecond, if the machine is fast enough
	floodLogLines  = 100
	floodGrowth    = 16 << 20 // bytes of resident memory: less than the size of the flood

	initiationLen = 162
)

// TestFlood: 100,000 forged handshake messages hardly disturb the traffic between two nodes, and do not make the memory or
// the log of the node grow. Most are initiations from random addresses; every third has the address of the peer.
func TestFlood(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	attacker := labtest.AddHost(t, nodes[0].Lab(), "attacker")
	captures := captureUnderlay(t, nodes...)
	startSealed(t, nodes, newSecret(t))
	pods := reachingPods(t, nodes)
	lengths := handshakeLengths(allPackets(t, captures))
	if lengths[initiation] != initiationLen || lengths[response] == 0 {
		t.Fatalf("the nodes' handshake messages have the lengths %v", lengths)
	}
	transferBoth(t, pods, 16<<20) // so that the node has allocated its buffers

	lines, memory := logLines(nodes[0]), residentBytes(t, nodes[0])
	ping := pods[0].pinging(t, pods[1].addr)
	ping.waitReplies(t, 10)
	dropped := drops(t, nodes[:1])
	f := &flood{
		forge: newForger(t, attacker), random: rand.NewChaCha8([32]byte{1}), responseLen: lengths[response],
		to: netip.AddrPortFrom(nodes[0].Addr(), dataPort), peer: netip.AddrPortFrom(nodes[1].Addr(), dataPort),
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < floodDatagrams; sent++ {
		if sent%floodBurst == 0 {
			<-tick.C
		}
		f.send(t, sent)
	}
	waitEmpty(t, nodes[0])
	ping.waitReplies(t, 20)
	ping.steady(t)
	if n := drops(t, nodes[:1]) - dropped; n < floodDatagrams/2 {
		t.Errorf("%d of %d forged datagrams were counted as dropped", n, floodDatagrams)
	}
	if n := logLines(nodes[0]) - lines; n > floodLogLines {
		t.Errorf("the flood caused %d log lines", n)
	}
	if n := residentBytes(t, nodes[0]) - memory; n > floodGrowth {
		t.Errorf("the resident memory grew by %d bytes", n)
	}
	pods[1].reaches(t, pods[0].addr)
}

// handshakeLengths returns the length of a datagram of each type of handshake message, by its first byte.
func handshakeLengths(packets []packet) map[byte]int {
	lengths := map[byte]int{}
	for _, d := range datagrams(packets, dataPort) {
		if len(d.payload) > 0 && d.payload[0] >= initiation {
			lengths[d.payload[0]] = len(d.payload)
		}
	}
	return lengths
}

// flood generates forged handshake messages.
type flood struct {
	forge       *forger
	random      *rand.ChaCha8
	responseLen int
	to, peer    netip.AddrPort
}

// send sends the i-th datagram of the flood.
func (f *flood) send(t *testing.T, i int) {
	t.Helper()
	var payload []byte
	switch i % 20 {
	case 7, 17:
		payload = f.garbage(response, f.responseLen)
	case 8:
		payload = f.garbage(cookie, 12+int(f.random.Uint64()%120))
	case 9:
		payload = f.garbage(unknown, 12+int(f.random.Uint64()%20))
	default:
		payload = f.garbage(initiation, initiationLen)
		clear(payload[1:12])
	}
	from := f.peer
	if i%3 != 0 {
		r := f.random.Uint64() // 198.18.0.0/15 is for tests (RFC 2544) and unused here
		from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 | byte(r>>16)&1, byte(r >> 8), byte(r)}), uint16(r>>32)|1)
	}
	f.forge.send(t, from, f.to, payload)
}

// garbage returns random bytes after the given first byte.
func (f *flood) garbage(first byte, length int) []byte {
	b := make([]byte, length)
	_, _ = f.random.Read(b)
	b[0] = first
	return b
}
