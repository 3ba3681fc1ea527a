package router

import (
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/underlay"
)

// nullConn is a socket that takes everything and gives the same batch for ever.
type nullConn struct {
	underlay.Conn
	batch []underlay.Datagram
}

func (c *nullConn) WriteBatch(batch []underlay.Datagram) (int, error) { return len(batch), nil }

func (c *nullConn) ReadBatch(batch []underlay.Datagram) (int, error) {
	for i, d := range c.batch {
		batch[i].Addr, batch[i].Buf = d.Addr, append(batch[i].Buf[:0], d.Buf...)
	}
	return len(c.batch), nil
}

// hotPath is a node with peers, idle, and the two halves that its goroutines would run.
type hotPath struct {
	*node
	in  *inbound
	out *outbound
	// unicast and flood are frames from the host, long ones; the former's destination is known.
	unicast, flood []byte
}

func newHotPath(t testing.TB, peers int) *hotPath {
	t.Helper()
	n := newNode(t, simnet.New(1), 0)
	n.now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	known := make([]Peer, peers)
	for i := range known {
		known[i] = Peer{ID: peer.ID{byte(i + 2)}, Addr: addrOf(i + 1)}
	}
	n.SetPeers(known)
	n.learn(mac(2), known[0].ID, n.now())
	long := func(dst ether.Addr) []byte { return append(frame(dst, mac(1), 'x'), make([]byte, 1452-64)...) }
	h := &hotPath{node: n, unicast: long(mac(2)), flood: long(ether.Broadcast)}
	conn := &nullConn{}
	for range inDatagrams {
		b := datagram(append(frame(mac(1), mac(2), 'x'), make([]byte, 1452-64)...))
		conn.batch = append(conn.batch, underlay.Datagram{Addr: addrOf(1), Buf: b})
	}
	host := &host{queue: n.dev.Queues()[0]}
	h.in = newInbound(n.Engine, conn, host)
	h.out = newOutbound(n.Engine, n.dev.Queues()[0], host, conn)
	return h
}

// transmit has the host send a batch of f, and carries it.
func (h *hotPath) transmit(t testing.TB, f []byte) {
	for range outFrames {
		h.dev.Inject(f)
	}
	for carried := 0; carried < outFrames; carried += len(h.out.batch.Frames()) {
		if err := h.out.step(); err != nil {
			t.Fatal(err)
		}
	}
}

// receive carries a batch of datagrams to the host.
func (h *hotPath) receive(t testing.TB) {
	if err := h.in.step(); err != nil {
		t.Fatal(err)
	}
	if n := h.dev.Discard(); n != inDatagrams {
		t.Fatalf("%d frames of %d arrived", n, inDatagrams)
	}
}

func TestNoAllocation(t *testing.T) {
	h := newHotPath(t, 5)
	for name, f := range map[string]func(){
		"unicast": func() { h.transmit(t, h.unicast) },
		"flood":   func() { h.transmit(t, h.flood) },
		"receive": func() { h.receive(t) },
	} {
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
	if s := h.Stats(); len(s.Drops) != 0 {
		t.Errorf("drops %v", s.Drops)
	}
}

// TestNoAllocationInDrops: neither does a sender of garbage cost memory.
func TestNoAllocationInDrops(t *testing.T) {
	h := newHotPath(t, 1)
	from := h.peers.Load().flood[0]
	for _, b := range [][]byte{nil, make([]byte, 5), make([]byte, 100), datagram(nil), datagram(make([]byte, 100))} {
		if n := testing.AllocsPerRun(50, func() {
			for _, from := range []*hop{from, nil} {
				if err := h.in.split(&underlay.Datagram{Buf: b}, from, h.now(), int(h.longest.Load())); err != nil {
					t.Fatal(err)
				}
			}
		}); n != 0 {
			t.Errorf("%d bytes: %v allocations", len(b), n)
		}
	}
}

// The benchmarks show what the engine costs by itself, with the copies of the devices in memory: no system call.

func BenchmarkTransmit(b *testing.B) {
	h := newHotPath(b, 5)
	b.SetBytes(int64(outFrames * len(h.unicast)))
	b.ReportAllocs()
	for b.Loop() {
		h.transmit(b, h.unicast)
	}
}

func BenchmarkFlood(b *testing.B) {
	h := newHotPath(b, 5)
	b.SetBytes(int64(outFrames * len(h.flood)))
	b.ReportAllocs()
	for b.Loop() {
		h.transmit(b, h.flood)
	}
}

func BenchmarkReceive(b *testing.B) {
	h := newHotPath(b, 5)
	b.SetBytes(int64(inDatagrams * len(h.unicast)))
	b.ReportAllocs()
	for b.Loop() {
		h.receive(b)
	}
}
