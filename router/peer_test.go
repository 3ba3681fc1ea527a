package router

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/taptest"
)

// TestSetKernel: frames for all peers are not sent to a peer that the kernel carries, frames for its own addresses are.
// The snapshot stays the same, and SetPeers keeps the value, also for a peer that leaves and returns.
func TestSetKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		carried := nodes[1].peer.ID
		before := nodes[0].peers.Load()
		nodes[0].SetKernel(carried, true)
		if nodes[0].peers.Load() != before {
			t.Error("SetKernel has replaced the snapshot")
		}
		want(t, "broadcast", deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'b')), [][]byte{nil, nil, {'b'}})
		want(t, "known address", deliver(t, nodes, 0, frame(mac(2), mac(1), 'c')), [][]byte{nil, {'c'}, nil})
		all := []Peer{nodes[1].peer, nodes[2].peer}
		nodes[0].SetPeers(all)
		want(t, "after SetPeers", deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'd')), [][]byte{nil, nil, {'d'}})
		nodes[0].SetPeers(all[:1])
		want(t, "the only peer", deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'e')), [][]byte{nil, nil, nil})
		if s := nodes[0].Stats(); s.Drops[drop.NoPeer] != 0 {
			t.Errorf("drops %v: the kernel has a peer", s.Drops)
		}
		nodes[0].SetPeers(nil)
		nodes[0].SetPeers(all)
		if !nodes[0].peers.Load().byID[carried].kernel.Load() {
			t.Error("a peer that returns is not on the kernel path any more")
		}
		nodes[0].SetKernel(carried, false)
		nodes[0].SetKernel(peer.ID{9}, true) // before SetPeers adds it
		flooded := nodes[0].peers.Load().flooded.Load()
		sorted := slices.IsSortedFunc(flooded.peers, func(a, b *peerView) int { return a.ID.Compare(b.ID) })
		if len(flooded.peers) != 2 || flooded.kernel != 0 || !sorted {
			t.Errorf("%d peers, %d on the kernel path", len(flooded.peers), flooded.kernel)
		}
		nodes[0].SetPeers(append(all, Peer{ID: peer.ID{9}, Addr: addrOf(9)}))
		if flooded := nodes[0].peers.Load().flooded.Load(); len(flooded.peers) != 2 || flooded.kernel != 1 {
			t.Errorf("%d peers, %d on the kernel path, want 2 and 1", len(flooded.peers), flooded.kernel)
		}
	})
}

// TestReceiveTakesNoEngineLock: datagrams are received while a handshake holds the lock of the Node, also those that
// confirm a session or move a peer. Neither is lost if the queue for them is full.
func TestReceiveTakesNoEngineLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHotPath(t, 1, secretOf(1))
		now := h.now()
		h.now = func() time.Time { return now }
		view := h.peers.Load().byID[h.remote.peer.ID]
		h.receiveFrom(h.fromPeer)
		fill := h.conn.fill
		elsewhere := addrOf(7)
		h.conn.fill = func(d *underlay.Datagram) {
			fill(d)
			d.Addr = elsewhere
		}
		h.mu.Lock()
		h.handshakes.mu.Lock()
		for range 2 * maxSessionUpdates / inDatagrams {
			h.receive(t)
		}
		h.handshakes.mu.Unlock()
		h.mu.Unlock()
		if n := len(h.handshakes.updates); n != 1 || view.egress.Load().addr == elsewhere {
			t.Fatalf("%d updates queued, endpoint %s", n, view.egress.Load().addr)
		}
		for len(h.handshakes.updates) < maxSessionUpdates {
			h.handshakes.updates <- <-h.handshakes.updates
			h.handshakes.updates <- sessionUpdate{session: view.egress.Load().session, addr: addrOf(1)}
		}
		now = now.Add(proposeEach)
		h.receive(t)
		for len(h.handshakes.updates) > 0 {
			<-h.handshakes.updates
		}
		h.receive(t) // the queue was full, so that the peer is looked for again at once
		h.receive(t)
		if n := len(h.handshakes.updates); n != 1 {
			t.Fatalf("%d updates queued, want 1", n)
		}
		h.applySessionUpdate(<-h.handshakes.updates)
		if n := len(h.endpointProbes); n != 1 || view.egress.Load().addr == elsewhere {
			t.Errorf("%d peers to probe, endpoint %s", n, view.egress.Load().addr)
		}
		h.applySessionUpdate(sessionUpdate{session: view.egress.Load().session, addr: elsewhere, proven: true})
		if addr := view.egress.Load().addr; addr != elsewhere {
			t.Errorf("endpoint %s, want %s", addr, elsewhere)
		}
		now = now.Add(proposeEach)
		h.receive(t)
		if n := len(h.handshakes.updates); n != 0 {
			t.Errorf("%d updates although nothing has changed", n)
		}
	})
}

// TestConfirmIsRepeated: the datagram that confirms a session finds the queue full. The next one confirms it.
func TestConfirmIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		n := newNodeOf(t, network, 0, taptest.Config{MTU: 1422}, secretOf(1))
		n.SetPeers([]Peer{peerOf(1)})
		r, s := unconfirmed(t, n)
		in := newInbound(n.Engine, n.conn, tapWriter{queue: n.dev.Queues()[0]})
		for range maxSessionUpdates {
			n.handshakes.updates <- sessionUpdate{session: s, addr: addrOf(1)}
		}
		handle := func() {
			in.begin()
			if _, reason := in.handleDatagram(r.sealed(wire.TypeKeepalive, nil), addrOf(1)); reason != 0 {
				t.Fatal(reason)
			}
		}
		handle()
		for len(n.handshakes.updates) > 0 {
			<-n.handshakes.updates
		}
		if s.Confirmed() {
			t.Fatal("confirmed although the update was not queued")
		}
		handle()
		n.applySessionUpdate(<-n.handshakes.updates)
		enc := newEncoder(n.Engine, n.conns[0])
		n.applySessionChanges(&enc)
		if !s.Confirmed() || n.peers.Load().byID[r.peer.ID].egress.Load().session != s {
			t.Error("the session was not confirmed and installed")
		}
	})
}

// unconfirmed makes a session that the remote has begun and of which n has not received a datagram yet.
func unconfirmed(t *testing.T, n *node) (*remote, *session.Session) {
	t.Helper()
	i := identityOf(1)
	other, err := session.NewNode(session.Config{
		Private: i.private, Cluster: cluster, Secrets: []session.Secret{secretOf(1)}, Offer: anyCipher,
	})
	if err != nil {
		t.Fatal(err)
	}
	now := n.now()
	other.SetPeers([]session.Peer{{ID: n.peer.ID, Public: n.peer.Public, Addr: n.peer.Addr}}, now)
	other.RequestSession(n.peer.ID, now)
	messages, _ := other.Drain()
	n.handshakes.locked(func(own *session.Node) {
		if err := own.Receive(messages[0].Datagram, addrOf(1), now); err != nil {
			t.Fatal(err)
		}
		messages, _ = own.Drain()
	})
	if err := other.Receive(messages[0].Datagram, n.peer.Addr, now); err != nil {
		t.Fatal(err)
	}
	_, changes := other.Drain()
	r := &remote{peer: peerOf(1), node: other, session: changes[0].Session}
	return r, n.handshakes.node.Lookup(indexAtPeer(r.session))
}

// TestSlowDialBack: while a dial-back takes long, frames are received, and further requests are dropped at a bound.
func TestSlowDialBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		proceed := make(chan struct{})
		dialed := 0
		slow := newNodeWith(t, network, 0, taptest.Config{MTU: 1438}, Config{Events: &events{
			dialBack: func(netip.AddrPort, []byte) { <-proceed; dialed++ },
		}})
		nodes := []*node{slow, newNode(t, network, 1)}
		runNodes(t, nodes)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		const requests = 3 * maxDialBackRequests
		for range requests {
			go func() { _, _ = nodes[1].RequestDialBack(t.Context(), slow.peer.ID) }()
			time.Sleep(500 * time.Millisecond) // one node may ask twice a second
		}
		want(t, "meanwhile", deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'b')), [][]byte{{'b'}, nil})
		if n := slow.Stats().Drops[drop.Busy]; n == 0 {
			t.Error("no request was dropped")
		}
		close(proceed)
		time.Sleep(dialBackTries * dialBackPause)
		synctest.Wait()
		if dialed < maxDialBackRequests || dialed >= requests*dialBackTries {
			t.Errorf("%d dial-backs for %d requests", dialed, requests)
		}
	})
}
