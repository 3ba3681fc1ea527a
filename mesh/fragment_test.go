package mesh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/mesh/fragment"
	"weft/mesh/topology"
)

// lossyTunnels connects the tunnels of the meshes of a test. It loses, repeats and reorders messages.
type lossyTunnels struct {
	mu     sync.Mutex
	rand   *rand.Rand        // guarded by mu
	meshes map[peer.ID]*Mesh // guarded by mu
	loss   float64           // guarded by mu
}

func newLossyTunnels(loss float64) *lossyTunnels {
	return &lossyTunnels{rand: rand.New(rand.NewPCG(1, 2)), meshes: make(map[peer.ID]*Mesh), loss: loss}
}

// testTunnel is the Tunnel of one mesh.
type testTunnel struct {
	*lossyTunnels
	self peer.ID
}

var _ Tunnel = testTunnel{}

func (w testTunnel) Send(to peer.ID, msg []byte) error {
	if len(msg) > MaxTunnel {
		return errors.New("longer than MaxTunnel")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.meshes[to]
	if m == nil || w.rand.Float64() < w.loss {
		return nil
	}
	msg = bytes.Clone(msg)
	for range 1 + w.rand.IntN(2) {
		time.AfterFunc(time.Duration(1+w.rand.IntN(20))*time.Millisecond, func() { m.FromTunnel(w.self, msg) })
	}
	return nil
}

func (w testTunnel) Open(peer.ID) bool { return true }

// idle returns a mesh of which only the tunnel runs.
func (w *lossyTunnels) idle(t *testing.T, net *network) *Mesh {
	t.Helper()
	id := nodeIdentity(t)
	m, err := New(Config{
		Identity: id, Transport: net.transport(t), Advertise: unusedAddr, Tunnel: testTunnel{w, id.ID},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.meshes[id.ID] = m
	w.mu.Unlock()
	go m.transport.runTunnel()
	t.Cleanup(func() { _ = m.transport.Shutdown() })
	return m
}

// inbox is a Channel that keeps its unicasts.
type inbox struct {
	mu   sync.Mutex
	msgs [][]byte // guarded by mu
}

func (*inbox) State() []byte      { return nil }
func (*inbox) Merge([]byte) error { return nil }
func (b *inbox) Message(_ peer.ID, m []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.msgs = append(b.msgs, m)
	return nil
}

// TestFragmentedMessagesArriveOnce: messages of all lengths arrive complete and once, although a third of the fragments is
// lost and half of the others arrive twice. A message that is too long is refused, and one without acknowledgement fails.
func TestFragmentedMessagesArriveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLossyTunnels(0.3)
		var net network
		from, to := w.idle(t, &net), w.idle(t, &net)
		got := &inbox{}
		to.Register(ChannelIPAM, got)
		header := append([]byte{byte(kindUnicast), byte(ChannelIPAM)}, from.cfg.Identity.ID[:]...)
		header = append(header, to.cfg.Identity.ID[:]...)
		var want [][]byte
		for _, n := range []int{0, 1, 1000 - len(header), 1001 - len(header), 5000, 100_000} {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(i * 7)
			}
			if err := from.fragments.Send(t.Context(), to.cfg.Identity.ID, append(bytes.Clone(header), body...)); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
			want = append(want, body)
		}
		time.Sleep(10 * time.Second) // fragments that still arrive are repetitions
		got.mu.Lock()
		defer got.mu.Unlock()
		if len(got.msgs) != len(want) {
			t.Fatalf("%d messages, want %d", len(got.msgs), len(want))
		}
		for i := range want {
			if !bytes.Equal(got.msgs[i], want[i]) {
				t.Errorf("message %d of %d bytes arrived with %d", i, len(want[i]), len(got.msgs[i]))
			}
		}
		if err := from.fragments.Send(t.Context(), to.cfg.Identity.ID, make([]byte, 256_001)); !errors.Is(err, fragment.ErrTooLong) {
			t.Errorf("too long: %v", err)
		}
		w.mu.Lock()
		w.loss = 1
		w.mu.Unlock()
		if err := from.fragments.Send(t.Context(), to.cfg.Identity.ID, header); !errors.Is(err, fragment.ErrNotAcked) {
			t.Errorf("all fragments lost: %v", err)
		}
		_ = from.transport.Shutdown()
		_ = to.transport.Shutdown()
	})
}

// FuzzFromTunnel: the mesh handles or counts every message from the tunnel.
func FuzzFromTunnel(f *testing.F) {
	part := binary.BigEndian.AppendUint64([]byte{tunnelFragment}, 7)
	f.Add(append(part, 0, 0, 0, 1, byte(kindUnicast), byte(ChannelIPAM)))
	f.Add(append(part, 0, 1, 0, 2, 9))
	f.Add(append(part, 255, 255, 255, 255))
	f.Add(binary.BigEndian.AppendUint64([]byte{tunnelAck}, 7))
	f.Add(append(binary.BigEndian.AppendUint64([]byte{tunnelAck}, 7), 0, 0))
	f.Add([]byte{tunnelPacket, 1, 2, 3})
	f.Add([]byte{99})
	f.Add([]byte{})
	id, err := NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	m, err := New(Config{
		Identity: id, Transport: &transport{net: &network{}}, Advertise: unusedAddr, Tunnel: testTunnel{newLossyTunnels(1), id.ID},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		m.FromTunnel(peer.ID{1}, b)
		for len(m.transport.inbox) > 0 {
			msg := <-m.transport.inbox
			m.handleTunnelMessage(msg)
		}
	})
}

// TestDialOutNodeGossips: a node that accepts no connections takes part in gossip through the tunnel: it receives
// broadcasts and unicasts, and stays alive for the other nodes.
func TestDialOutNodeGossips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		w := newLossyTunnels(0.1)
		tunnel := func(c *Config) { c.Tunnel = testTunnel{w, c.Identity.ID} }
		a := startWith(t, &net, "a", nodeIdentity(t), tunnel)
		b := startWith(t, &net, "b", nodeIdentity(t), tunnel, a)
		dialOut := startWith(t, &net, "dial-out", nodeIdentity(t), tunnel, a, b)
		w.mu.Lock()
		for _, n := range []*node{a, b, dialOut} {
			w.meshes[n.cfg.Identity.ID] = n.Mesh
		}
		w.mu.Unlock()
		eventually(t, "every node knows every node", func() bool { return alive(a) == 3 && alive(b) == 3 && alive(dialOut) == 3 })
		dialOut.SetLinks(topology.Links{DialOut: true, Open: []peer.ID{a.cfg.Identity.ID, b.cfg.Identity.ID}})
		eventually(t, "the others know that it can only dial out", func() bool {
			return a.links.dialOut(dialOut.cfg.Identity.ID) && b.links.dialOut(dialOut.cfg.Identity.ID)
		})
		net.closeTo(dialOut.transport.addr)
		time.Sleep(2 * time.Minute) // of the bubble's clock: many probes
		for _, n := range []*node{a, b, dialOut} {
			if alive(n) != 3 {
				t.Errorf("%s sees %d alive", n.cfg.Name, alive(n))
			}
		}
		if err := a.Sender(ChannelIPAM).Unicast(dialOut.cfg.Identity.ID, bytes.Repeat([]byte("u"), 5000)); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		a.heard["broadcast"] = true
		a.mu.Unlock()
		if err := a.Sender(ChannelIPAM).Broadcast([]byte("broadcast")); err != nil {
			t.Error(err)
		}
		eventually(t, "it receives both", func() bool {
			dialOut.mu.Lock()
			defer dialOut.mu.Unlock()
			return dialOut.heard["broadcast"] && len(dialOut.messages) == 1 && len(dialOut.messages[0]) > 5000
		})
		stopAll(a, b, dialOut)
	})
}

// alive returns how many members a node sees alive.
func alive(n *node) (count int) {
	for _, m := range n.Members() {
		if m.State == StateAlive {
			count++
		}
	}
	return count
}
