package router

import (
	"bytes"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/entropyport"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
)

// nullConn is a socket that discards what it sends, and receives the datagrams of fill without end.
type nullConn struct {
	underlay.Conn
	fill func(d *underlay.Datagram)
}

func (c *nullConn) WriteBatch(batch []underlay.Datagram) (int, error) { return len(batch), nil }

func (c *nullConn) ReadBatch(batch []underlay.Datagram) (int, error) {
	for i := range batch {
		c.fill(&batch[i])
	}
	return len(batch), nil
}

// hotPath is an idle node with peers, and the two halves that its goroutines would run.
type hotPath struct {
	*node
	in     *inbound
	out    *outbound
	remote *remote // the sender
	conn   *nullConn
	// unicast, super and flood are long frames from the host; the destination of the first two is known.
	unicast, flood []byte
	super          tap.Frame
	fromPeer       []byte // a frame from the remote
}

// modes are the secrets of a node, by mode.
var modes = map[string][]session.Secret{"plain": nil, "sealed": {{Key: [session.KeyLen]byte{1}}}}

func newHotPath(t testing.TB, peers int, secrets ...session.Secret) *hotPath {
	t.Helper()
	null := &nullConn{}
	n := newNodeWith(t, simnet.New(1), 0, taptest.Config{MTU: 1438, Features: allFeatures, Queues: 2},
		Config{Secrets: secrets, EntropyPorts: []underlay.Conn{null}})
	n.now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	known := make([]Peer, peers)
	for i := range known {
		known[i] = peerOf(i + 1)
	}
	n.SetPeers(known)
	n.learn(mac(2), known[0].ID, n.now())
	long := func(dst ether.Addr) []byte { return append(frame(dst, mac(1), 'x'), make([]byte, 1420-64)...) }
	h := &hotPath{node: n, unicast: long(mac(2)), flood: long(ether.Broadcast), super: superframe(2, 1, 60000, 1350),
		fromPeer: append(frame(mac(1), mac(2), 'x'), make([]byte, 1420-64)...), conn: null}
	for i := range known {
		f := connectRemote(t, n, i+1, secrets...)
		if i == 0 {
			h.remote = f
		}
	}
	writer := tapWriter{queue: n.dev.Queues()[0]}
	h.in = newInbound(n.Engine, h.conn, writer)
	h.out = newOutbound(n.Engine, n.dev.Queues()[0], writer, h.conn)
	return h
}

// useEntropyPort makes frames to the first peer leave from an entropy port.
func (h *hotPath) useEntropyPort(t testing.TB) {
	t.Helper()
	v := h.peers.Load().byID[h.remote.peer.ID]
	out := v.egress.Load()
	v.ports[0].Carries(out.addr)
	p, ok := v.ports[0].Next(entropyport.Endpoint{Addr: out.addr, Session: out.session.Index()}, 1400, h.now(), func() uint32 { return 1 })
	v.ports[0].Answered(p, h.now())
	if !ok || !v.ports[0].Proven() {
		t.Fatal("the entropy port is not proven")
	}
}

// receiveFrom has the remote send the frame f repeatedly.
func (h *hotPath) receiveFrom(f []byte) {
	body, plain := bodyOf(f), h.tailroom == 0
	h.conn.fill = func(d *underlay.Datagram) {
		d.Addr = h.remote.peer.Addr
		if plain {
			d.Buf = d.Buf[:wire.HeaderLen]
			h.remote.session.PutHeader(d.Buf, wire.TypePlain, h.remote.counter())
			d.Buf = append(d.Buf, body...)
			return
		}
		d.Buf = h.remote.session.Seal(d.Buf[:0], wire.TypeFrame, h.remote.counter(), body)
	}
}

// transmit carries a batch of f from the host.
func (h *hotPath) transmit(t testing.TB, f []byte) {
	for range outFrames {
		h.dev.Inject(f)
	}
	for carried := 0; carried < outFrames; carried += len(h.out.batch.Frames()) {
		if _, err := h.out.step(); err != nil {
			t.Fatal(err)
		}
	}
}

// transmitSuper carries a superframe from the host.
func (h *hotPath) transmitSuper(t testing.TB) {
	h.dev.InjectQueue(0, h.super)
	if _, err := h.out.step(); err != nil {
		t.Fatal(err)
	}
}

// receive carries a batch of datagrams to the host.
func (h *hotPath) receive(t testing.TB) {
	if _, err := h.in.step(); err != nil {
		t.Fatal(err)
	}
	if n := h.dev.Discard(); n != inDatagrams {
		t.Fatalf("%d frames of %d arrived", n, inDatagrams)
	}
}

func TestNoAllocation(t *testing.T) {
	for mode, secrets := range modes {
		h := newHotPath(t, 5, secrets...)
		h.receiveFrom(h.fromPeer)
		for name, f := range map[string]func(){
			"unicast":    func() { h.transmit(t, h.unicast) },
			"flood":      func() { h.transmit(t, h.flood) },
			"superframe": func() { h.transmitSuper(t) },
			"receive":    func() { h.receive(t) },
		} {
			if n := testing.AllocsPerRun(50, f); n != 0 {
				t.Errorf("%s, %s: %v allocations a batch", mode, name, n)
			}
		}
		h.useEntropyPort(t)
		for name, f := range map[string]func(){
			"unicast":    func() { h.transmit(t, h.unicast) },
			"superframe": func() { h.transmitSuper(t) },
			"both":       func() { h.transmit(t, h.flood); h.transmit(t, h.unicast) },
		} {
			if n := testing.AllocsPerRun(50, f); n != 0 {
				t.Errorf("%s, %s from an entropy port: %v allocations a batch", mode, name, n)
			}
		}
		if s := h.Stats(); len(s.Drops) != 0 {
			t.Errorf("%s: drops %v", mode, s.Drops)
		}
	}
}

// TestNoAllocationInDrops: invalid datagrams cost no memory either.
func TestNoAllocationInDrops(t *testing.T) {
	h := newHotPath(t, 1, modes["sealed"]...)
	h.in.begin()
	forged := h.remote.sealed(wire.TypeFrame, bodyOf(frame(mac(1), mac(2), 'x')))
	forged[len(forged)-1]++
	unknown := h.remote.plain(nil)
	unknown[3]++
	for _, b := range [][]byte{nil, make([]byte, 5), make([]byte, 100), forged, unknown, h.remote.plain(make([]byte, 100))} {
		datagram := bytes.Clone(b)
		if n := testing.AllocsPerRun(50, func() {
			copy(datagram, b) // opening destroys it
			d := underlay.Datagram{Addr: addrOf(1), Buf: datagram}
			if err := h.in.split(&d); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%d bytes: %v allocations", len(b), n)
		}
	}
}

// The benchmarks measure the engine alone, with devices in memory and without system calls.

func benchmark(b *testing.B, f func(b *testing.B, h *hotPath)) {
	for mode, secrets := range modes {
		b.Run(mode, func(b *testing.B) {
			h := newHotPath(b, 5, secrets...)
			b.ReportAllocs()
			f(b, h)
		})
	}
}

func BenchmarkTransmit(b *testing.B) {
	benchmark(b, func(b *testing.B, h *hotPath) {
		b.SetBytes(int64(outFrames * len(h.unicast)))
		for b.Loop() {
			h.transmit(b, h.unicast)
		}
	})
}

func BenchmarkTransmitEntropyPort(b *testing.B) {
	benchmark(b, func(b *testing.B, h *hotPath) {
		h.useEntropyPort(b)
		b.SetBytes(int64(outFrames * len(h.unicast)))
		for b.Loop() {
			h.transmit(b, h.unicast)
		}
	})
}

func BenchmarkTransmitSuper(b *testing.B) {
	benchmark(b, func(b *testing.B, h *hotPath) {
		b.SetBytes(int64(len(h.super.Data)))
		for b.Loop() {
			h.transmitSuper(b)
		}
	})
}

func BenchmarkFlood(b *testing.B) {
	benchmark(b, func(b *testing.B, h *hotPath) {
		b.SetBytes(int64(outFrames * len(h.flood)))
		for b.Loop() {
			h.transmit(b, h.flood)
		}
	})
}

// BenchmarkReceive includes the work of the sender, as no datagram is accepted twice.
func BenchmarkReceive(b *testing.B) {
	benchmark(b, func(b *testing.B, h *hotPath) {
		h.receiveFrom(h.fromPeer)
		b.SetBytes(int64(inDatagrams * len(h.unicast)))
		for b.Loop() {
			h.receive(b)
		}
	})
}
