package router

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/curve25519"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/fdb"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/taptest"
)

func want(t *testing.T, what string, got, want [][]byte) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: frames that arrived (-want +got):\n%s", what, diff)
	}
}

// TestFloodThenUnicast: a flood arrives at every other node exactly once; the answer shows where to send.
func TestFloodThenUnicast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		want(t, "broadcast", deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a')), [][]byte{nil, {'a'}, {'a'}})
		want(t, "multicast", deliver(t, nodes, 0, frame(ether.Addr{0x33, 0x33, 1}, mac(1), 'b')), [][]byte{nil, {'b'}, {'b'}})
		want(t, "unknown", deliver(t, nodes, 0, frame(mac(2), mac(1), 'c')), [][]byte{nil, {'c'}, {'c'}})
		want(t, "answer", deliver(t, nodes, 1, frame(mac(1), mac(2), 'd')), [][]byte{{'d'}, nil, nil})
		want(t, "known", deliver(t, nodes, 0, frame(mac(2), mac(1), 'e')), [][]byte{nil, {'e'}, nil})
		want(t, "known, from a third", deliver(t, nodes, 2, frame(mac(1), mac(3), 'f')), [][]byte{{'f'}, nil, nil})
	})
}

// TestMove: an address that is used elsewhere is learned there by every node that receives its frames.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		want(t, "before", deliver(t, nodes, 0, frame(mac(2), mac(1), 'b')), [][]byte{nil, {'b'}, nil})
		deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'c'))
		want(t, "after", deliver(t, nodes, 0, frame(mac(2), mac(1), 'd')), [][]byte{nil, nil, {'d'}})
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(2), 'e'))
		want(t, "to the host itself", deliver(t, nodes, 0, frame(mac(2), mac(1), 'f')), [][]byte{nil, nil, nil})
		if s := nodes[0].Stats(); s.FDBMoves != 2 || s.Drops[drop.Local] != 1 {
			t.Errorf("%d moves, drops %v; want 2 and one local", s.FDBMoves, s.Drops)
		}
		wantFDB := []fdb.Entry{{MAC: mac(1)}, {MAC: mac(2)}}
		if diff := cmp.Diff(wantFDB, nodes[0].FDB()); diff != "" {
			t.Errorf("FDB (-want +got):\n%s", diff)
		}
	})
}

func TestAging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		want(t, "young", deliver(t, nodes, 0, frame(mac(2), mac(1), 'b')), [][]byte{nil, {'b'}, nil})
		time.Sleep(fdb.DefaultAge + time.Minute)
		want(t, "aged", deliver(t, nodes, 0, frame(mac(2), mac(1), 'c')), [][]byte{nil, {'c'}, {'c'}})
		if n := nodes[2].Stats().FDBEntries; n != 1 {
			t.Errorf("%d entries, want 1: the others were removed", n)
		}
	})
}

// TestPeerLeaves: the addresses learned from it are forgotten, it neither sends nor receives any more, and the counters
// of the others continue.
func TestPeerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		deliver(t, nodes, 2, frame(ether.Broadcast, mac(3), 'b'))
		nodes[0].SetPeers([]Peer{nodes[2].peer})
		want(t, "to its address", deliver(t, nodes, 0, frame(mac(2), mac(1), 'c')), [][]byte{nil, nil, {'c'}})
		want(t, "a flood from it", deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'd')), [][]byte{nil, nil, {'d'}})
		s := nodes[0].Stats()
		if len(s.Peers) != 1 || s.Peers[0].ID != nodes[2].peer.ID || s.Peers[0].RxFrames != 1 || s.Peers[0].TxFrames != 1 {
			t.Errorf("peers %+v", s.Peers)
		}
		if s.Drops[drop.Session] == 0 {
			t.Errorf("drops %v, want one for an unknown session", s.Drops)
		}
		nodes[0].SetPeers([]Peer{nodes[1].peer, nodes[2].peer})
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), '-')) // by the old session, and node 1 is notified that it is unknown
		time.Sleep(time.Second)
		want(t, "back again", deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'e')), [][]byte{{'e'}, nil, {'e'}})
		nodes[0].SetPeers(nil)
		want(t, "all alone", deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'f')), [][]byte{nil, nil, nil})
		if s := nodes[0].Stats(); s.Drops[drop.NoPeer] != 0 {
			t.Errorf("drops %v: a flood is lost to no peer", s.Drops)
		}
		deliver(t, nodes, 0, frame(mac(9), mac(1), 'g'))
		if s := nodes[0].Stats(); s.Drops[drop.NoPeer] != 1 {
			t.Errorf("drops %v, want one no_peer", s.Drops)
		}
	})
}

// TestManyPeers: a flood to more peers than one batch holds.
func TestManyPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 1)
		var peers []Peer
		var all []identity
		for n := range 2*outDatagrams + 3 {
			i := identity{private: [session.KeyLen]byte{1: byte(n >> 8), 2: byte(n), 7: 1}}
			public, err := curve25519.X25519(i.private[:], curve25519.Basepoint)
			if err != nil {
				t.Fatal(err)
			}
			i.public = [session.KeyLen]byte(public)
			i.id = peer.FromPublicKey(i.public)
			all = append(all, i)
			peers = append(peers, Peer{ID: i.id, Public: i.public, Addr: netip.AddrPortFrom(addrOf(1).Addr(), uint16(n+1))})
		}
		nodes[0].SetPeers(peers)
		synctest.Wait()
		for n, i := range all {
			connectRemoteAs(t, nodes[0], i, peers[n])
			time.Sleep(50 * time.Millisecond) // of the bubble: initiations are rate limited
		}
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a'))
		for _, p := range nodes[0].Stats().Peers {
			if p.TxFrames != 1 || p.TxBytes != 64 {
				t.Fatalf("%+v, want one frame", p)
			}
		}
	})
}

// TestQueues: several TAP queues share a socket and the database, and lose nothing. It is meant for the race detector.
func TestQueues(t *testing.T) {
	const queues, frames = 3, 50
	synctest.Test(t, func(t *testing.T) {
		network, nodes := run(t, 1)
		sender := newNodeOf(t, network, 1, taptest.Config{MTU: 1438, Queues: queues})
		nodes[0].SetPeers([]Peer{sender.peer})
		sender.SetPeers([]Peer{nodes[0].peer})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- sender.Run(ctx) }()
		for n := range frames {
			for q := range queues {
				f := frame(ether.Broadcast, mac(q), byte(n))
				go sender.dev.InjectQueue(q, tap.Frame{Data: f})
			}
		}
		if got := awaitQuiet(nodes); len(got[0]) != queues*frames {
			t.Errorf("%d frames, want %d", len(got[0]), queues*frames)
		}
		if p := sender.Stats().Peers[0]; p.TxFrames != queues*frames || p.TxBytes != 64*queues*frames {
			t.Errorf("counted %+v", p)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestConfigRefused(t *testing.T) {
	conn, err := simnet.New(1).Listen(addrOf(0))
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Private: identityOf(0).private, Offer: anyCipher, Device: taptest.New(taptest.Config{}), Conns: []underlay.Conn{conn}}
	for field, change := range map[string]func(*Config){
		"Offer":        func(c *Config) { c.Offer = 0 },
		"Device":       func(c *Config) { c.Device = nil },
		"Conns":        func(c *Config) { c.Conns = append(c.Conns, conn) },
		"EntropyPorts": func(c *Config) { c.EntropyPorts = []underlay.Conn{conn, conn} },
		"FDBAge":       func(c *Config) { c.FDBAge = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) && !errors.Is(err, session.ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestRunEnds: Run returns nil when ctx ends, and the error of the device or a socket when one fails. It runs once
// only.
func TestRunEnds(t *testing.T) {
	for name, end := range map[string]func(*node, context.CancelFunc){
		"context": func(_ *node, cancel context.CancelFunc) { cancel() },
		"device":  func(n *node, _ context.CancelFunc) { n.dev.Close() },
		"socket":  func(n *node, _ context.CancelFunc) { n.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				n := newNode(t, simnet.New(1), 0)
				ended := make(chan error)
				go func() { ended <- n.Run(ctx) }()
				synctest.Wait()
				end(n, cancel)
				err := <-ended
				if name == "context" && err != nil || name != "context" && !errors.Is(err, net.ErrClosed) {
					t.Errorf("Run: %v", err)
				}
				_, readErr := taptest.Read(n.dev.Queues()[0], tap.NewBatch(1<<17, 1, 0, 0))
				_, writeErr := n.conn.WriteBatch(nil)
				if !errors.Is(readErr, net.ErrClosed) || !errors.Is(writeErr, net.ErrClosed) {
					t.Errorf("device: %v, socket: %v; want both closed", readErr, writeErr)
				}
				if err := n.Run(ctx); err == nil {
					t.Error("a second Run")
				}
			})
		})
	}
}

// TestNoLogFlood: datagrams of an unauthenticated sender are not logged.
func TestNoLogFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := run(t, 1)
		synctest.Wait()
		before := nodes[0].log.Load()
		sender, err := network.Listen(addrOf(9))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			if _, err := sender.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: make([]byte, i)}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if s := nodes[0].Stats(); s.Drops[drop.Truncated]+s.Drops[drop.Version] != 500 || s.FDBEntries != 0 || nodes[0].log.Load() != before {
			t.Errorf("drops %v, %d addresses, %d log lines", s.Drops, s.FDBEntries, nodes[0].log.Load()-before)
		}
	})
}

// TestCountersNeverRepeat: frames, segments, probes and replies of a session have counters of their own, as counters
// are nonces.
func TestCountersNeverRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := runOf(t, taptest.Config{MTU: 1438, Features: allFeatures})
		socket, err := network.Listen(addrOf(1))
		if err != nil {
			t.Fatal(err)
		}
		nodes[0].SetPeers([]Peer{peerOf(1)})
		synctest.Wait()
		other := connectRemote(t, nodes[0], 1)
		seen, kinds := map[uint64]bool{}, map[wire.Type]int{}
		batch := make([]underlay.Datagram, 256)
		for i := range batch {
			batch[i].Buf = make([]byte, 2048)
		}
		for range 5 {
			nodes[0].dev.Inject(frame(ether.Broadcast, mac(1), 'x'))
			nodes[0].dev.InjectQueue(0, superframe(2, 1, 5000, 1000))
			probe := make([]byte, 100-wire.HeaderLen-wire.TagLen)
			wire.Probe{Token: 1, Size: 100}.Put(probe)
			if _, err := socket.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: other.sealed(wire.TypeProbe, probe)}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // of the bubble: the prober sends
			n, err := underlaytest.Read(socket, batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range batch[:n] {
				header, _, err := wire.Parse(d.Buf)
				if err != nil || header.Session != other.session.Index() || seen[header.Counter] {
					t.Fatalf("%+v, %v: a counter that was used before", header, err)
				}
				seen[header.Counter] = true
				kinds[header.Type]++
			}
		}
		if kinds[wire.TypePlain] != 30 || kinds[wire.TypeProbe] == 0 || kinds[wire.TypeProbeReply] != 5 {
			t.Errorf("datagrams %v", kinds)
		}
	})
}
