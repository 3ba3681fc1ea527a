package carriertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
)

// patience is the timeout of all waits.
const patience = 20 * time.Second

// Network is two nodes, 0 and 1, with pods and carriers of one kind.
type Network interface {
	// Open makes the carrier of a node, which is ready to carry frames. It may be called again after Close.
	Open(t *testing.T, node int) carrier.Carrier
	// Peer returns a node as the other one's peer.
	Peer(node int) carrier.Peer
	// Keeps reports whether the carrier has an effect after Keep and Close.
	Keeps() bool
	// Broadcast sends a frame from a pod of a node to the pods of all others, if they are carried.
	Broadcast(t *testing.T, node int, content string)
	// Next returns the content of the next frame of Broadcast that arrives at a pod of a node.
	Next(t *testing.T, node int) string
	// Break has the underlay lose what the carriers send, or deliver it again.
	Break(t *testing.T, on bool)
	// Delete deletes the device of a node as another program would.
	Delete(t *testing.T, node int)
	// Disturb removes from a node what another program could, and Ensure restores. Frames to the node are lost then, or frames from it.
	Disturb(t *testing.T, node int)
}

// Run tests a kind of carrier. network returns a new network without carriers.
func Run(t *testing.T, network func(t *testing.T) Network) {
	for name, test := range map[string]func(*testing.T, Network){
		"probes": testProbes, "frames": testFrames, "unknown peer": testUnknown, "gone": testGone, "closed": testClosed, "kept": testKept,
		"restored": testRestored, "moves": testMoves, "goodbye": testGoodbye,
	} {
		t.Run(name, func(t *testing.T) { test(t, network(t)) })
	}
}

// pair opens both carriers, which then know each other, and closes them at the end of the test.
func pair(t *testing.T, n Network) (carriers [2]carrier.Carrier) {
	t.Helper()
	for i := range carriers {
		carriers[i] = n.Open(t, i)
		t.Cleanup(func() { must(t, carriers[i].Close()) })
	}
	for i, c := range carriers {
		meet(t, c, n.Peer(1-i))
	}
	return carriers
}

// meet makes p the only peer of c.
func meet(t *testing.T, c carrier.Carrier, p carrier.Peer) {
	t.Helper()
	if got, err := c.SetPeers(t.Context(), []carrier.Peer{p}); err != nil || len(got) != 1 || got[0] != p {
		t.Fatalf("SetPeers returned %v, %v", got, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants checks that an error wraps another one.
func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s returned %v, want %v", what, err, want)
	}
}

// arrives checks that a frame of one node arrives at the other one, and none before it.
func arrives(t *testing.T, n Network, from int, content string) {
	t.Helper()
	n.Broadcast(t, from, content)
	if got := n.Next(t, 1-from); got != content {
		t.Errorf("%q arrived, want %q", got, content)
	}
}

// testProbes: probes arrive as they were sent, and count as frames.
func testProbes(t *testing.T, n Network) {
	c := pair(t, n)
	before, err := c[0].Sample()
	must(t, err)
	for i := range c {
		for nonce := range uint64(3) {
			want := carrier.Probe{Willing: true, From: n.Peer(i).ID, To: n.Peer(1 - i).ID, Nonce: nonce + 1}
			must(t, c[i].Send(want))
			if got, err := c[1-i].Receive(); err != nil || got != want {
				t.Fatalf("received %+v, %v, want %+v", got, err, want)
			}
		}
	}
	after, err := c[0].Sample()
	must(t, err)
	if got := after.Frames - before.Frames; !after.Ready || got != 6 {
		t.Errorf("ready %v, %d frames, want 6", after.Ready, got)
	}
	var counts [2]carrier.Counts
	for i := range c {
		all, err := c[i].Counts()
		must(t, err)
		counts[i] = all[n.Peer(1-i).ID]
	}
	want := carrier.Counts{RxFrames: 3, RxBytes: counts[1].TxBytes, TxFrames: 3, TxBytes: counts[1].RxBytes}
	if counts[0] != want || counts[0].TxBytes < 3*carrier.ProbeLen || counts[1].TxFrames != 3 {
		t.Errorf("counted %+v", counts)
	}
}

// testFrames: frames go to a peer while it is carried, once.
func testFrames(t *testing.T, n Network) {
	c := pair(t, n)
	id := n.Peer(1).ID
	n.Broadcast(t, 0, "before")
	must(t, c[0].Carry(id, true, nil))
	must(t, c[0].Carry(id, true, []ether.Addr{{2, 1}}))
	arrives(t, n, 0, "carried")
	must(t, c[0].Carry(id, false, nil))
	n.Broadcast(t, 0, "between")
	must(t, c[0].Carry(id, true, nil))
	arrives(t, n, 0, "again")
	if _, err := c[0].SetPeers(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.Broadcast(t, 0, "removed")
	meet(t, c[0], n.Peer(1))
	n.Broadcast(t, 0, "not carried yet")
	must(t, c[0].Carry(id, true, nil))
	arrives(t, n, 0, "end")
}

// testUnknown: a peer that is not one of SetPeers gets neither probes nor frames.
func testUnknown(t *testing.T, n Network) {
	c := n.Open(t, 0)
	defer func() { must(t, c.Close()) }()
	to := n.Peer(1)
	send := func() error { return c.Send(carrier.Probe{From: n.Peer(0).ID, To: to.ID, Nonce: 1}) }
	wants(t, "Send", send(), carrier.ErrUnknownPeer)
	wants(t, "Carry", c.Carry(to.ID, true, nil), carrier.ErrUnknownPeer)
	must(t, c.Carry(to.ID, false, nil))
	meet(t, c, to)
	must(t, send())
	if got, err := c.SetPeers(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("SetPeers returned %v, %v", got, err)
	}
	wants(t, "Send to a removed peer", send(), carrier.ErrUnknownPeer)
}

// testGone: a carrier says that its device was deleted, and can be closed and opened again.
func testGone(t *testing.T, n Network) {
	c := pair(t, n)
	must(t, c[0].Carry(n.Peer(1).ID, true, nil))
	n.Delete(t, 0)
	_, err := c[0].Sample()
	wants(t, "Sample", err, carrier.ErrGone)
	must(t, c[0].Close())
	again := n.Open(t, 0)
	defer func() { must(t, again.Close()) }()
	meet(t, again, n.Peer(1))
	must(t, again.Carry(n.Peer(1).ID, true, nil))
	arrives(t, n, 0, "again")
}

// testClosed: a closed carrier returns from Receive, and does nothing more.
func testClosed(t *testing.T, n Network) {
	c := n.Open(t, 0)
	meet(t, c, n.Peer(1))
	ended := make(chan error)
	go func() {
		_, err := c.Receive()
		ended <- err
	}()
	must(t, c.Close())
	wants(t, "Receive", <-ended, net.ErrClosed)
	_, err := c.Receive()
	wants(t, "Receive", err, net.ErrClosed)
	_, err = c.Sample()
	wants(t, "Sample", err, net.ErrClosed)
	_, err = c.Counts()
	wants(t, "Counts", err, net.ErrClosed)
	_, err = c.SetPeers(t.Context(), nil)
	wants(t, "SetPeers", err, net.ErrClosed)
	wants(t, "Carry", c.Carry(n.Peer(1).ID, true, nil), net.ErrClosed)
	must(t, c.Close())
}

// testKept: after Keep, frames pass in both directions without a process, or the carrier leaves nothing behind.
func testKept(t *testing.T, n Network) {
	c := pair(t, n)
	for i := range c {
		must(t, c[i].Carry(n.Peer(1-i).ID, true, nil))
	}
	c[0].Keep()
	must(t, c[0].Close())
	if n.Keeps() {
		arrives(t, n, 0, "from the closed one")
		arrives(t, n, 1, "to the closed one")
	} else {
		n.Broadcast(t, 0, "from the closed one")
	}
	again := n.Open(t, 0)
	defer func() { must(t, again.Close()) }()
	meet(t, again, n.Peer(1))
	must(t, again.Carry(n.Peer(1).ID, true, nil))
	arrives(t, n, 0, "again")
}

// testRestored: Ensure restores what another program has removed.
func testRestored(t *testing.T, n Network) {
	c := pair(t, n)
	for i := range c {
		must(t, c[i].Carry(n.Peer(1-i).ID, true, nil))
	}
	n.Disturb(t, 0)
	must(t, c[0].Ensure(t.Context()))
	arrives(t, n, 0, "from the disturbed one")
	arrives(t, n, 1, "to the disturbed one")
}

// router is the userspace of a node, which always reaches the peers.
type router struct {
	*carrier.Controller
	mu      sync.Mutex
	carried []peer.ID // guarded by mu: by the kernel
}

func (r *router) SetKernel(id peer.ID, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carried = slices.DeleteFunc(r.carried, func(other peer.ID) bool { return other == id })
	if on {
		r.carried = append(r.carried, id)
	}
}

func (r *router) ReleaseMACs(peer.ID) []ether.Addr             { return nil }
func (r *router) MovedMACs(peer.ID, []ether.Addr) []ether.Addr { return nil }
func (r *router) ProvePeer(peer.ID)                            {}
func (r *router) LastHeard(peer.ID) time.Time                  { return time.Now() }

// awaits waits until the carrier carries the peer, or does not.
func (r *router) awaits(t *testing.T, id peer.ID, want bool) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if slices.Contains(r.carried, id) != want || r.Carries(id) != want {
			return fmt.Errorf("carried: %v, want %s: %v", r.carried, id, want)
		}
		return nil
	})
}

// run runs the Controllers of both nodes until stop is called, with the number of a node, or the test ends.
func run(t *testing.T, n Network) (routers [2]*router, stop func(i int)) {
	t.Helper()
	var stops [2]func()
	for i := range routers {
		r := &router{}
		c, err := carrier.New(carrier.ControllerConfig{
			Carrier: n.Open(t, i), Self: n.Peer(i).ID, Router: r, Logger: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		r.Controller, routers[i] = c, r
		c.SetPeers([]carrier.Peer{n.Peer(1 - i)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		stops[i] = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		t.Cleanup(stops[i])
	}
	for i, r := range routers {
		r.awaits(t, n.Peer(1-i).ID, true)
	}
	return routers, func(i int) { stops[i]() }
}

// testMoves: Controllers prove the carrier, leave it when the underlay loses everything, and return.
func testMoves(t *testing.T, n Network) {
	routers, _ := run(t, n)
	arrives(t, n, 0, "proven")
	n.Break(t, true)
	for i, r := range routers {
		r.awaits(t, n.Peer(1-i).ID, false)
	}
	n.Broadcast(t, 0, "broken")
	n.Break(t, false)
	for i, r := range routers {
		r.awaits(t, n.Peer(1-i).ID, true)
	}
	arrives(t, n, 1, "proven again")
	arrives(t, n, 0, "both ways")
}

// testGoodbye: a Controller that ends has the peer leave the carrier.
func testGoodbye(t *testing.T, n Network) {
	routers, stop := run(t, n)
	stop(1)
	routers[0].awaits(t, n.Peer(1).ID, false)
}
