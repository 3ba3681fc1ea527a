package router

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/endpoint"
	"weft/router/wire"
	"weft/tap/taptest"
)

// roamer is a peer of a running node, with sockets at several addresses and without an engine.
type roamer struct {
	*remote
	t       *testing.T
	node    *node
	network *simnet.Network
	sockets map[int]*simnet.Conn // by the number of their address
}

// newRoamer runs a node and makes a session with a peer at addrOf(1), which has sockets at the others, too.
func newRoamer(t *testing.T, others ...int) *roamer {
	t.Helper()
	r := &roamer{t: t, network: simnet.New(1), sockets: map[int]*simnet.Conn{}}
	r.node = newNodeOf(t, r.network, 0, taptest.Config{MTU: 1422}, secretOf(1))
	runNodes(t, []*node{r.node})
	for _, at := range append(others, 1) {
		conn, err := r.network.Listen(addrOf(at))
		if err != nil {
			t.Fatal(err)
		}
		r.sockets[at] = conn
	}
	r.node.SetPeers([]Peer{peerOf(1)})
	synctest.Wait()
	r.remote = connectRemote(t, r.node, 1, secretOf(1))
	return r
}

// from sends a datagram from a socket, and waits until the node has handled it.
func (r *roamer) from(at int, datagram []byte) {
	r.t.Helper()
	r.send(r.t, r.sockets[at], datagram)
	synctest.Wait()
}

// keepalive returns a sealed datagram.
func (r *roamer) keepalive() []byte { return r.sealed(wire.TypeKeepalive, nil) }

// at returns where the node sends frames for the peer.
func (r *roamer) at() netip.AddrPort { return r.node.Stats().Peers[0].Addr }

// frameAt has the node send a frame, and reports whether it arrives at a socket.
func (r *roamer) frameAt(at int) bool {
	r.t.Helper()
	r.node.dev.Inject(frame(ether.Broadcast, mac(1), 'y'))
	synctest.Wait()
	for _, d := range r.read(r.t, r.sockets[at]) {
		if d.Type == wire.TypeFrame && bytes.IndexByte(d.body, 'y') >= 0 {
			return true
		}
	}
	return false
}

// TestRoaming: if sealed datagrams of a peer come from another address, the peer is probed there, and is sent frames there
// once it has answered. Until then they go to the old address. Unsealed, forged and old datagrams do nothing.
func TestRoaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7, 8)
		body := bodyOf(frame(mac(1), mac(2), 'x'))
		old := r.sealed(wire.TypeFrame, body)
		forged := r.sealed(wire.TypeFrame, body)
		forged[40]++
		r.from(8, forged)
		r.from(8, r.plain(body))
		fresh := r.keepalive()
		again := bytes.Clone(fresh)
		r.from(7, fresh)
		r.from(8, again) // a replay
		r.from(8, old)   // sent before the move, and late
		if len(r.read(t, r.sockets[8])) != 0 {
			t.Error("something was sent to an address by datagrams that any sender could make")
		}
		if r.at() != addrOf(1) || !r.frameAt(1) {
			t.Errorf("frames go to %s before the peer has answered elsewhere", r.at())
		}
		if n := r.answer(t, r.sockets[7], r.read(t, r.sockets[7])); n != 1 {
			t.Fatalf("%d probes, want 1 at once", n)
		}
		synctest.Wait()
		if r.at() != addrOf(7) || !r.frameAt(7) {
			t.Errorf("at %s, want where it has answered", r.at())
		}
	})
}

// TestPeerMoves: a peer that announces another address is sent frames there once it has answered there. It keeps its
// counters.
func TestPeerMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7)
		r.from(1, r.sealed(wire.TypeFrame, bodyOf(frame(ether.Broadcast, mac(2), 'a'))))
		moved := r.peer
		moved.Addr = netip.AddrPortFrom(netip.AddrFrom16(addrOf(7).Addr().As16()), 6784) // mapped, as netip may hold it
		r.node.SetPeers([]Peer{moved})
		if !r.frameAt(1) {
			t.Error("frames do not go to the old address any more, although the peer has not answered at the new one")
		}
		if n := r.answer(t, r.sockets[7], r.read(t, r.sockets[7])); n != 1 {
			t.Fatalf("%d probes, want 1 at once", n)
		}
		synctest.Wait()
		if !r.frameAt(7) {
			t.Errorf("at %s, want the address that it announces and where it has answered", r.at())
		}
		if p := r.node.Stats().Peers[0]; p.RxFrames != 1 || p.TxFrames != 2 || p.TxBytes != 128 {
			t.Errorf("%+v", p)
		}
	})
}

// TestPeerAnnouncesFalseAddress: a peer that announces the address of another host has probes sent there, at a bounded rate:
// no frame, no datagram that is longer than a handshake, whatever it announces, and how often.
func TestPeerAnnouncesFalseAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7, 8)
		moved := r.peer
		const seconds = 60
		for i := range seconds * 20 {
			moved.Addr = addrOf(7 + i%2)
			r.node.SetPeers([]Peer{moved})
			r.node.dev.Inject(frame(ether.Broadcast, mac(1), 'y'))
			if i%10 == 0 {
				r.from(1, r.keepalive())
			}
			time.Sleep(50 * time.Millisecond)
		}
		got := append(r.read(t, r.sockets[7]), r.read(t, r.sockets[8])...)
		if n := count(got, wire.TypeProbe); n != len(got) || n > seconds*10+1 || n == 0 {
			t.Errorf("%d datagrams in %d s, of which %d probes; want 10 probes a second at most", len(got), seconds, n)
		}
		for _, d := range got {
			if d.size > 34 {
				t.Fatalf("%d bytes", d.size)
			}
		}
		if n := count(r.read(t, r.sockets[1]), wire.TypeFrame); n != seconds*20 {
			t.Errorf("%d of %d frames arrived at the address that works", n, seconds*20)
		}
	})
}

// TestCopiedDatagrams: an attacker on the path that sends a copy of each datagram of a peer from another address, and
// faster than the path, moves nothing: the frames go on to the peer, and five probes each 13 s to the other address.
func TestCopiedDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7)
		r.network.SetDefault(simnet.Link{Latency: 5 * time.Millisecond})
		const frames = 3000
		for range frames {
			d := r.keepalive()
			r.send(t, r.sockets[7], bytes.Clone(d)) // arrives first
			r.send(t, r.sockets[1], d)
			r.node.dev.Inject(frame(ether.Broadcast, mac(1), 'y'))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := count(r.read(t, r.sockets[1]), wire.TypeFrame); n != frames {
			t.Errorf("%d of %d frames arrived", n, frames)
		}
		stolen := r.read(t, r.sockets[7])
		if n := count(stolen, wire.TypeProbe); n != len(stolen) || n > 15 || n == 0 {
			t.Errorf("%d datagrams for the attacker in 30 s, of which %d probes", len(stolen), n)
		}
	})
}

// TestMovesAreSpaced: a peer that answers at two addresses in turn moves twice a second at most.
func TestMovesAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7)
		moves, last := 0, r.at()
		for i := range 200 {
			at := []int{1, 7}[i%2]
			r.from(at, r.keepalive())
			for _, s := range r.sockets {
				r.answer(t, s, r.read(t, s))
			}
			time.Sleep(50 * time.Millisecond)
			if now := r.at(); now != last {
				moves, last = moves+1, now
			}
		}
		if moves < 2 || moves > 20 {
			t.Errorf("%d moves in 10 s", moves)
		}
	})
}

// TestNATRebinds: the translator in front of a peer assigns another address in the midst of traffic in both directions. Frames
// to the peer are lost until its next datagram has arrived and one round trip more; none is lost later, and none of its own.
func TestNATRebinds(t *testing.T) {
	const latency = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, modes["sealed"], 1)
		w.net.SetDefault(simnet.Link{Latency: latency})
		w.nodes[1].KeepSessions([]peer.ID{w.nodes[0].peer.ID})
		time.Sleep(5 * time.Second)
		w.learn()
		w.passes(0, 1, time.Second)
		const frames, rebind = 2000, 1000
		var got [2][]int
		for i := range frames {
			if i == rebind {
				w.net.SetNAT(netip.AddrFrom4([4]byte{198, 51, 100, 77}), addrOf(1).Addr())
				w.net.SetNAT(netip.AddrFrom4([4]byte{198, 51, 100, 1})) // the old one has no mapping any more
			}
			w.nodes[0].dev.Inject(numbered(mac(11), mac(10), i))
			w.nodes[1].dev.Inject(numbered(mac(10), mac(11), i))
			time.Sleep(time.Millisecond)
			for k, n := range w.nodes {
				got[k] = append(got[k], collect(t, n)...)
			}
		}
		time.Sleep(time.Second)
		for k, n := range w.nodes {
			got[k] = append(got[k], collect(t, n)...)
		}
		lost := frames - len(got[1])
		t.Logf("%d frames to the peer are lost in a round trip of %s, one each millisecond", lost, 2*latency)
		// On their way to the old address when it changes, until a datagram from the new one has arrived, and a round trip.
		if most := int(4*latency/time.Millisecond) + 5; lost > most || len(got[0]) != frames {
			t.Errorf("%d frames to the peer are lost, want at most %d; %d of %d arrived from it", lost, most, len(got[0]), frames)
		}
		if at := w.nodes[0].Stats().Peers[0].Addr; at.Addr() != netip.AddrFrom4([4]byte{198, 51, 100, 77}) {
			t.Errorf("at %s", at)
		}
	})
}

// TestTwoPeersAnnounceOneAddress: a member announces the address of another one. Each is sent its own frames, where it
// answers; nothing is lost.
func TestTwoPeersAnnounceOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runSealed(t, 3, secretOf(1))
		network.SetDefault(simnet.Link{Latency: 2 * time.Millisecond})
		for i := range nodes {
			deliver(t, nodes, i, frame(ether.Broadcast, mac(10+i), 'l'))
		}
		time.Sleep(time.Second)
		awaitQuiet(nodes)
		thief := nodes[2].peer
		thief.Addr = nodes[1].peer.Addr
		nodes[0].SetPeers([]Peer{nodes[1].peer, thief})
		var got [3]int
		const frames = 1000
		for i := range frames {
			nodes[0].dev.Inject(numbered(mac(11), mac(10), i))
			nodes[0].dev.Inject(numbered(mac(12), mac(10), i))
			time.Sleep(20 * time.Millisecond)
			for k, n := range nodes {
				got[k] += len(collect(t, n))
			}
		}
		if got[1] != frames || got[2] != frames {
			t.Errorf("%d and %d of %d frames arrived", got[1], got[2], frames)
		}
		for _, p := range nodes[0].Stats().Peers {
			if want := map[bool]netip.AddrPort{true: addrOf(2), false: addrOf(1)}[p.ID == thief.ID]; p.Addr != want {
				t.Errorf("%s at %s, want %s", p.ID, p.Addr, want)
			}
		}
	})
}

// TestAddressesOfNoHost: a peer is not sent anything at an address that is not that of another host.
func TestAddressesOfNoHost(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	for _, addr := range []string{
		"127.0.0.1:6784", "[::1]:6784", "0.0.0.0:6784", "[::]:6784", "224.0.0.1:6784", "[ff02::1]:6784", "255.255.255.255:6784",
		"192.0.2.9:0", "[fe80::1]:6784", "[::ffff:127.0.0.1]:6784", endpoint.Relayed(peerOf(3).ID).String(),
	} {
		p := peerOf(1)
		p.Addr = netip.MustParseAddrPort(addr)
		n.SetPeers([]Peer{p})
		if v := n.peers.Load().byID[p.ID]; v.reachable() || v.egress.Load().addr.IsValid() {
			t.Errorf("%s is used", addr)
		}
	}
	for _, addr := range []string{"192.0.2.9:6784", "10.0.0.1:1", "169.254.1.1:6784", "[2001:db8::1]:6784", "[fd00::1]:6784"} {
		p := peerOf(1)
		p.Addr = netip.MustParseAddrPort(addr)
		n.SetPeers([]Peer{p})
		if v := n.peers.Load().byID[p.ID]; !v.reachable() {
			t.Errorf("%s is not used", addr)
		}
	}
}

// TestRoamBesideEntropyPorts: a peer is looked for at its new data port although its frames from entropy ports, which were sent later,
// arrive earlier in other sockets.
func TestRoamBesideEntropyPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7, 8)
		marked := bodyOf(frame(ether.Broadcast, mac(2), 'm'))
		wire.Meta{EntropyPort: true}.Put(marked)
		probes := 0
		for range 10 {
			earlier := r.keepalive()
			r.from(8, r.sealed(wire.TypeFrame, marked))
			r.from(7, earlier)
			time.Sleep(200 * time.Millisecond)
			probes += count(r.read(t, r.sockets[7]), wire.TypeProbe)
			if n := count(r.read(t, r.sockets[8]), wire.TypeProbe); n > 0 {
				t.Errorf("%d probes to the entropy port", n)
			}
		}
		if probes == 0 {
			t.Error("no probe of the new data port")
		}
	})
}
