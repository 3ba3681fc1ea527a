package router

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/endpoint"
	"weft/router/fdb"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// attack is what a hostile member sends in one round to one node.
type attack struct {
	m      *member
	random *rand.Rand
	all    []Peer // all nodes, and one that does not exist
}

// bytes returns up to most random bytes.
func (a *attack) bytes(most int) []byte {
	b := make([]byte, a.random.IntN(most+1))
	for i := range b {
		b[i] = byte(a.random.Uint32())
	}
	return b
}

// peer returns the ID of any node.
func (a *attack) peer() peer.ID { return a.all[a.random.IntN(len(a.all))].ID }

// addr returns an address of any kind.
func (a *attack) addr() netip.AddrPort {
	kinds := []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("224.0.0.1:5353"), netip.MustParseAddrPort("0.0.0.0:0"),
		netip.MustParseAddrPort("[ff02::1]:1"), netip.MustParseAddrPort("203.0.113.9:53"), endpoint.Relayed(a.peer()),
		a.all[a.random.IntN(len(a.all))].Addr,
	}
	return kinds[a.random.IntN(len(kinds))]
}

// control sends an engine's or another control message: well formed, cut, or of an unknown kind.
func (a *attack) control(to peer.ID) {
	var m []byte
	switch a.random.IntN(5) {
	case 0:
		m = holePunchMessage(a.peer(), a.addr())
	case 1:
		m = binary.BigEndian.AppendUint64([]byte{controlDialBack}, a.random.Uint64())
	case 2:
		m = binary.BigEndian.AppendUint64([]byte{controlDialedBack}, a.random.Uint64())
	default:
		m = a.bytes(40)
	}
	c := wire.Control{To: uint8(a.random.IntN(3)), Message: m}
	a.m.send(to, wire.TypeControl, c.Append(nil))
}

// probe sends a probe or an answer, with a size that it may not have.
func (a *attack) probe(to peer.ID) {
	size := 34 + a.random.IntN(1500)
	body := make([]byte, size-wire.HeaderLen-wire.TagLen)
	p := wire.Probe{Token: a.random.Uint32(), Size: uint16(size)}
	if a.random.IntN(4) == 0 {
		p.Size = uint16(a.random.Uint32())
	}
	p.Put(body)
	a.m.send(to, []wire.Type{wire.TypeProbe, wire.TypeProbeReply, wire.TypePortProbe}[a.random.IntN(3)], body)
}

// relayed sends a datagram through a node: to any node, in the name of any, after any number of links.
func (a *attack) relayed(to peer.ID) {
	r := wire.Relay{Hops: uint8(a.random.IntN(5)), Source: a.peer(), Destination: a.peer()}
	inner := a.bytes(200)
	if len(inner) >= wire.HeaderLen {
		wire.Header{Type: wire.Type(a.random.IntN(14)), Session: a.random.Uint32() & wire.MaxSession, Counter: a.random.Uint64()}.Put(inner)
	}
	a.m.relay(to, r, inner)
}

// frame sends a frame from any address but those of the test's pods, or garbage.
func (a *attack) frame(to peer.ID) {
	source := ether.Addr{2, 0, byte(a.random.Uint32()), byte(a.random.Uint32()), byte(a.random.Uint32()), byte(a.random.Uint32())}
	body := bodyOf(frame(mac(10+a.random.IntN(3)), source, 'h'))
	if a.random.IntN(3) == 0 {
		copy(body, a.bytes(wire.MetaLen))
	}
	a.m.send(to, wire.TypeFrame, body)
}

// garbage sends what no session has made, or seals what is no message.
func (a *attack) garbage(to Peer) {
	if a.random.IntN(2) == 0 {
		a.m.send(to.ID, wire.Type(a.random.IntN(16)), a.bytes(100))
		return
	}
	b := append(make([]byte, wire.HeaderLen), a.bytes(200)...)
	wire.Header{Type: wire.Type(1 + a.random.IntN(13)), Session: a.random.Uint32() & wire.MaxSession, Counter: a.random.Uint64()}.Put(b)
	a.m.write(to.Addr, b)
}

// initiation sends an initiation of its own that no node has seen, as fast as it likes.
func (a *attack) initiation(to Peer) {
	now := time.Now()
	node, err := session.NewNode(session.Config{
		Private: identityOf(3).private, Cluster: cluster, Secrets: modes["sealed"], Offer: anyCipher,
	})
	if err != nil {
		a.m.t.Fatal(err)
	}
	node.SetPeers([]session.Peer{{ID: to.ID, Public: to.Public, Addr: to.Addr}}, now)
	node.RequestSession(to.ID, now)
	messages, _ := node.Drain()
	for _, m := range messages {
		a.m.write(m.To, m.Datagram)
	}
}

// TestHostileMember: a member that has the secret and a key of its own, and floods three nodes with everything that the protocol
// knows, and what it does not: no node ends, no table exceeds its bound, no frame between two others is lost, redirected
// or read, and only bounded probes go to addresses that it names.
func TestHostileMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runSealed(t, 3, modes["sealed"]...)
		network.SetDefault(simnet.Link{Latency: time.Millisecond})
		bystander, err := network.Listen(netip.MustParseAddrPort("203.0.113.9:53"))
		if err != nil {
			t.Fatal(err)
		}
		hostile := peerOf(3)
		honest := []Peer{nodes[0].peer, nodes[1].peer, nodes[2].peer}
		announce := func(addr netip.AddrPort) {
			p := hostile
			p.Addr = addr
			for _, n := range nodes {
				n.SetPeers(append([]Peer{p}, honest...))
			}
		}
		announce(hostile.Addr)
		var stolen atomic.Int64
		m := newMember(t, network, 3, modes["sealed"], honest...)
		m.onDatagram = func(_ peer.ID, kind wire.Type, body []byte) {
			if kind == wire.TypeFrame && len(body) > wire.MetaLen+14 && body[wire.MetaLen+14] == 'n' {
				stolen.Add(1)
			}
		}
		a := &attack{m: m, random: rand.New(rand.NewPCG(1, 2)), all: append([]Peer{hostile, peerOf(9)}, honest...)}
		for i, n := range nodes {
			m.connect(n.peer.ID)
			deliver(t, nodes, i, frame(ether.Broadcast, mac(10+i), 'l'))
			time.Sleep(10 * time.Millisecond)
		}
		awaitQuiet(nodes)
		goroutines := runtime.NumGoroutine()

		const rounds = 1000 // of 10 ms
		sent, arrived := 0, [3]int{}
		for i := range rounds {
			for k, to := range honest {
				a.control(to.ID)
				a.probe(to.ID)
				a.relayed(to.ID)
				a.frame(to.ID)
				a.garbage(to)
				if i%4 == 0 {
					a.initiation(to)
				}
				nodes[k].dev.Inject(numbered(mac(10+(k+1)%3), mac(10+k), i))
			}
			if i%10 == 0 {
				announce(a.addr())
			}
			sent++
			time.Sleep(10 * time.Millisecond)
			for k, n := range nodes {
				arrived[k] += numberedAt(n)
			}
		}
		time.Sleep(time.Second)
		for k, n := range nodes {
			arrived[k] += numberedAt(n)
			if arrived[k] != sent {
				t.Errorf("node %d: %d of %d frames arrived; drops %v", k, arrived[k], sent, n.Stats().Drops)
			}
			for _, p := range n.Stats().Peers {
				if i := indexOf(honest, p.ID); i >= 0 && p.Addr != honest[i].Addr {
					t.Errorf("node %d sends to node %d at %s", k, i, p.Addr)
				}
			}
			checkBounds(t, n)
		}
		if stolen.Load() != 0 {
			t.Errorf("the member received %d frames between others", stolen.Load())
		}
		if n := runtime.NumGoroutine(); n > goroutines+10 {
			t.Errorf("%d goroutines, %d before", n, goroutines)
		}
		checkBystander(t, bystander, len(nodes)*rounds/100)
	})
}

// checkBounds checks that nothing that a member can make n remember exceeds its bound.
func checkBounds(t *testing.T, n *node) {
	t.Helper()
	if entries := n.fdb.Len(); entries > fdb.DefaultLimit {
		t.Errorf("%d addresses", entries)
	}
	if staged := n.stagedBytes.Load(); staged > maxStagedBytes {
		t.Errorf("%d bytes are staged", staged)
	}
	if peers := len(n.peers.Load().byID); peers != 3 {
		t.Errorf("%d peers", peers)
	}
	if lines := n.log.Load(); lines > 1000 { // one each time the member announces an address, and its sessions
		t.Errorf("%d log lines", lines)
	}
}

// checkBystander checks what a host that is no node has received in a number of seconds, of all nodes together.
func checkBystander(t *testing.T, c *simnet.Conn, seconds int) {
	t.Helper()
	batch := []underlay.Datagram{{Buf: make([]byte, 4096)}}
	kinds, bytesSent := map[wire.Type]int{}, 0
	for {
		n, _ := c.Poll(batch)
		if n == 0 {
			break
		}
		h, _, err := wire.Parse(batch[0].Buf)
		if err != nil {
			t.Fatal(err)
		}
		kinds[h.Type]++
		bytesSent += len(batch[0].Buf)
	}
	t.Logf("a host that the member names gets %d bytes in %d s of three nodes: %v", bytesSent, seconds/3, kinds)
	for kind := range kinds {
		if kind != wire.TypeProbe && kind != wire.TypeInitiation {
			t.Errorf("a datagram of type %d", kind)
		}
	}
	if most := seconds * (10*34 + 4*162); bytesSent > most {
		t.Errorf("%d bytes, want at most %d", bytesSent, most)
	}
}

// numberedAt returns the number of numbered frames that a node's host has received since the last call.
func numberedAt(n *node) (count int) {
	for {
		f, ok := n.dev.TryNext()
		if !ok {
			return count
		}
		if len(f.Data) >= 23 && f.Data[14] == 'n' && bytes.HasPrefix(f.Data[15:], []byte("0000")) {
			count++
		}
	}
}

// indexOf returns the index of the peer with an ID, or -1.
func indexOf(peers []Peer, id peer.ID) int {
	for i, p := range peers {
		if p.ID == id {
			return i
		}
	}
	return -1
}
