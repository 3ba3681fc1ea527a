package router

import (
	"errors"
	"maps"
	"testing"
	"testing/synctest"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
	"weft/tap/virtio"
)

func TestDropOutbound(t *testing.T) {
	good := tap.Frame{Data: frame(mac(2), mac(1), 'x')}
	for want, f := range map[drop.Reason]tap.Frame{
		0:                          good,
		drop.Runt:                  {Data: good.Data[:13]},
		drop.FrameExceedsDeviceMTU: {Data: append(good.Data, make([]byte, 1438+18-64+1)...)},
		drop.LinkLocal:             {Data: frame(ether.Addr{0x01, 0x80, 0xc2, 0, 0, 0x0e}, mac(1), 'x')},
		drop.BadSource:             {Data: frame(mac(2), ether.Broadcast, 'x')},
		drop.Offload:               {Data: good.Data, Offload: virtio.Header{Flags: virtio.FlagNeedsChecksum}}, // within the addresses
	} {
		t.Run(want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nodes := run(t, 2)
				nodes[0].dev.InjectQueue(0, f)
				got := awaitQuiet(nodes)
				checkDrop(t, nodes[0].Stats(), want)
				if (len(got[1]) == 1) != (want == 0) {
					t.Errorf("the other node received %q", got[1])
				}
			})
		})
	}
}

// checkDrop checks that want, and only that, was counted, and that nothing was learned from a dropped frame.
func checkDrop(t *testing.T, s Stats, want drop.Reason) {
	t.Helper()
	wantDrops, entries := map[drop.Reason]uint64{}, 1
	if want != 0 {
		wantDrops[want], entries = 1, 0
	}
	if !maps.Equal(s.Drops, wantDrops) || s.FDBEntries != entries {
		t.Errorf("drops %v, %d addresses; want %v, %d", s.Drops, s.FDBEntries, wantDrops, entries)
	}
}

func TestDropInbound(t *testing.T) {
	good := frame(mac(2), mac(1), 'x')
	long := func(n int) []byte { return bodyOf(append(good[:64:64], make([]byte, n-64)...)) }
	meta := func(with ...byte) []byte {
		return append(append(with, make([]byte, wire.MetaLen-len(with))...), good...)
	}
	other := func(change func(b []byte)) func(*remote) []byte {
		return func(r *remote) []byte {
			b := r.sealed(wire.TypeFrame, bodyOf(good))
			change(b)
			return b
		}
	}
	probe := func(size uint16, length int) []byte {
		b := make([]byte, length)
		wire.Probe{Size: size}.Put(b)
		return b
	}
	bytesOf := func(n int) func(*remote) []byte { return func(*remote) []byte { return make([]byte, n) } }
	sealed := func(kind wire.Type, body []byte) func(*remote) []byte {
		return func(r *remote) []byte { return r.sealed(kind, body) }
	}
	for _, tt := range []struct {
		name string
		want drop.Reason
		make func(r *remote) []byte
	}{
		{"good", 0, sealed(wire.TypeFrame, bodyOf(good))},
		{"as long as allowed", 0, sealed(wire.TypeFrame, long(1438+18))},
		{"empty", drop.Truncated, bytesOf(0)},
		{"header cut", drop.Truncated, bytesOf(11)},
		{"version", drop.Version, other(func(b []byte) { b[0] = 0x21 })},
		{"type", drop.Type, other(func(b []byte) { b[0] = 0x1f })},
		{"session", drop.Session, other(func(b []byte) { b[3]++ })},
		{"another type than was sealed", drop.Forged, other(func(b []byte) { b[0] = 0x12 })},
		{"another counter than was sealed", drop.Forged, other(func(b []byte) { b[11] ^= 1 })},
		{"counter of no datagram", drop.Counter, other(func(b []byte) { b[4] ^= 1 })},
		{"modified", drop.Forged, other(func(b []byte) { b[30]++ })},
		{"tag cut", drop.Forged, func(r *remote) []byte { return r.sealed(wire.TypeFrame, nil)[:20] }},
		{"not sealed", drop.NotSealed, func(r *remote) []byte { return r.plain(bodyOf(good)) }},
		{"metadata cut", drop.Truncated, sealed(wire.TypeFrame, make([]byte, 7))},
		{"no frame", drop.Runt, sealed(wire.TypeFrame, bodyOf(nil))},
		{"runt", drop.Runt, sealed(wire.TypeFrame, bodyOf(good[:13]))},
		{"longer than allowed", drop.FrameExceedsDeviceMTU, sealed(wire.TypeFrame, long(1438+18+1))},
		{"huge", drop.FrameExceedsDeviceMTU, sealed(wire.TypeFrame, long(60000))},
		{"probe of another size than it declares", drop.Metadata, sealed(wire.TypeProbe, probe(50, 6))},
		{"answer to a probe, too long", drop.Metadata, sealed(wire.TypeProbeReply, probe(50, 7))},
		{"metadata", drop.Metadata, sealed(wire.TypeFrame, meta(0xff))},
		{"checksum beyond the frame", drop.Metadata, sealed(wire.TypeFrame, meta(0x10, 0, 60, 16))},
		{"checksum left", 0, sealed(wire.TypeFrame, meta(0x10, 0, 34, 16))},
		{"segment of no superframe", drop.Offload, sealed(wire.TypeFrame, meta(0x31, 54, 34, 16, 0, 10))},
		{"link-local", drop.LinkLocal, sealed(wire.TypeFrame, bodyOf(frame(ether.Addr{0x01, 0x80, 0xc2}, mac(1), 'x')))},
		{"group source", drop.BadSource, sealed(wire.TypeFrame, bodyOf(frame(mac(2), ether.Addr{0x33, 0x33}, 'x')))},
		{"zero source", drop.BadSource, sealed(wire.TypeFrame, bodyOf(frame(mac(2), ether.Addr{}, 'x')))},
		{"initiation cut", drop.Truncated, func(*remote) []byte { return append([]byte{0x16}, make([]byte, 100)...) }},
		{"unauthenticated initiation", drop.Secret, func(*remote) []byte {
			b := append([]byte{0x16}, make([]byte, wire.InitiationLen-1)...)
			b[15] = 1
			return b
		}},
		{"answer to nothing", drop.Unexpected, func(*remote) []byte {
			b := append([]byte{0x17}, make([]byte, wire.ResponseLen-1)...)
			b[15] = 1
			return b
		}},
		{"message too long", drop.Metadata, func(*remote) []byte { return append([]byte{0x16}, make([]byte, 500)...) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := simnet.New(1)
				n := newNodeOf(t, network, 0, taptest.Config{MTU: 1438}, modes["sealed"]...)
				runNodes(t, []*node{n})
				socket, err := network.Listen(addrOf(1))
				if err != nil {
					t.Fatal(err)
				}
				n.SetPeers([]Peer{peerOf(1)})
				synctest.Wait()
				other := connectRemote(t, n, 1, modes["sealed"]...)
				if _, err := socket.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: tt.make(other)}}); err != nil {
					t.Fatal(err)
				}
				got := awaitQuiet([]*node{n})
				checkDrop(t, n.Stats(), tt.want)
				if (len(got[0]) == 1) != (tt.want == 0) {
					t.Errorf("the host received %q", got[0])
				}
			})
		})
	}
}

// TestReplays: a datagram is accepted once, sealed or not.
func TestReplays(t *testing.T) {
	for mode, secrets := range modes {
		h := newHotPath(t, 1, secrets...)
		h.receiveFrom(h.fromPeer)
		first := make([]underlay.Datagram, inDatagrams)
		for i := range first {
			first[i].Buf = make([]byte, 0, 2000)
			h.conn.fill(&first[i])
		}
		again := 0
		h.conn.fill = func(d *underlay.Datagram) {
			f := first[again%len(first)]
			d.Addr, d.Buf = f.Addr, append(d.Buf[:0], f.Buf...)
			again++
		}
		for range 3 {
			if _, err := h.in.step(); err != nil {
				t.Fatal(err)
			}
		}
		if n, s := h.dev.Discard(), h.Stats(); n != inDatagrams || s.Drops[drop.Replayed] != 2*inDatagrams {
			t.Errorf("%s: %d frames of %d arrived, drops %v", mode, n, inDatagrams, s.Drops)
		}
	}
}

// TestDropSend: a datagram that cannot be sent is counted for its peer, and the others are sent.
func TestDropSend(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(8), peerOf(9)})
	o := newOutbound(n.Engine, nil, tapWriter{}, n.conn)
	peers := n.peers.Load().flooded.Load().peers
	for i, size := range []int{underlay.MaxDatagram + 1, 100} {
		s := send{to: peers[i], frames: 1, bytes: size}
		if err := o.push(underlay.Datagram{Buf: make([]byte, size)}, &egress{addr: addrOf(8 + i)}, s, &o.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	p := n.Stats().Peers
	if p[0].Drops[drop.DatagramExceedsLinkMTU] != 1 || p[0].TxFrames != 0 || p[1].TxFrames != 1 || len(p[1].Drops) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestDropDevice: if the TAP refuses a frame, the other frames are written.
func TestDropDevice(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	w := tapWriter{queue: n.dev.Queues()[0]}
	refused, err := w.write([]tap.Frame{{Data: make([]byte, 3)}, {Data: frame(mac(1), mac(2), 'x')}})
	if refused != 1 || err != nil || n.dev.Discard() != 1 {
		t.Errorf("%d refused, %v", refused, err)
	}
}

// FuzzInbound: every datagram from the network is carried or counted, once, and only valid frames are carried. The
// fuzzed bytes are the body of a datagram that a peer has sealed or sent plain, or a whole datagram.
func FuzzInbound(f *testing.F) {
	for _, seed := range inboundSeeds() {
		f.Add(seed.body, uint8(seed.kind), seed.sealed)
	}
	n := newNodeWith(f, simnet.New(1), 0, taptest.Config{MTU: 1438}, Config{Events: &events{}})
	n.SetPeers([]Peer{peerOf(1), peerOf(2)})
	r := connectRemote(f, n, 1)
	connectRemote(f, n, 2)
	in := newInbound(n.Engine, n.conn, tapWriter{queue: n.dev.Queues()[0]})
	f.Fuzz(func(t *testing.T, b []byte, kind uint8, sealed bool) {
		before := n.Stats()
		in.begin()
		datagram := b
		switch {
		case sealed:
			datagram = r.sealed(wire.Type(kind&15), b)
		case kind != 0:
			datagram = r.plain(b)
		}
		if err := in.split(&underlay.Datagram{Addr: addrOf(1), Buf: datagram}); err != nil {
			t.Fatal(err)
		}
		in.sum.Flush()
		for _, f := range in.coalescer.Frames() {
			if reason := check(f.Data, 0, int(n.longest.Load())); reason != 0 {
				t.Errorf("an invalid frame passes: %s", reason)
			}
		}
		if err := errors.Join(in.forward.flush(), in.flush()); err != nil {
			t.Fatal(err)
		}
		n.dev.Discard()
		if counted, want := countInbound(n, before), wantCounted(datagram, b, sealed); counted != want {
			t.Errorf("%d datagrams counted, want %d: sealed %v, %x", counted, want, sealed, datagram)
		}
	})
}

// inboundSeed is an input of FuzzInbound.
type inboundSeed struct {
	kind   wire.Type // 0: body is the whole datagram
	sealed bool
	body   []byte
}

// inboundSeeds returns a good datagram of each type, and some that are none.
func inboundSeeds() []inboundSeed {
	control := func(to uint8, m []byte) []byte { return wire.Control{To: to, Message: m}.Append(nil) }
	relay := func(to int, inner ...byte) []byte {
		body := make([]byte, wire.RelayLen+len(inner))
		wire.Relay{Hops: 1, Source: identityOf(1).id, Destination: identityOf(to).id}.Put(body)
		copy(body[wire.RelayLen:], inner)
		return body
	}
	header := func(kind wire.Type, length int) []byte {
		b := make([]byte, length)
		wire.Header{Type: kind}.Put(b)
		return b
	}
	token := []byte{8: 0}
	return []inboundSeed{
		{wire.TypeFrame, true, bodyOf(frame(mac(1), mac(2), 'x'))},
		{wire.TypePlain, false, bodyOf(nil)},
		{wire.TypePlain, false, bodyOf(frame(mac(1), mac(2), 'x'))},
		{wire.TypeProbe, true, []byte{0, 0, 0, 1, 0, 34}},
		{wire.TypeProbeReply, true, []byte{0, 0, 0, 1, 0, 34}},
		{wire.TypeKeepalive, true, nil},
		{0, false, header(wire.TypeInitiation, wire.InitiationLen)},
		{0, false, header(wire.TypeResponse, wire.ResponseLen)},
		{0, false, header(wire.TypeCookie, wire.CookieLen)},
		{0, false, header(wire.TypeUnknown, wire.HeaderLen)},
		{0, false, header(wire.TypeDialBack, wire.HeaderLen)},
		{0, false, []byte{0x16}},
		{wire.TypeControl, true, control(controlEngine, append([]byte{controlDialBack}, token[1:]...))},
		{wire.TypeControl, true, control(controlEngine, append([]byte{controlDialedBack}, token[1:]...))},
		{wire.TypeControl, true, control(controlEngine, holePunchMessage(identityOf(2).id, addrOf(7)))},
		{wire.TypeControl, true, control(MinControl, []byte("message"))},
		{wire.TypeRelay, true, relay(0, header(wire.TypeKeepalive, wire.HeaderLen+wire.TagLen)...)},
		{wire.TypeRelay, true, relay(0, header(wire.TypeDialBack, wire.HeaderLen)...)},
		{wire.TypeRelay, true, relay(0, header(wire.TypeUnknown, wire.HeaderLen)...)},
		{wire.TypeRelay, true, relay(2, header(wire.TypeFrame, 100)...)},
		{wire.TypeRelay, true, relay(9, header(wire.TypeFrame, 100)...)},
		{wire.TypeDialBack, true, []byte("0")},
	}
}

// wantCounted returns how often a datagram with a body is counted. It is 0 if it is accepted and is neither carried, nor relayed,
// nor a probe: then it is a keepalive, a dial-back, or a control message.
func wantCounted(datagram, body []byte, sealed bool) int {
	header, _, err := wire.Parse(datagram)
	switch {
	case err != nil:
		return 1
	case header.Type == wire.TypeDialBack, sealed && header.Type == wire.TypeKeepalive:
		return 0
	case !sealed || header.Type != wire.TypeControl:
		return 1
	}
	c, err := wire.ParseControl(body)
	switch {
	case err != nil:
		return 1
	case c.To != controlEngine:
		return 0
	case len(c.Message) == dialBackLen && (c.Message[0] == controlDialBack || c.Message[0] == controlDialedBack):
		return 0
	default: // of an unknown kind, or a hole punch, of which this node takes part in none
		return 1
	}
}

// countInbound returns how many datagrams n has counted since before, and empties the queues of its other goroutines.
func countInbound(n *node, before Stats) (counted int) {
	after := n.Stats()
	counted = int(after.Probes - before.Probes)
	for i, p := range after.Peers {
		counted += int(p.RxFrames - before.Peers[i].RxFrames)
	}
	for d, drops := range after.Drops {
		counted += int(drops - before.Drops[d])
	}
	counted += int(after.Relayed - before.Relayed)
	for len(n.handshakes.messages) > 0 {
		<-n.handshakes.messages
		counted++
	}
	for len(n.handshakes.strays)+len(n.handshakes.updates)+len(n.probeReplies)+len(n.dialBackRequests) > 0 {
		select {
		case <-n.handshakes.strays:
		case <-n.handshakes.updates:
		case <-n.probeReplies:
		case <-n.dialBackRequests:
		}
	}
	return counted
}
