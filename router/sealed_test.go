package router

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
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

// secretOf returns the nth secret of the tests.
func secretOf(n int) session.Secret {
	return session.Secret{Key: [session.KeyLen]byte{byte(n)}, Fingerprint: uint32(n)}
}

// runSealed runs nodes that share secrets, if any.
func runSealed(t *testing.T, size int, secrets ...session.Secret) (*simnet.Network, []*node) {
	t.Helper()
	network := simnet.New(1)
	var nodes []*node
	for n := range size {
		nodes = append(nodes, newNodeOf(t, network, n, taptest.Config{MTU: 1422, Features: allFeatures}, secrets...))
	}
	runNodes(t, nodes)
	return network, nodes
}

// numbered returns a frame of 64 bytes that contains a number, which collect reads.
func numbered(dst, src ether.Addr, n int) []byte {
	f := frame(dst, src, 'n')
	copy(f[15:], fmt.Sprintf("%08d", n))
	return f
}

// collect returns the numbers of the frames that a node's host has received since the last call, in order.
func collect(t *testing.T, n *node) (numbers []int) {
	t.Helper()
	for {
		f, ok := n.dev.TryNext()
		if !ok {
			return numbers
		}
		var number int
		if _, err := fmt.Sscanf(string(f.Data[15:23]), "%08d", &number); err != nil {
			t.Fatalf("a frame that was never sent: %x", f.Data)
		}
		numbers = append(numbers, number)
	}
}

// TestNothingLostOverRekeys: in ten minutes of frames in both directions, with more than four changes of keys, every
// frame arrives, in order.
func TestNothingLostOverRekeys(t *testing.T) {
	for mode, secrets := range modes {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := runSealed(t, 2, secrets...)
				network.SetDefault(simnet.Link{Latency: 3 * time.Millisecond})
				sessions := map[*session.Session]bool{}
				const frames = 12_000
				for i := range frames {
					nodes[0].dev.Inject(numbered(ether.Broadcast, mac(1), i))
					nodes[1].dev.Inject(numbered(ether.Broadcast, mac(2), i))
					time.Sleep(50 * time.Millisecond) // of the bubble
					for k, n := range nodes {
						for _, v := range n.peers.Load().byID {
							sessions[v.egress.Load().session] = true
						}
						if i%100 == 99 {
							got := collect(t, n)
							for j := range got {
								if j > 0 && got[j] != got[j-1]+1 {
									t.Fatalf("node %d: %d comes after %d", k, got[j], got[j-1])
								}
							}
						}
					}
				}
				for _, n := range nodes {
					p := n.Stats().Peers[0]
					if p.TxFrames != frames || p.RxFrames < frames-1 || len(n.Stats().Drops) != 0 {
						t.Errorf("%d sent, %d received of %d, drops %v", p.TxFrames, p.RxFrames, frames, n.Stats().Drops)
					}
				}
				if len(sessions) < 2*4 {
					t.Errorf("%d sessions at both ends in ten minutes", len(sessions))
				}
			})
		})
	}
}

// TestFirstFramesAreStagedInOrder: frames that are sent before there is a session arrive once there is one, before all
// later frames.
func TestFirstFramesAreStagedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runSealed(t, 2, secretOf(1))
		network.SetDefault(simnet.Link{Latency: 50 * time.Millisecond})
		for i := range 100 {
			nodes[0].dev.Inject(numbered(ether.Broadcast, mac(1), i))
			time.Sleep(3 * time.Millisecond)
		}
		time.Sleep(time.Second)
		got := collect(t, nodes[1])
		for i := range got {
			if got[i] != i {
				t.Fatalf("frame %d is number %d", i, got[i])
			}
		}
		if len(got) != 100 {
			t.Errorf("%d of 100 frames arrived", len(got))
		}
	})
}

// TestStagingIsBounded: frames for a peer that does not answer are staged for a moment, up to a bound, and then
// counted.
func TestStagingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := runSealed(t, 1, secretOf(1))
		nodes[0].SetPeers([]Peer{peerOf(1)})
		for i := range 10 * maxStaged {
			nodes[0].dev.Inject(numbered(ether.Broadcast, mac(1), i))
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		v := nodes[0].peers.Load().byID[peerOf(1).ID]
		if n := len(v.staged); n > maxStaged || int(nodes[0].stagedBytes.Load()) != 64*n {
			t.Errorf("%d frames staged, counted as %d bytes", n, nodes[0].stagedBytes.Load())
		}
		nodes[0].SetPeers(nil)
		if nodes[0].stagedBytes.Load() != 0 || nodes[0].Stats().Drops[drop.NoSession] != 10*maxStaged {
			t.Errorf("%d bytes staged, drops %v", nodes[0].stagedBytes.Load(), nodes[0].Stats().Drops)
		}
	})
}

// spy is a socket that shows all datagrams that are sent through it.
type spy struct {
	underlay.Conn
	sent func(d *underlay.Datagram)
}

func (s *spy) WriteBatch(batch []underlay.Datagram) (int, error) {
	for i := range batch {
		s.sent(&batch[i])
	}
	return s.Conn.WriteBatch(batch)
}

// TestNothingReadable: no part of a frame leaves a node unsealed, whether it is sent alone, as a superframe, in pieces,
// to all peers or to one.
func TestNothingReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		readable, datagrams := atomic.Int64{}, atomic.Int64{}
		mark := []byte("do not read this")
		var nodes []*node
		for k := range 3 {
			n := newNodeOf(t, network, k, taptest.Config{MTU: 1422, Features: allFeatures}, secretOf(1))
			n.conns[0] = &spy{n.conns[0], func(d *underlay.Datagram) {
				datagrams.Add(1)
				all := bytes.Clone(d.Buf)
				for _, piece := range d.More {
					all = append(all, piece...)
				}
				if bytes.Contains(all, mark[:8]) {
					readable.Add(1)
				}
			}}
			nodes = append(nodes, n)
		}
		runNodes(t, nodes)
		marked := func(f []byte) []byte {
			for i := 60; i+len(mark) < len(f); i += len(mark) {
				copy(f[i:], mark)
			}
			return f
		}
		long := func(dst ether.Addr, n int) []byte {
			return marked(append(frame(dst, mac(1), 'x'), make([]byte, n-64)...))
		}
		super := superframe(2, 1, 30000, 1300)
		super.Data = marked(super.Data)
		for range 20 {
			nodes[0].dev.Inject(long(ether.Broadcast, 1400))
			nodes[0].dev.Inject(long(mac(2), 500))
			nodes[0].dev.InjectQueue(0, super)
			nodes[1].dev.Inject(frame(ether.Broadcast, mac(2), 'a'))
			time.Sleep(100 * time.Millisecond)
		}
		if readable.Load() != 0 || datagrams.Load() < 100 {
			t.Errorf("%d of %d datagrams can be read", readable.Load(), datagrams.Load())
		}
	})
}

// TestTrust: frames are sent unsealed only between nodes that trust each other's address, and a reload changes that at
// once for the frames that this node sends.
func TestTrust(t *testing.T) {
	for _, both := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			network := simnet.New(1)
			var agreed atomic.Int64
			var nodes []*node
			for k := range 2 {
				n := newNodeOf(t, network, k, taptest.Config{MTU: 1422}, secretOf(1))
				n.events = &events{plainAgreed: func(peer.ID) { agreed.Add(1) }}
				if both || k == 0 {
					n.SetTrusted([]netip.Prefix{netip.PrefixFrom(addrOf(1-k).Addr(), 32)})
				}
				nodes = append(nodes, n)
			}
			runNodes(t, nodes)
			deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a'))
			want(t, "answer", deliver(t, nodes, 1, frame(mac(1), mac(2), 'b')), [][]byte{{'b'}, nil})
			for k, n := range nodes {
				p := n.Stats().Peers[0]
				if p.Plain != both || n.PlainAgreed(p.ID) != both || p.Cipher == 0 {
					t.Errorf("both trust: %v; node %d: plain %v, agreed %v", both, k, p.Plain, n.PlainAgreed(p.ID))
				}
			}
			if (agreed.Load() == 2) != both {
				t.Errorf("%d agreements were reported", agreed.Load())
			}
			nodes[1].SetTrusted(nil)
			if nodes[1].Stats().Peers[0].Plain {
				t.Error("still plain although the address is not trusted any more")
			}
			time.Sleep(5 * time.Second) // until the session was renewed
			want(t, "afterwards", deliver(t, nodes, 0, frame(mac(2), mac(1), 'c')), [][]byte{nil, {'c'}})
			for k, n := range nodes {
				if p := n.Stats().Peers[0]; p.Plain || n.PlainAgreed(p.ID) {
					t.Errorf("node %d: still plain", k)
				}
			}
		})
	}
}

// TestFloodOfInitiations: neither garbage nor forgeries by an attacker that knows this node's key and the secret, and
// that sends from any address, keep frames from passing, fill memory, or receive more than a bounded number of answers.
func TestFloodOfInitiations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runSealed(t, 2, secretOf(1))
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a'))
		want(t, "before", deliver(t, nodes, 1, frame(mac(1), mac(2), 'b')), [][]byte{{'b'}, nil})

		// The forger is no member, but has a key of its own and everything that members know.
		forger, err := session.NewNode(session.Config{
			Private: identityOf(5).private, Cluster: cluster, Offer: anyCipher, Secrets: []session.Secret{secretOf(1)},
		})
		if err != nil {
			t.Fatal(err)
		}
		answers, passed := 0, 0
		const rounds, each = 1000, 10
		sockets := make([]*simnet.Conn, 50)
		for i := range sockets {
			if sockets[i], err = network.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1000)); err != nil {
				t.Fatal(err)
			}
		}
		target := nodes[0].peer
		var initiation []byte
		for i := range rounds {
			if i%10 == 0 { // each costs the forger as much as the node
				forger.SetPeers(nil, time.Now())
				forger.SetPeers([]session.Peer{{ID: target.ID, Public: target.Public, Addr: target.Addr}}, time.Now())
				forger.RequestSession(target.ID, time.Now())
				messages, _ := forger.Drain()
				initiation = messages[0].Datagram
			}
			for k := range each {
				b := bytes.Clone(initiation)
				if k%2 == 1 {
					b[50]++
				}
				if _, err := sockets[(i*each+k)%len(sockets)].WriteBatch([]underlay.Datagram{{Addr: target.Addr, Buf: b}}); err != nil {
					t.Fatal(err)
				}
			}
			nodes[0].dev.Inject(numbered(mac(2), mac(1), i))
			time.Sleep(time.Millisecond)
			passed += len(collect(t, nodes[1]))
		}
		synctest.Wait()
		if passed += len(collect(t, nodes[1])); passed != rounds {
			t.Errorf("%d of %d frames passed", passed, rounds)
		}
		batch := make([]underlay.Datagram, 64)
		for i := range batch {
			batch[i].Buf = make([]byte, 2000)
		}
		for _, s := range sockets {
			for {
				n, _ := s.Poll(batch)
				if n == 0 {
					break
				}
				for _, d := range batch[:n] {
					if d.Buf[0]&15 != byte(wire.TypeCookie) {
						t.Errorf("answered with type %d", d.Buf[0]&15)
					}
				}
				answers += n
			}
		}
		drops := nodes[0].Stats().Drops
		limited := drops[drop.Busy] + drops[drop.UnknownPeer] + drops[drop.Replayed]
		if answers == 0 || answers > 4000 || drops[drop.Secret] < rounds*each/2-1000 || limited == 0 {
			t.Errorf("%d cookies, drops %v", answers, drops)
		}
		if n := nodes[0].log.Load(); n > 50 {
			t.Errorf("%d log lines", n)
		}
	})
}

// TestAllAtOnce: every node begins a handshake with every other one at the same instant.
func TestAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 24
		_, nodes := runSealed(t, size, secretOf(1))
		for _, n := range nodes[1:] {
			n.dev.Inject(frame(ether.Broadcast, mac(n.id()), 'x'))
		}
		time.Sleep(10 * time.Second)
		for k, n := range nodes {
			if got := len(collectNotes(n)); got < size-2 {
				t.Errorf("node %d received %d of %d frames", k, got, size-1)
			}
		}
	})
}

func (n *node) id() int { return int(n.peer.ID[0]) }

// collectNotes returns the notes of the frames that a node's host has received.
func collectNotes(n *node) (notes []byte) {
	for {
		f, ok := n.dev.TryNext()
		if !ok {
			return notes
		}
		notes = append(notes, f.Data[14])
	}
}

// TestSecretsReplaced: secrets are replaced while frames pass, in any order of the nodes, and by a secret that is new
// to them.
func TestSecretsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runSealed(t, 2, secretOf(1))
		network.SetDefault(simnet.Link{Latency: 2 * time.Millisecond})
		ctx, stop := context.WithCancel(t.Context())
		sent, arrived := 0, 0
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ; ctx.Err() == nil; sent++ {
				nodes[0].dev.Inject(numbered(ether.Broadcast, mac(1), sent))
				time.Sleep(50 * time.Millisecond)
			}
		}()
		accepts := [2][]uint32{{1}, {1}}
		set := func(k int, numbers ...int) {
			var list []session.Secret
			accepts[k] = nil
			for _, n := range numbers {
				list = append(list, secretOf(n))
				accepts[k] = append(accepts[k], uint32(n))
			}
			nodes[k].SetSecrets(list)
			for at, n := range nodes { // as gossip does
				other := nodes[1-at].peer
				other.Accepts = accepts[1-at]
				n.SetPeers([]Peer{other})
			}
			time.Sleep(15 * time.Second)
			arrived += len(collect(t, nodes[1]))
		}
		time.Sleep(time.Second)
		set(0, 2, 1)
		set(1, 2, 1)
		set(0, 2)
		set(1, 2)
		stop()
		<-ended
		time.Sleep(time.Second)
		if arrived += len(collect(t, nodes[1])); arrived != sent {
			t.Errorf("%d of %d frames arrived", arrived, sent)
		}
	})
}

// TestHeldBackDatagram: a datagram of the previous session that was held back on the path does not move the peer.
func TestHeldBackDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		n := newNodeOf(t, network, 0, taptest.Config{MTU: 1422}, secretOf(1))
		runNodes(t, []*node{n})
		elsewhere, err := network.Listen(addrOf(8))
		if err != nil {
			t.Fatal(err)
		}
		n.SetPeers([]Peer{peerOf(1)})
		synctest.Wait()
		previous := connectRemote(t, n, 1, secretOf(1))
		time.Sleep(time.Second)
		connectRemote(t, n, 1, secretOf(1)) // the next session
		held := previous.sealed(wire.TypeKeepalive, nil)
		if _, err := elsewhere.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: held}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if at := n.Stats().Peers[0].Addr; at != addrOf(1) || len(n.Stats().Drops) != 0 {
			t.Errorf("at %s, drops %v", at, n.Stats().Drops)
		}
	})
}

// TestPeerLeavesInABatch: a frame for a peer that has left since the batch began is not staged.
func TestPeerLeavesInABatch(t *testing.T) {
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(1)})
	v := n.peers.Load().byID[peerOf(1).ID]
	n.SetPeers(nil)
	f := outgoing{frames: 1, bytes: 64, longest: 64}
	f.Data = frame(mac(2), mac(1), 'x')
	if !n.stage(v, &f, n.now()) || n.stagedBytes.Load() != 0 || n.Stats().Drops[drop.NoSession] != 1 {
		t.Errorf("%d bytes staged, drops %v", n.stagedBytes.Load(), n.Stats().Drops)
	}
}
