package router

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/mesh/topology"
	"weft/router/drop"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap/taptest"
)

// gossipDelay is how long the nodes of a world take to learn the links of another one.
const gossipDelay = 300 * time.Millisecond

// world is a network of nodes that publish their links to each other, as the mesh does, and compute their routes from
// them.
type world struct {
	t     *testing.T
	net   *simnet.Network
	nodes []*node

	mu       sync.Mutex
	links    map[peer.ID]topology.Links // guarded by mu: as published
	received [][]byte                   // guarded by mu: control messages, with the number of their receiver first
	ended    bool                       // guarded by mu
}

// newWorld runs size nodes that share secrets, if any; those in dialOut can only dial out.
func newWorld(t *testing.T, size int, secrets []session.Secret, dialOut ...int) *world {
	t.Helper()
	w := &world{t: t, net: simnet.New(1), links: map[peer.ID]topology.Links{}}
	w.net.SetDefault(simnet.Link{Latency: 2 * time.Millisecond})
	for _, n := range dialOut {
		w.net.SetNAT(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), addrOf(n).Addr())
		w.links[identityOf(n).id] = topology.Links{DialOut: true}
	}
	for n := range size {
		w.nodes = append(w.nodes, newNodeWith(t, w.net, n, taptest.Config{MTU: 1422, Features: allFeatures}, Config{
			Secrets: secrets,
			Events: &events{
				links: func(l Links) { w.publish(n, l) },
				control: func(_ peer.ID, to uint8, m []byte) {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.received = append(w.received, append([]byte{byte(n), to}, m...))
				},
				dialBack: func(to netip.AddrPort, b []byte) { w.dialBack(n, to, b) },
			},
		}))
	}
	for _, n := range dialOut {
		w.nodes[n].SetReachability(true, addrOf(n).Addr())
	}
	runNodes(t, w.nodes)
	w.updateRoutes()
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
	})
	return w
}

// dialBack sends b from a new port of the nth node.
func (w *world) dialBack(n int, to netip.AddrPort, b []byte) {
	c, err := w.net.Listen(netip.AddrPortFrom(addrOf(n).Addr(), 0))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer c.Close()
	_, _ = c.WriteBatch([]underlay.Datagram{{Addr: to, Buf: b}})
}

// publish publishes the links of the nth node to all nodes.
func (w *world) publish(n int, l Links) {
	w.mu.Lock()
	id := w.nodes[n].peer.ID
	links := topology.Links{DialOut: w.links[id].DialOut, Broken: l.Broken}
	if links.DialOut {
		links.Open = l.Open
	}
	w.links[id] = links
	w.mu.Unlock()
	time.AfterFunc(gossipDelay, w.updateRoutes)
}

// updateRoutes gives every node the routes that follow from the published links.
func (w *world) updateRoutes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	var all []topology.Node
	for _, n := range w.nodes {
		all = append(all, topology.Node{ID: n.peer.ID})
	}
	for _, n := range w.nodes {
		routes := topology.Routes(n.peer.ID, all, w.links)
		var peers []Peer
		for _, other := range w.nodes {
			p := other.peer
			p.DialOut = w.links[p.ID].DialOut
			if route, ok := routes[p.ID]; ok && route.Via != p.ID {
				p.Via = route.Via
			}
			peers = append(peers, p)
		}
		n.SetPeers(peers)
	}
}

// cut cuts one direction between two nodes, or restores it.
func (w *world) cut(from, to int, off bool) {
	l := simnet.Link{Latency: 2 * time.Millisecond}
	if off {
		l.Loss = 1
	}
	w.net.SetLink(addrOf(from).Addr(), addrOf(to).Addr(), l)
}

// passes returns the time until frames pass between two nodes in both directions; it fails after limit.
func (w *world) passes(from, to int, limit time.Duration) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for i := 0; time.Since(begin) < limit; i++ {
		w.nodes[from].dev.Inject(numbered(mac(10+to), mac(10+from), i))
		w.nodes[to].dev.Inject(numbered(mac(10+from), mac(10+to), i))
		time.Sleep(100 * time.Millisecond)
		if got := collect(w.t, w.nodes[to]); len(got) > 0 && got[len(got)-1] == i {
			if back := collect(w.t, w.nodes[from]); len(back) > 0 && back[len(back)-1] == i {
				return time.Since(begin)
			}
		}
	}
	w.t.Fatalf("nothing passes from %d to %d and back within %s: %v, %v", from, to, limit,
		w.nodes[from].Stats().Drops, w.nodes[to].Stats().Drops)
	return 0
}

// via returns the relay by which one node sends to another at present, the zero ID for a direct link.
func (w *world) via(from, to int) peer.ID {
	return w.nodes[from].peers.Load().byID[w.nodes[to].peer.ID].Via
}

// learn makes all nodes learn the addresses of the others.
func (w *world) learn() {
	for i, n := range w.nodes {
		n.dev.Inject(frame(ether.Broadcast, mac(10+i), 'l'))
	}
	time.Sleep(5 * time.Second)
	for _, n := range w.nodes {
		for {
			if _, ok := n.dev.TryNext(); !ok {
				break
			}
		}
	}
}

// TestRelay: frames pass a broken link, one way or both, over a relay, sealed end to end, and use it again once it
// works.
func TestRelay(t *testing.T) {
	for mode, secrets := range modes {
		for _, tt := range []struct {
			name string
			cut  [][2]int
		}{{"both directions", [][2]int{{0, 2}, {2, 0}}}, {"forward", [][2]int{{0, 2}}}, {"backward", [][2]int{{2, 0}}}} {
			t.Run(mode+"/"+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 3, secrets)
					w.learn()
					w.passes(0, 2, time.Second)
					for _, c := range tt.cut {
						w.cut(c[0], c[1], true)
					}
					t.Logf("relayed after %s", w.passes(0, 2, 12*time.Second))
					time.Sleep(20 * time.Second)
					w.passes(0, 2, 2*time.Second)
					if relay := w.nodes[1].peer.ID; w.via(0, 2) != relay || w.via(2, 0) != relay {
						t.Errorf("over %s and %s, want %s", w.via(0, 2), w.via(2, 0), relay)
					}
					if n := w.nodes[1].relayed.datagrams.Load(); n == 0 {
						t.Error("nothing was relayed")
					}
					for _, c := range tt.cut {
						w.cut(c[0], c[1], false)
					}
					begin := time.Now()
					for w.via(0, 2) != (peer.ID{}) || w.via(2, 0) != (peer.ID{}) {
						w.passes(0, 2, time.Second)
						if time.Since(begin) > 15*time.Second {
							t.Fatal("not direct again within 15 s")
						}
					}
					t.Logf("direct after %s", time.Since(begin))
					relayed := w.nodes[1].relayed.datagrams.Load()
					w.passes(0, 2, time.Second)
					if n := w.nodes[1].relayed.datagrams.Load(); n != relayed {
						t.Errorf("%d datagrams were relayed although the link works", n-relayed)
					}
				})
			})
		}
	}
}

// TestRelayFromTheStart: two nodes that never had a link reach each other, and a broadcast reaches every node once.
func TestRelayFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		for _, pair := range [][2]int{{0, 2}, {0, 3}, {1, 3}} { // 0 - 1 - 2 - 3
			w.cut(pair[0], pair[1], true)
			w.cut(pair[1], pair[0], true)
		}
		for range 300 {
			for i, n := range w.nodes {
				n.dev.Inject(frame(ether.Broadcast, mac(10+i), 'l'))
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.learn()
		if route := w.via(0, 3); route != w.nodes[1].peer.ID {
			t.Errorf("from 0 to 3 over %s, want node 1", route)
		}
		t.Logf("both directions over three links after %s", w.passes(0, 3, 2*time.Second))
		for i := range w.nodes {
			got := deliver(t, w.nodes, i, frame(ether.Broadcast, mac(10+i), 'b'))
			time.Sleep(50 * time.Millisecond)
			for k, more := range awaitQuiet(w.nodes) {
				if got[k] = append(got[k], more...); k != i && string(got[k]) != "b" {
					t.Errorf("of a broadcast from node %d, node %d has received %q", i, k, got[k])
				}
			}
		}
	})
}

// TestRelaySuperframes: superframes pass a relay as well, and arrive complete.
func TestRelaySuperframes(t *testing.T) {
	for mode, secrets := range modes {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, secrets)
				w.cut(0, 2, true)
				w.cut(2, 0, true)
				w.learn()
				w.passes(0, 2, 20*time.Second)
				super := superframe(12, 10, 20_000, 1200)
				w.nodes[0].dev.InjectQueue(0, super)
				time.Sleep(time.Second)
				var payload int
				for {
					f, ok := w.nodes[2].dev.TryNext()
					if !ok {
						break
					}
					payload += len(f.Data) - 54
				}
				if payload != 20_000 {
					t.Errorf("%d bytes of the stream have arrived, want 20000", payload)
				}
			})
		})
	}
}

// TestNoCircle: where the routes of nodes form a circle, the datagrams are dropped.
func TestNoCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		w.learn()
		w.passes(0, 1, time.Second)
		w.passes(1, 2, time.Second)
		w.passes(0, 2, time.Second)
		lost := w.nodes[3].peer
		for i, via := range map[int]int{0: 1, 1: 2, 2: 0} { // each has a route to node 3 over the next one
			p := lost
			p.Via = w.nodes[via].peer.ID
			w.nodes[i].SetPeers([]Peer{w.nodes[0].peer, w.nodes[1].peer, w.nodes[2].peer, p})
		}
		before := w.relayed()
		for range 10 {
			w.nodes[0].dev.Inject(numbered(mac(13), mac(10), 1))
			time.Sleep(100 * time.Millisecond)
		}
		frames := uint64(10 + 20) // and probes and handshakes
		if n := w.relayed() - before; n > 2*frames {
			t.Errorf("%d datagrams were relayed for %d frames: they circle", n, frames)
		}
		if n := w.nodes[2].Stats().Drops[drop.Relay] + w.nodes[0].Stats().Drops[drop.Relay] + w.nodes[1].Stats().Drops[drop.Relay]; n == 0 {
			t.Error("nothing was dropped as relayed too often")
		}
	})
}

// relayed returns the number of datagrams that all nodes have relayed.
func (w *world) relayed() (n uint64) {
	for _, node := range w.nodes {
		n += node.relayed.datagrams.Load()
	}
	return n
}

// TestDialOut: a node behind a NAT is reached over the links that it opens. Two such nodes reach each other over a
// relay, and then, after a hole punch, directly.
func TestDialOut(t *testing.T) {
	for mode, secrets := range modes {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4, secrets, 2, 3)
				for _, n := range []int{2, 3} {
					w.nodes[n].KeepSessions([]peer.ID{w.nodes[0].peer.ID})
				}
				time.Sleep(5 * time.Second)
				w.learn()
				w.passes(0, 2, time.Second)
				t.Logf("from another node after %s", w.passes(1, 2, 10*time.Second))
				t.Logf("to a node behind another NAT after %s", w.passes(3, 2, 10*time.Second))
				begin := time.Now()
				for w.via(2, 3) != (peer.ID{}) || w.via(3, 2) != (peer.ID{}) {
					w.passes(3, 2, time.Second)
					if time.Since(begin) > 20*time.Second {
						t.Fatal("no direct link within 20 s")
					}
				}
				t.Logf("directly after %s", time.Since(begin))
				w.passes(3, 2, time.Second)
				before := w.relayed()
				w.passes(3, 2, time.Second)
				if w.relayed() != before {
					t.Error("still relayed")
				}
			})
		})
	}
}

// TestDialBack: a node finds out whether datagrams reach it from addresses to which it has not sent.
func TestDialBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil, 2)
		for n, want := range map[int]bool{1: true, 2: false} {
			if came, err := w.nodes[n].RequestDialBack(t.Context(), w.nodes[0].peer.ID); came != want || err != nil {
				t.Errorf("node %d: %v, %v, want %v", n, came, err, want)
			}
		}
		w.net.Partition([]netip.Addr{addrOf(0).Addr()}, []netip.Addr{addrOf(1).Addr()})
		if came, err := w.nodes[1].RequestDialBack(t.Context(), w.nodes[0].peer.ID); came || err == nil {
			t.Errorf("by a peer that does not answer: %v, %v, want an error", came, err)
		}
	})
}

// TestControl: a control message arrives, directly and over a relay.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, modes["sealed"])
		w.cut(0, 2, true)
		w.cut(2, 0, true)
		w.learn()
		w.passes(0, 2, 20*time.Second)
		w.passes(0, 1, time.Second)
		for to := range []int{1, 2} {
			if err := w.nodes[0].SendControl(w.nodes[to+1].peer.ID, 5, []byte("hello")); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.received) != 2 {
			t.Errorf("%d messages, want 2: %q", len(w.received), w.received)
		}
		if err := w.nodes[0].SendControl(w.nodes[1].peer.ID, 5, make([]byte, MaxControl+1)); err == nil {
			t.Error("a message that is too long is accepted")
		}
	})
}
