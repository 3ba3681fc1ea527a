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
	"weft/mesh/topology"
)

// wires is the data plane of a test: it takes what one mesh gives its tunnel to the other, and loses, repeats and swaps it.
type wires struct {
	mu     sync.Mutex
	rand   *rand.Rand        // guarded by mu
	meshes map[peer.ID]*Mesh // guarded by mu
	loss   float64           // guarded by mu
}

func newWires(loss float64) *wires {
	return &wires{rand: rand.New(rand.NewPCG(1, 2)), meshes: make(map[peer.ID]*Mesh), loss: loss}
}

// wire is one mesh's end.
type wire struct {
	*wires
	self peer.ID
}

var _ Tunnel = wire{}

func (w wire) Send(to peer.ID, msg []byte) error {
	if len(msg) > MaxTunnel {
		return errors.New("too long for the tunnel")
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

func (w wire) Open(peer.ID) bool { return true }

// idle returns a mesh that does not run, but for its end of the tunnel.
func (w *wires) idle(t *testing.T, net *network) *Mesh {
	t.Helper()
	id := identity(t)
	m, err := New(Config{
		Identity: id, Transport: net.transport(t), Advertise: nobodyAddr, Tunnel: wire{w, id.ID},
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

// inbox is a channel that keeps what it is sent.
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

// TestLettersArriveOnce: letters of all lengths arrive whole and once, though a third of what carries them is lost and
// half of the rest comes twice; one that is too long is refused, and one that nobody acknowledges given up.
func TestLettersArriveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(0.3)
		var net network
		from, to := w.idle(t, &net), w.idle(t, &net)
		got := &inbox{}
		to.Register(ChannelIPAM, got)
		header := append([]byte{byte(kindUnicast), byte(ChannelIPAM)}, from.cfg.Identity.ID[:]...)
		header = append(header, to.cfg.Identity.ID[:]...)
		var want [][]byte
		for _, n := range []int{0, 1, letterPart - len(header), letterPart - len(header) + 1, 5 * letterPart, 100 * letterPart} {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(i * 7)
			}
			if err := from.letters.send(t.Context(), to.cfg.Identity.ID, append(bytes.Clone(header), body...)); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
			want = append(want, body)
		}
		time.Sleep(10 * time.Second) // what still comes is of letters that are whole
		got.mu.Lock()
		defer got.mu.Unlock()
		if len(got.msgs) != len(want) {
			t.Fatalf("%d letters, want %d", len(got.msgs), len(want))
		}
		for i := range want {
			if !bytes.Equal(got.msgs[i], want[i]) {
				t.Errorf("letter %d of %d bytes came as %d", i, len(want[i]), len(got.msgs[i]))
			}
		}
		if err := from.letters.send(t.Context(), to.cfg.Identity.ID, make([]byte, letterPart*letterParts+1)); !errors.Is(err, ErrTooLong) {
			t.Errorf("too long: %v", err)
		}
		w.mu.Lock()
		w.loss = 1
		w.mu.Unlock()
		if err := from.letters.send(t.Context(), to.cfg.Identity.ID, header); !errors.Is(err, errLetter) {
			t.Errorf("into the void: %v", err)
		}
		if n := len(from.letters.sending); n != 0 {
			t.Errorf("%d letters are still under way", n)
		}
		_ = from.transport.Shutdown()
		_ = to.transport.Shutdown()
	})
}

// FuzzFromTunnel: whatever comes through the tunnel is taken or counted, and what is kept of it is bounded.
func FuzzFromTunnel(f *testing.F) {
	part := binary.BigEndian.AppendUint64([]byte{tunnelPart}, 7)
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
	m, err := New(Config{Identity: id, Transport: &transport{net: &network{}}, Advertise: nobodyAddr, Tunnel: wire{newWires(1), id.ID}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m.FromTunnel(peer.ID{1}, b)
		for len(m.transport.inbox) > 0 {
			msg := <-m.transport.inbox
			m.fromTunnel(msg.from, msg.kind, msg.body)
		}
		kept := 0
		for _, r := range m.letters.coming {
			for _, p := range r.parts {
				kept += len(p)
			}
		}
		if len(m.letters.coming) > maxLetters || len(m.letters.received) > maxReceived || kept > maxLetters*letterParts*letterPart {
			t.Errorf("%d letters of %d bytes kept, %d remembered", len(m.letters.coming), kept, len(m.letters.received))
		}
	})
}

// TestDialOutNodeGossips: a node that nobody can dial takes part in gossip through the tunnel: it hears broadcasts, gets
// unicasts, and stays alive to the others.
func TestDialOutNodeGossips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		w := newWires(0.1)
		tunnel := func(c *Config) { c.Tunnel = wire{w, c.Identity.ID} }
		a := startWith(t, &net, "a", identity(t), tunnel)
		b := startWith(t, &net, "b", identity(t), tunnel, a)
		inside := startWith(t, &net, "inside", identity(t), tunnel, a, b)
		w.mu.Lock()
		for _, n := range []*node{a, b, inside} {
			w.meshes[n.cfg.Identity.ID] = n.Mesh
		}
		w.mu.Unlock()
		eventually(t, "all know all", func() bool { return alive(a) == 3 && alive(b) == 3 && alive(inside) == 3 })
		inside.SetLinks(topology.Links{DialOut: true, Open: []peer.ID{a.cfg.Identity.ID, b.cfg.Identity.ID}})
		eventually(t, "the others know how it is reached", func() bool {
			return a.links.dialOut(inside.cfg.Identity.ID) && b.links.dialOut(inside.cfg.Identity.ID)
		})
		net.closeTo(inside.transport.addr)
		time.Sleep(2 * time.Minute) // of the bubble's clock: many probes
		for _, n := range []*node{a, b, inside} {
			if alive(n) != 3 {
				t.Errorf("%s sees %d alive", n.cfg.Name, alive(n))
			}
		}
		if err := a.Sender(ChannelIPAM).Unicast(inside.cfg.Identity.ID, bytes.Repeat([]byte("u"), 5000)); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		a.heard["news"] = true
		a.mu.Unlock()
		if err := a.Sender(ChannelIPAM).Broadcast([]byte("news")); err != nil {
			t.Error(err)
		}
		eventually(t, "it hears both", func() bool {
			inside.mu.Lock()
			defer inside.mu.Unlock()
			return inside.heard["news"] && len(inside.messages) == 1 && len(inside.messages[0]) > 5000
		})
		stopAll(a, b, inside)
	})
}

// alive is how many members a node sees alive.
func alive(n *node) (count int) {
	for _, m := range n.Members() {
		if m.State == StateAlive {
			count++
		}
	}
	return count
}
