package router

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap/taptest"
)

// costlyConn needs some time for each datagram.
type costlyConn struct {
	*recordingConn
	cost time.Duration
}

func (c costlyConn) WriteBatch(b []underlay.Datagram) (int, error) {
	time.Sleep(time.Duration(len(b)) * c.cost)
	return c.recordingConn.WriteBatch(b)
}

// TestDrainIsShortOnASlowLink: a sender that refills the staged frames does not keep the handshake goroutine from other peers for
// longer than two rounds of frames.
func TestDrainIsShortOnASlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cost = time.Millisecond
		d := newDrainTest(t)
		d.enc = newEncoder(d.Engine, costlyConn{d.conn, cost})
		stop := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			for o, i := d.sender(), 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				d.send(t, o, 0, i)
				time.Sleep(100 * time.Microsecond)
			}
		})
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		d.installSession(d.view, d.s, addrOf(1), &d.enc, d.now())
		took := time.Since(start)
		close(stop)
		group.Wait()
		if most := 2*maxStaged*cost + maxDrainTime; took > most {
			t.Errorf("the session was installed in %s, want at most %s", took, most)
		}
	})
}

// addressConn records the destinations of datagrams, and calls onFirst after the first batch.
type addressConn struct {
	underlay.Conn
	addrs   []netip.AddrPort
	onFirst func()
}

func (c *addressConn) WriteBatch(b []underlay.Datagram) (int, error) {
	first := len(c.addrs) == 0
	for _, d := range b {
		c.addrs = append(c.addrs, d.Addr)
	}
	if first && c.onFirst != nil {
		c.onFirst()
	}
	return len(b), nil
}

// peerBehindRelay returns peer 1 as it is when peer 2 relays to it.
func peerBehindRelay() Peer {
	p := peerOf(1)
	p.Via = peerOf(2).ID
	return p
}

// TestPeerBecomesRelayedWhileDraining: frames that are staged after SetPeers do not go to the old address.
func TestPeerBecomesRelayedWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrainTest(t)
		c := &addressConn{}
		d.enc = newEncoder(d.Engine, c)
		o := d.sender()
		d.send(t, o, 0, 0)
		c.onFirst = func() {
			d.SetPeers([]Peer{peerBehindRelay(), peerOf(2)})
			d.send(t, o, 0, 1)
		}
		d.installSession(d.view, d.s, addrOf(1), &d.enc, d.now())
		if len(c.addrs) == 0 || c.addrs[0] != addrOf(1) || slices.Contains(c.addrs[1:], addrOf(1)) {
			t.Errorf("sent to %v, want %s first and never again", c.addrs, addrOf(1))
		}
		if !d.view.egress.Load().relayed {
			t.Error("the egress is direct, although the peer is relayed")
		}
	})
}

// TestSessionOfAPeerThatHasMoved: SetPeers runs between the load of the snapshot and the installation of the session.
func TestSessionOfAPeerThatHasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrainTest(t)
		enc := newEncoder(d.Engine, &addressConn{})
		old := d.peers.Load().byID[peerOf(1).ID]
		d.SetPeers([]Peer{peerBehindRelay(), peerOf(2)})
		d.applySessionChange(old, session.Change{Peer: old.ID, Session: d.s, Addr: addrOf(1)}, &enc)
		if !d.view.egress.Load().relayed {
			t.Error("the egress is direct, although the peer is relayed")
		}
	})
}

// delayedConn needs some time for each batch.
type delayedConn struct {
	underlay.Conn
	delay time.Duration
}

func (c delayedConn) WriteBatch(b []underlay.Datagram) (int, error) {
	time.Sleep(c.delay)
	return c.Conn.WriteBatch(b)
}

// TestLinkIsOpenAfterAHandshake: the link over which a handshake has succeeded is published as open, also where frames were staged
// for the session.
func TestLinkIsOpenAfterAHandshake(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			network := simnet.New(1)
			var mu sync.Mutex
			var last Links
			observed := &events{links: func(l Links) { mu.Lock(); defer mu.Unlock(); last = l }}
			a := newNodeWith(t, network, 0, taptest.Config{MTU: 1438}, Config{Events: observed})
			a.conns[0] = delayedConn{a.conns[0], 20 * time.Microsecond}
			b := newNode(t, network, 1)
			runNodes(t, []*node{a, b})
			a.dev.Inject(frame(ether.Broadcast, mac(1), 'x'))
			time.Sleep(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			if !a.HasSession(b.peer.ID) || !slices.Contains(last.Open, b.peer.ID) {
				t.Fatalf("session %v, open links %v", a.HasSession(b.peer.ID), last.Open)
			}
		})
	}
}
