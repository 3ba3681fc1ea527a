package router

import (
	"maps"
	"testing"
	"testing/synctest"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
	"weft/tap/virtio"
)

func TestDropOutbound(t *testing.T) {
	good := tap.Frame{Data: frame(mac(2), mac(1), 'x')}
	for want, f := range map[Drop]tap.Frame{
		0:                         good,
		DropRunt:                  {Data: good.Data[:13]},
		DropFrameExceedsDeviceMTU: {Data: append(good.Data, make([]byte, 1438+18-64+1)...)},
		DropLinkLocal:             {Data: frame(ether.Addr{0x01, 0x80, 0xc2, 0, 0, 0x0e}, mac(1), 'x')},
		DropBadSource:             {Data: frame(mac(2), ether.Broadcast, 'x')},
		DropOffload:               {Data: good.Data, Offload: virtio.Header{Flags: virtio.FlagNeedsChecksum}}, // within the addresses
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
func checkDrop(t *testing.T, s Stats, want Drop) {
	t.Helper()
	wantDrops, entries := map[Drop]uint64{}, 1
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
		want Drop
		make func(r *remote) []byte
	}{
		{"good", 0, sealed(wire.TypeFrame, bodyOf(good))},
		{"as long as allowed", 0, sealed(wire.TypeFrame, long(1438+18))},
		{"empty", DropTruncated, bytesOf(0)},
		{"header cut", DropTruncated, bytesOf(11)},
		{"version", DropVersion, other(func(b []byte) { b[0] = 0x21 })},
		{"type", DropType, other(func(b []byte) { b[0] = 0x1f })},
		{"session", DropSession, other(func(b []byte) { b[3]++ })},
		{"another type than was sealed", DropForged, other(func(b []byte) { b[0] = 0x12 })},
		{"another counter than was sealed", DropForged, other(func(b []byte) { b[11] ^= 1 })},
		{"counter of no datagram", DropCounter, other(func(b []byte) { b[4] ^= 1 })},
		{"modified", DropForged, other(func(b []byte) { b[30]++ })},
		{"tag cut", DropForged, func(r *remote) []byte { return r.sealed(wire.TypeFrame, nil)[:20] }},
		{"not sealed", DropNotSealed, func(r *remote) []byte { return r.plain(bodyOf(good)) }},
		{"metadata cut", DropTruncated, sealed(wire.TypeFrame, make([]byte, 7))},
		{"no frame", DropRunt, sealed(wire.TypeFrame, bodyOf(nil))},
		{"runt", DropRunt, sealed(wire.TypeFrame, bodyOf(good[:13]))},
		{"longer than allowed", DropFrameExceedsDeviceMTU, sealed(wire.TypeFrame, long(1438+18+1))},
		{"huge", DropFrameExceedsDeviceMTU, sealed(wire.TypeFrame, long(60000))},
		{"probe of another size than it declares", DropMetadata, sealed(wire.TypeProbe, probe(50, 6))},
		{"answer to a probe, too long", DropMetadata, sealed(wire.TypeProbeReply, probe(50, 7))},
		{"metadata", DropMetadata, sealed(wire.TypeFrame, meta(0xff))},
		{"checksum beyond the frame", DropMetadata, sealed(wire.TypeFrame, meta(0x10, 0, 60, 16))},
		{"checksum left", 0, sealed(wire.TypeFrame, meta(0x10, 0, 34, 16))},
		{"segment of no superframe", DropOffload, sealed(wire.TypeFrame, meta(0x31, 54, 34, 16, 0, 10))},
		{"link-local", DropLinkLocal, sealed(wire.TypeFrame, bodyOf(frame(ether.Addr{0x01, 0x80, 0xc2}, mac(1), 'x')))},
		{"group source", DropBadSource, sealed(wire.TypeFrame, bodyOf(frame(mac(2), ether.Addr{0x33, 0x33}, 'x')))},
		{"zero source", DropBadSource, sealed(wire.TypeFrame, bodyOf(frame(mac(2), ether.Addr{}, 'x')))},
		{"initiation cut", DropTruncated, func(*remote) []byte { return append([]byte{0x16}, make([]byte, 100)...) }},
		{"unauthenticated initiation", DropSecret, func(*remote) []byte {
			b := append([]byte{0x16}, make([]byte, wire.InitiationLen-1)...)
			b[15] = 1
			return b
		}},
		{"answer to nothing", DropUnexpected, func(*remote) []byte {
			b := append([]byte{0x17}, make([]byte, wire.ResponseLen-1)...)
			b[15] = 1
			return b
		}},
		{"message too long", DropMetadata, func(*remote) []byte { return append([]byte{0x16}, make([]byte, 500)...) }},
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
			if err := h.in.step(); err != nil {
				t.Fatal(err)
			}
		}
		if n, s := h.dev.Discard(), h.Stats(); n != inDatagrams || s.Drops[DropReplayed] != 2*inDatagrams {
			t.Errorf("%s: %d frames of %d arrived, drops %v", mode, n, inDatagrams, s.Drops)
		}
	}
}

// TestDropSend: a datagram that cannot be sent is counted for its peer, and the others are sent.
func TestDropSend(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(8), peerOf(9)})
	o := newOutbound(n.Engine, nil, nil, n.conn)
	peers := n.peers.Load().flooded.Load().peers
	for i, size := range []int{underlay.MaxDatagram + 1, 100} {
		s := send{to: peers[i], frames: 1, bytes: size}
		if err := o.push(underlay.Datagram{Buf: make([]byte, size)}, &egress{addr: addrOf(8 + i)}, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	p := n.Stats().Peers
	if p[0].Drops[DropDatagramExceedsLinkMTU] != 1 || p[0].TxFrames != 0 || p[1].TxFrames != 1 || len(p[1].Drops) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestDropDevice: if the TAP refuses a frame, the other frames are written.
func TestDropDevice(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	w := &tapWriter{queue: n.dev.Queues()[0]}
	refused, err := w.write([]tap.Frame{{Data: make([]byte, 3)}, {Data: frame(mac(1), mac(2), 'x')}})
	if refused != 1 || err != nil || n.dev.Discard() != 1 {
		t.Errorf("%d refused, %v", refused, err)
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{"": true, "invalid": true}
	for d := Drop(1); d < numDrops; d++ {
		if seen[d.String()] {
			t.Errorf("drop %d has the name %q", d, d)
		}
		seen[d.String()] = true
	}
	if Drop(0).String() != "invalid" || numDrops.String() != "invalid" {
		t.Error("an invalid drop has a name")
	}
}

// FuzzInbound: every datagram from the network is carried or counted, once, and only valid frames are carried. The
// fuzzed bytes are the body of a datagram that a peer has sealed or sent plain, or a whole datagram.
func FuzzInbound(f *testing.F) {
	f.Add(bodyOf(frame(mac(1), mac(2), 'x')), uint8(wire.TypeFrame), true)
	f.Add(bodyOf(nil), uint8(wire.TypePlain), false)
	f.Add([]byte{0, 0, 0, 1, 0, 34}, uint8(wire.TypeProbe), true)
	f.Add([]byte{0x16}, uint8(0), false)
	n := newNode(f, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(1)})
	r := connectRemote(f, n, 1)
	in := newInbound(n.Engine, n.conn, &tapWriter{queue: n.dev.Queues()[0]})
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
		in.sum.flush()
		for _, f := range in.coalescer.Frames() {
			if reason := check(f.Data, 0, int(n.longest.Load())); reason != 0 {
				t.Errorf("an invalid frame passes: %s", reason)
			}
		}
		if err := in.flush(); err != nil {
			t.Fatal(err)
		}
		n.dev.Discard()
		after := n.Stats()
		counted := int(after.Peers[0].RxFrames - before.Peers[0].RxFrames + after.Probes - before.Probes)
		for d, count := range after.Drops {
			counted += int(count - before.Drops[d])
		}
		counted += len(n.handshakes.messages)
		for len(n.handshakes.messages) > 0 {
			<-n.handshakes.messages
		}
		for len(n.probeReplies) > 0 {
			<-n.probeReplies
		}
		silent := sealed && wire.Type(kind&15) == wire.TypeKeepalive
		tooLong := sealed && wire.Type(kind&15) == wire.TypeProbe && counted == 0
		if counted != 1 && !silent && !tooLong {
			t.Errorf("%d datagrams counted", counted)
		}
	})
}
