package router

import (
	"maps"
	"testing"
	"testing/synctest"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/virtio"
)

// datagram returns a good plain datagram that holds f, to be spoilt.
func datagram(f []byte) []byte {
	b := make([]byte, wire.Headroom, wire.Headroom+len(f))
	wire.Header{Type: wire.TypeFrame, Counter: 1}.Put(b)
	return append(b, f...)
}

func TestDropOutbound(t *testing.T) {
	good := tap.Frame{Data: frame(mac(2), mac(1), 'x')}
	for want, f := range map[Drop]tap.Frame{
		0:             good,
		DropRunt:      {Data: good.Data[:13]},
		DropOversize:  {Data: append(good.Data, make([]byte, 1438+18-64+1)...)},
		DropLinkLocal: {Data: frame(ether.Addr{0x01, 0x80, 0xc2, 0, 0, 0x0e}, mac(1), 'x')},
		DropBadSource: {Data: frame(mac(2), ether.Broadcast, 'x')},
		DropOffload:   {Data: good.Data, Offload: virtio.Header{Flags: virtio.FlagNeedsChecksum}}, // within the addresses
	} {
		t.Run(want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, nodes := run(t, 2)
				nodes[0].dev.InjectQueue(0, f)
				got := settle(nodes)
				checkDrop(t, nodes[0].Stats(), want)
				if (len(got[1]) == 1) != (want == 0) {
					t.Errorf("the other node got %q", got[1])
				}
			})
		})
	}
}

// checkDrop checks that want, and only that, was counted, and that a frame that was dropped has taught nothing.
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
	spoil := func(at int, with ...byte) []byte {
		b := datagram(good)
		copy(b[at:], with)
		return b
	}
	for _, tt := range []struct {
		name     string
		want     Drop
		datagram []byte
	}{
		{"good", 0, datagram(good)},
		{"as long as may be", 0, datagram(append(good[:64:64], make([]byte, 1438+18-64)...))},
		{"empty", DropTruncated, nil},
		{"header cut", DropTruncated, datagram(good)[:11]},
		{"metadata cut", DropTruncated, datagram(good)[:19]},
		{"no frame", DropRunt, datagram(nil)},
		{"runt", DropRunt, datagram(good[:13])},
		{"oversize", DropOversize, datagram(append(good[:64:64], make([]byte, 1438+18-64+1)...))},
		{"huge", DropOversize, datagram(make([]byte, 60000))},
		{"version", DropVersion, spoil(0, 0x21)},
		{"type", DropType, spoil(0, 0x1f)},
		{"probe of another size than it says", DropMetadata, spoil(0, 0x12)},
		{"answer to a probe, too long", DropMetadata, spoil(0, 0x13)},
		{"session", DropSession, spoil(3, 1)},
		{"metadata", DropMetadata, spoil(12, 0xff)},
		{"checksum beyond the frame", DropMetadata, spoil(12, 0x10, 0, 60, 16)},
		{"checksum left", 0, spoil(12, 0x10, 0, 34, 16)},
		{"slice of no superframe", DropOffload, spoil(12, 0x31, 54, 34, 16, 0, 10)},
		{"link-local", DropLinkLocal, datagram(frame(ether.Addr{0x01, 0x80, 0xc2}, mac(1), 'x'))},
		{"group source", DropBadSource, datagram(frame(mac(2), ether.Addr{0x33, 0x33}, 'x'))},
		{"zero source", DropBadSource, datagram(frame(mac(2), ether.Addr{}, 'x'))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := run(t, 1)
				other, err := network.Listen(addrOf(1))
				if err != nil {
					t.Fatal(err)
				}
				nodes[0].SetPeers([]Peer{{ID: peer.ID{9}, Addr: addrOf(1)}})
				if _, err := other.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: tt.datagram}}); err != nil {
					t.Fatal(err)
				}
				got := settle(nodes)
				s := nodes[0].Stats()
				checkDrop(t, s, tt.want)
				if !maps.Equal(s.Drops, s.Peers[0].Drops) {
					t.Errorf("the peer's drops are %v", s.Peers[0].Drops)
				}
				if (len(got[0]) == 1) != (tt.want == 0) {
					t.Errorf("the host got %q", got[0])
				}
			})
		})
	}
}

// TestDropOwn: a datagram that comes back to its sender, or claims to.
func TestDropOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 1)
		n := nodes[0]
		n.SetPeers([]Peer{n.peer})
		if _, err := n.conn.WriteBatch([]underlay.Datagram{{Addr: n.peer.Addr, Buf: datagram(frame(mac(2), mac(1), 'x'))}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		checkDrop(t, n.Stats(), DropOwn)
	})
}

// TestDropSend: a datagram that does not leave is counted for its peer, and the others leave.
func TestDropSend(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{{ID: peer.ID{8}, Addr: addrOf(8)}, {ID: peer.ID{9}, Addr: addrOf(9)}})
	o := newOutbound(n.Engine, nil, nil, n.conn)
	hops := n.peers.Load().flood
	if err := o.push(underlay.Datagram{Buf: make([]byte, underlay.MaxDatagram+1)}, send{hops[0], 1, 9}); err != nil {
		t.Fatal(err)
	}
	if err := o.push(underlay.Datagram{Buf: make([]byte, 100)}, send{hops[1], 1, 100}); err != nil {
		t.Fatal(err)
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	p := n.Stats().Peers
	if p[0].Drops[DropSendTooLong] != 1 || p[0].TxFrames != 0 || p[1].TxFrames != 1 || len(p[1].Drops) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestDropDevice: a TAP that refuses a frame costs that frame.
func TestDropDevice(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	h := &host{queue: n.dev.Queues()[0]}
	lost, err := h.write([]tap.Frame{{Data: make([]byte, 3)}, {Data: frame(mac(1), mac(2), 'x')}})
	if lost != 1 || err != nil || n.dev.Discard() != 1 {
		t.Errorf("lost %d, %v", lost, err)
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{"": true, "invalid": true}
	for d := Drop(1); d < numDrops; d++ {
		if seen[d.String()] {
			t.Errorf("drop %d is called %q", d, d)
		}
		seen[d.String()] = true
	}
	if Drop(0).String() != "invalid" || numDrops.String() != "invalid" {
		t.Error("an invalid drop has a name")
	}
}

// FuzzInbound: whatever a peer sends is carried or counted, once, and what is carried is a frame that may be.
func FuzzInbound(f *testing.F) {
	f.Add(datagram(frame(mac(1), mac(2), 'x')), 0)
	f.Add(datagram(nil), 0)
	f.Add(append(datagram(frame(mac(1), mac(2), 'x')), datagram(frame(mac(1), mac(2), 'y'))...), 84)
	n := newNode(f, simnet.New(1), 0)
	n.SetPeers([]Peer{{ID: peer.ID{9}, Addr: addrOf(1)}})
	in := newInbound(n.Engine, n.conn, &host{queue: n.dev.Queues()[0]})
	from := n.peers.Load().flood[0]
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		before := n.Stats()
		if err := in.split(&underlay.Datagram{Buf: b, SegmentSize: size}, from, n.now(), int(n.longest.Load())); err != nil {
			t.Fatal(err)
		}
		in.sum.flush()
		for _, f := range in.joiner.Frames() {
			if reason := check(f.Data, 0, int(n.longest.Load())); reason != 0 {
				t.Errorf("a frame passes that is %s", reason)
			}
		}
		if err := in.flush(); err != nil {
			t.Fatal(err)
		}
		n.dev.Discard()
		datagrams := 1
		if size > 0 && len(b) > 0 {
			datagrams = (len(b) + size - 1) / size
		}
		after := n.Stats()
		counted := int(after.Peers[0].RxFrames - before.Peers[0].RxFrames + after.Probes - before.Probes)
		for d, count := range after.Drops {
			counted += int(count - before.Drops[d])
		}
		if counted != datagrams {
			t.Errorf("%d datagrams, %d counted", datagrams, counted)
		}
	})
}
