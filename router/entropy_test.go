package router

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/flowhash"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/entropyport"
	"weft/router/liveness"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/taptest"
)

// frameCounter is a socket that counts the frames that leave from it.
type frameCounter struct {
	*simnet.Conn
	frames atomic.Int64
}

func (c *frameCounter) WriteBatch(batch []underlay.Datagram) (int, error) {
	for _, d := range batch {
		if h, _, err := wire.Parse(d.Buf); err == nil && (h.Type == wire.TypeFrame || h.Type == wire.TypePlain) {
			c.frames.Add(1)
		}
	}
	return c.Conn.WriteBatch(batch)
}

// portNode is the first node of a network of two, with a TAP queue for each of its ports.
type portNode struct {
	*node
	network *simnet.Network
	ports   []*frameCounter
	other   *node
	notes   byte // of the frames that were sent
}

// newPortNode runs two nodes; the first one has entropy ports. It learns that mac(2) is behind the other one.
func newPortNode(t *testing.T, ports int, secrets ...session.Secret) *portNode {
	t.Helper()
	return newPortNodeIn(t, simnet.New(1), ports, nil, secrets...)
}

// newPortNodeIn is newPortNode in a network; before is called before the nodes run.
func newPortNodeIn(t *testing.T, network *simnet.Network, ports int, before func(p *portNode), secrets ...session.Secret) *portNode {
	t.Helper()
	p := newLonePortNode(t, network, ports, secrets...)
	p.other = newNodeOf(t, network, 1, taptest.Config{MTU: 1422}, secrets...)
	if before != nil {
		before(p)
	}
	runNodes(t, []*node{p.node, p.other})
	deliver(t, []*node{p.other, p.node}, 0, frame(ether.Broadcast, mac(2), '-'))
	return p
}

// newLonePortNode returns a node with entropy ports, idle and without another one.
func newLonePortNode(t *testing.T, network *simnet.Network, ports int, secrets ...session.Secret) *portNode {
	t.Helper()
	p := &portNode{network: network}
	var conns []underlay.Conn
	for i := range ports {
		c, err := network.Listen(netip.AddrPortFrom(addrOf(0).Addr(), uint16(33001+i)))
		if err != nil {
			t.Fatal(err)
		}
		p.ports = append(p.ports, &frameCounter{Conn: c})
		conns = append(conns, p.ports[i])
	}
	p.node = newNodeWith(t, network, 0, taptest.Config{MTU: 1422, Queues: max(ports, 1)}, Config{EntropyPorts: conns, Secrets: secrets})
	return p
}

// connectOld runs the node with a peer without an engine, and returns that peer and its socket.
func (p *portNode) connectOld(t *testing.T) (*remote, *simnet.Conn) {
	t.Helper()
	conn, err := p.network.Listen(addrOf(1))
	if err != nil {
		t.Fatal(err)
	}
	runNodes(t, []*node{p.node})
	p.SetPeers([]Peer{peerOf(1)})
	synctest.Wait()
	return connectRemote(t, p.node, 1, secretOf(1)), conn
}

// flow returns a frame to mac(2) that leaves from a port.
func (p *portNode) flow(port int, note byte) []byte {
	if len(p.ports) == 0 {
		return frame(mac(2), mac(10), note)
	}
	for n := 10; ; n++ {
		if f := frame(mac(2), mac(n), note); entropyport.Index(flowhash.Of(f), len(p.ports)) == port {
			return f
		}
	}
}

// send sends a frame to mac(2) that leaves from a port, and reports whether it arrived within a tick.
func (p *portNode) send(t *testing.T, port int) bool {
	t.Helper()
	p.notes++
	if !p.dev.Inject(p.flow(port, p.notes)) {
		t.Fatal("the device is full")
	}
	time.Sleep(pathTick)
	got := awaitQuiet([]*node{p.other})
	return len(got[0]) == 1 && got[0][0] == p.notes
}

// sendFor sends a frame in each tick, and returns how many were lost.
func (p *portNode) sendFor(t *testing.T, port int, length time.Duration) (lost int) {
	t.Helper()
	for range int(length / pathTick) {
		if !p.send(t, port) {
			lost++
		}
	}
	return lost
}

// check checks whether the next frames of each port leave from it, that they arrive, and that the other node has not looked for this one
// elsewhere.
func (p *portNode) check(t *testing.T, when string, want ...bool) {
	t.Helper()
	for i := range p.ports {
		before := p.ports[i].frames.Load()
		if !p.send(t, i) {
			t.Errorf("%s: a frame of port %d is lost", when, i)
		}
		if got := p.ports[i].frames.Load() > before; got != want[i] {
			t.Errorf("%s: frames leave from port %d: %v, want %v", when, i, got, want[i])
		}
	}
	v := p.other.peers.Load().byID[p.peer.ID]
	if observed := v.observed.Load(); observed != nil && *observed != v.egress.Load().addr {
		t.Errorf("%s: the other node has observed %s", when, *observed)
	}
}

// TestEntropyPort: the frames of a flow leave from its port once that is proven, those to all peers do not, and the peer's endpoint stays.
func TestEntropyPort(t *testing.T) {
	for mode, secrets := range modes {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPortNode(t, 2, secrets...)
				if lost := p.sendFor(t, 0, 2*time.Second); lost != 0 {
					t.Errorf("%d frames lost", lost)
				}
				if s := p.Stats().Peers[0]; s.EntropyPorts != 1 {
					t.Errorf("%d entropy ports, want 1", s.EntropyPorts)
				}
				p.check(t, "the first port is proven", true, false)
				p.sendFor(t, 1, time.Second)
				p.check(t, "both are", true, true)
				before := p.ports[0].frames.Load() + p.ports[1].frames.Load()
				want(t, "a broadcast", deliver(t, []*node{p.node, p.other}, 0, frame(ether.Broadcast, mac(1), 'b')), [][]byte{nil, {'b'}})
				if p.ports[0].frames.Load()+p.ports[1].frames.Load() != before {
					t.Error("a broadcast left from an entropy port")
				}
				p.sendFor(t, 0, 3*time.Minute) // sessions are renewed meanwhile
				p.check(t, "sessions later", true, false)
				if s := p.other.Stats(); s.Peers[0].Addr != addrOf(0) || len(s.Drops) != 0 {
					t.Errorf("endpoint %s, drops %v", s.Peers[0].Addr, s.Drops)
				}
				if s := p.Stats(); len(s.Drops) != 0 {
					t.Errorf("drops %v", s.Drops)
				}
			})
		})
	}
}

// TestEntropyPortOrder: a flow without pauses goes on leaving from the data port when its entropy port is proven, and a flow that begins
// after the first probes leaves from its port.
func TestEntropyPortOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPortNode(t, 1, secretOf(1))
		for i := range 100 {
			p.dev.Inject(p.flow(0, 'x'))
			time.Sleep(20 * time.Millisecond)
			awaitQuiet([]*node{p.other})
			if proven := p.peers.Load().byID[p.other.peer.ID].provenPorts(); proven != 1 {
				t.Fatalf("frame %d: %d proven ports: the first frame makes the node send a probe", i, proven)
			}
		}
		if n := p.ports[0].frames.Load(); n != 0 {
			t.Errorf("%d frames of a busy flow changed ports", n)
		}
		p.dev.Inject(frame(mac(2), mac(99), 'y'))
		awaitQuiet([]*node{p.other})
		if n := p.ports[0].frames.Load(); n != 1 {
			t.Errorf("%d frames of a new flow left from the entropy port, want 1", n)
		}
		time.Sleep(pathTick)
		p.check(t, "after a pause", true)
	})
}

// TestEntropyPortBlocked: where a firewall drops what comes from the port, or goes there, the data port carries everything and nothing is
// lost. When it stops, the port is proven; when it begins, frames return to the data port within seconds.
func TestEntropyPortBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		p := newPortNodeIn(t, network, 1, func(p *portNode) { network.Block(p.ports[0].LocalAddr(), true) }, secretOf(1))
		if lost := p.sendFor(t, 0, time.Minute); lost != 0 {
			t.Errorf("%d frames lost", lost)
		}
		p.check(t, "blocked", false)
		network.Block(p.ports[0].LocalAddr(), false)
		if lost := p.sendFor(t, 0, time.Minute); lost != 0 {
			t.Errorf("%d frames lost", lost)
		}
		p.check(t, "open", true)
		network.Block(p.ports[0].LocalAddr(), true)
		if lost := p.sendFor(t, 0, time.Minute); lost > int(5*time.Second/pathTick) {
			t.Errorf("%d frames lost, one in %s", lost, pathTick)
		}
		p.check(t, "blocked again", false)
		if s := p.other.Stats(); s.Peers[0].Addr != addrOf(0) {
			t.Errorf("endpoint %s", s.Peers[0].Addr)
		}
	})
}

// TestEntropyPortNarrow: a port from which only small datagrams arrive is not proven.
func TestEntropyPortNarrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPortNode(t, 1, secretOf(1))
		p.network.SetLink(addrOf(0).Addr(), addrOf(1).Addr(), simnet.Link{MTU: 1300})
		v := p.peers.Load().byID[p.other.peer.ID]
		p.send(t, 0)
		p.send(t, 0)
		if v.provenPorts() != 0 {
			t.Error("proven for datagrams that do not arrive")
		}
		p.sendFor(t, 0, 30*time.Second) // the MTU of the path is found
		p.check(t, "shorter datagrams", true)
	})
}

// TestEntropyPortNAT: a receiver behind a translator that passes only answers gets all frames from the data port. A sender behind one
// has its ports translated, and its endpoint stays.
func TestEntropyPortNAT(t *testing.T) {
	outside := netip.MustParseAddr("198.51.100.1")
	for name, tt := range map[string]struct {
		behind int
		proven bool
	}{"receiver": {1, false}, "sender": {0, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := simnet.New(1)
				network.SetNAT(outside, addrOf(tt.behind).Addr())
				p := newPortNodeIn(t, network, 1, func(p *portNode) {
					inside := []*node{p.node, p.other}[tt.behind]
					inside.peer.Addr, inside.peer.DialOut = netip.AddrPort{}, true
				}, secretOf(1))
				nodes := []*node{p.node, p.other}
				deliver(t, nodes, tt.behind, frame(ether.Broadcast, mac(3), '-')) // the node behind the translator begins
				time.Sleep(time.Second)
				nodes[1-tt.behind].SetPeers([]Peer{nodes[tt.behind].peer}) // as the owner of the engine does after LinksChanged
				deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), '-'))
				if lost := p.sendFor(t, 0, 30*time.Second); lost != 0 {
					t.Errorf("%d frames lost", lost)
				}
				p.check(t, name, tt.proven)
				for _, s := range []Stats{p.Stats(), p.other.Stats()} {
					if at := s.Peers[0].Addr; at.Addr() == outside && at.Port() != 40000 {
						t.Errorf("endpoint %s, want the translated data port", at)
					}
				}
			})
		})
	}
}

// TestEntropyPortEnds: frames leave from the data port as soon as the peer is reached over a relay or at another address.
func TestEntropyPortEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPortNode(t, 1, secretOf(1))
		p.sendFor(t, 0, time.Second)
		p.check(t, "proven", true)
		v := p.peers.Load().byID[p.other.peer.ID]
		for what, addr := range map[string]netip.AddrPort{"another address": addrOf(7), "another port": netip.AddrPortFrom(addrOf(1).Addr(), 9)} {
			v.updateEgress(func(out egress) egress { return p.egressTo(out.session, addr) })
			before := p.ports[0].frames.Load()
			p.dev.Inject(p.flow(0, 'x'))
			synctest.Wait()
			if p.ports[0].frames.Load() != before {
				t.Errorf("%s: a frame left from the entropy port", what)
			}
			v.updateEgress(func(out egress) egress { return p.egressTo(out.session, addrOf(1)) })
			p.sendFor(t, 0, 2*time.Second)
			p.check(t, "proven again", true)
		}
		p.SetKernel(p.other.peer.ID, true)
		p.sendFor(t, 0, time.Second)
		p.check(t, "on the kernel path", false)
	})
}

// TestEntropyPortRestart: a peer that has lost its sessions says so at the entropy port, and frames arrive again at once.
func TestEntropyPortRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPortNode(t, 1, secretOf(1))
		p.sendFor(t, 0, time.Second)
		p.check(t, "proven", true)
		p.other.SetPeers(nil)
		p.other.SetPeers([]Peer{p.peer})
		if p.send(t, 0) {
			t.Error("a frame arrived without a session")
		}
		if !p.send(t, 0) {
			t.Error("there is no session yet")
		}
		p.check(t, "a new session", true)
	})
}

// TestEntropyPortRefuses: an entropy port takes nothing but answers to its own probes.
func TestEntropyPortRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLonePortNode(t, simnet.New(1), 1, secretOf(1))
		r, conn := p.connectOld(t)
		probe := make([]byte, wire.ProbeLen)
		wire.Probe{Token: 1, Size: 34}.Put(probe)
		body := bodyOf(frame(ether.Broadcast, mac(2), 'x'))
		forged := r.sealed(wire.TypeProbeReply, probe)
		forged[20]++
		replayed := r.sealed(wire.TypeProbeReply, probe)
		for _, d := range [][]byte{
			r.sealed(wire.TypeFrame, body), r.sealed(wire.TypeProbe, probe), r.sealed(wire.TypePortProbe, probe), r.sealed(wire.TypeKeepalive, nil),
			r.plain(body), r.sealed(wire.TypeControl, []byte{1, 2}), forged, replayed, bytes.Clone(replayed), {1, 2, 3},
			append([]byte{0x16}, make([]byte, wire.InitiationLen-1)...),
		} {
			if _, err := conn.WriteBatch([]underlay.Datagram{{Addr: p.ports[0].LocalAddr(), Buf: d}}); err != nil {
				t.Fatal(err)
			}
		}
		if got := awaitQuiet([]*node{p.node}); len(got[0]) != 0 {
			t.Errorf("frames %q arrived", got[0])
		}
		s := p.Stats()
		if s.Drops[drop.Type] != 7 || s.Drops[drop.Forged] != 1 || s.Drops[drop.Replayed] != 1 || s.Drops[drop.Truncated] != 1 {
			t.Errorf("drops %v", s.Drops)
		}
		if s.Peers[0].EntropyPorts != 0 {
			t.Error("proven by an answer to nothing")
		}
	})
}

// TestEntropyPortOldPeer: a peer that does not know port probes gets frames from the data port, unmarked, and few probes.
func TestEntropyPortOldPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLonePortNode(t, simnet.New(1), 1, secretOf(1))
		r, conn := p.connectOld(t)
		p.learn(mac(2), r.peer.ID, p.now())
		probes := 0
		for range 100 {
			p.dev.Inject(p.flow(0, 'x'))
			time.Sleep(pathTick)
			synctest.Wait()
			got := r.read(t, conn)
			r.answer(t, conn, got)
			probes += count(got, wire.TypePortProbe)
			for _, d := range got {
				if d.Type == wire.TypeFrame && wire.FromEntropyPort(d.body) {
					t.Fatal("a marked frame")
				}
			}
		}
		if p.ports[0].frames.Load() != 0 || probes < 3 || probes > 6 {
			t.Errorf("%d frames from the entropy port, %d probes in 20 s", p.ports[0].frames.Load(), probes)
		}
	})
}

// TestPortProbe: a port probe is answered at its source, once, and neither it nor marked frames make the node look for the peer there.
func TestPortProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoamer(t, 7, 8)
		body := make([]byte, 1200-wire.HeaderLen-wire.TagLen)
		wire.Probe{Token: 5, Size: 1200}.Put(body)
		first := r.sealed(wire.TypePortProbe, body)
		again := bytes.Clone(first)
		forged := r.sealed(wire.TypePortProbe, body)
		forged[100]++
		r.from(7, first)
		r.from(8, again)
		r.from(8, forged)
		marked := bodyOf(frame(ether.Broadcast, mac(2), 'm'))
		wire.Meta{EntropyPort: true}.Put(marked)
		r.from(7, r.sealed(wire.TypeFrame, marked))
		got := r.read(t, r.sockets[7])
		if len(got) != 1 || got[0].Type != wire.TypeProbeReply || got[0].size != wire.HeaderLen+wire.ProbeLen+wire.TagLen {
			t.Fatalf("answers %+v, want one", got)
		}
		if reply, err := wire.ParseProbeReply(got[0].body); err != nil || reply != (wire.Probe{Token: 5, Size: 1200}) {
			t.Errorf("answer %+v, %v", reply, err)
		}
		if len(r.read(t, r.sockets[8])) != 0 {
			t.Error("a replayed or forged port probe was answered")
		}
		want(t, "a marked frame", awaitQuiet([]*node{r.node}), [][]byte{{'m'}})
		time.Sleep(2 * time.Second)
		if n := len(r.read(t, r.sockets[7])); n != 0 || r.at() != addrOf(1) {
			t.Errorf("%d datagrams to the entropy port of the peer, endpoint %s", n, r.at())
		}
		r.from(7, r.keepalive())
		if n := count(r.read(t, r.sockets[7]), wire.TypeProbe); n != 1 {
			t.Errorf("%d probes after a keepalive, want 1", n)
		}
	})
}

// TestOneWayBesideEntropyPorts: a path between the data ports that is broken in one direction is found as soon as without entropy ports,
// although frames and probes pass between other ports: handshakes, probes of the path and frames to all peers need it.
func TestOneWayBesideEntropyPorts(t *testing.T) {
	for _, way := range [][2]netip.AddrPort{{addrOf(0), addrOf(1)}, {addrOf(1), addrOf(0)}} {
		for _, secrets := range [][]session.Secret{nil, {secretOf(1)}} {
			for _, ports := range []int{0, 1, 8} {
				synctest.Test(t, func(t *testing.T) {
					p := newPortNode(t, ports, secrets...)
					nodes := []*node{p.node, p.other}
					receiver := p.other
					if way[1] == addrOf(0) {
						receiver = p.node
					}
					exchangeFor := func(length time.Duration, until liveness.State) (took time.Duration) {
						for ; took < length; took += 50 * time.Millisecond {
							for i := range max(ports, 1) {
								p.dev.Inject(p.flow(i, 1))
							}
							p.other.dev.Inject(frame(mac(10), mac(2), 2))
							time.Sleep(50 * time.Millisecond)
							awaitQuiet(nodes)
							if receiver.linkState() == until {
								break
							}
						}
						return took
					}
					exchangeFor(5*time.Second, 0)
					time.Sleep(time.Second) // a pause, in which the flows may change ports
					exchangeFor(time.Second, 0)
					if got := p.Stats().Peers[0].EntropyPorts; got != ports {
						t.Fatalf("%d proven ports, want %d", got, ports)
					}
					for i := range p.ports {
						if p.ports[i].frames.Load() == 0 {
							t.Fatalf("no frames from port %d", i)
						}
					}
					p.network.BlockPath(way[0], way[1], true)
					if took := exchangeFor(time.Minute, liveness.Broken); took > 10*time.Second {
						t.Errorf("from %s to %s, %d ports, %d secrets: found broken after %s", way[0], way[1], ports, len(secrets), took)
					}
				})
			}
		}
	}
}

// linkState returns the state of the link to the only peer.
func (n *node) linkState() liveness.State {
	v := n.peers.Load().sorted[0]
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.link.State()
}
