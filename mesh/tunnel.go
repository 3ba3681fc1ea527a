package mesh

import (
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
)

// MaxTunnel is the longest message in bytes that is given to a Tunnel.
const MaxTunnel = 1240

// Tunnel carries gossip to nodes that are not reached at their gossip address, as they can only dial out or as the link
// is broken: over the sessions of the data plane, and its relays.
type Tunnel interface {
	// Send sends msg, of at most MaxTunnel bytes, to the other's FromTunnel. It may be lost. It does not keep msg.
	Send(to peer.ID, msg []byte) error
	// Open reports whether it leads to a node at present, without any delay.
	Open(to peer.ID) bool
}

// What goes through a tunnel: a byte that says which, and
const (
	tunnelPacket = 1 // one of memberlist's packets
	tunnelPart   = 2 // see letter.go
	tunnelAck    = 3
)

// errDialOut is the error of an attempt to open a stream to a node that nobody can dial.
var errDialOut = errors.New("mesh: it can only dial out")

// heardFor is how long a node that was heard from its gossip address is taken to be reached there.
const heardFor = time.Minute

// maxHeard bounds of how many addresses is remembered when they were heard from.
const maxHeard = maxMembers

// tunneled is the transport under a mesh, with the tunnel beside it.
type tunneled struct {
	memberlist.Transport
	mesh    *Mesh
	packets chan *memberlist.Packet
	inbox   chan tunnelMessage
	stop    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	heard map[string]time.Time // guarded by mu: by address
}

var _ memberlist.NodeAwareTransport = (*tunneled)(nil)

func newTunneled(m *Mesh) *tunneled {
	return &tunneled{
		Transport: m.cfg.Transport, mesh: m, packets: make(chan *memberlist.Packet, 64),
		inbox: make(chan tunnelMessage, tunnelQueue), stop: make(chan struct{}),
		heard: make(map[string]time.Time),
	}
}

// run takes packets from the network until Shutdown.
func (t *tunneled) run() {
	for {
		select {
		case <-t.stop:
			return
		case p := <-t.Transport.PacketCh():
			t.note(p.From.String())
			select {
			case t.packets <- p:
			case <-t.stop:
			}
		}
	}
}

// runTunnel takes what comes through the tunnel until Shutdown.
func (t *tunneled) runTunnel() {
	for {
		select {
		case <-t.stop:
			return
		case m := <-t.inbox:
			t.mesh.fromTunnel(m.from, m.kind, m.body)
		}
	}
}

func (t *tunneled) note(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.heard[addr]; !known && len(t.heard) >= maxHeard {
		clear(t.heard)
	}
	t.heard[addr] = time.Now()
}

// reached reports whether a packet has come from addr lately.
func (t *tunneled) reached(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, known := t.heard[addr]
	return known && time.Since(at) < heardFor
}

// PacketCh implements memberlist.Transport.
func (t *tunneled) PacketCh() <-chan *memberlist.Packet { return t.packets }

// WriteTo implements memberlist.Transport.
func (t *tunneled) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. To a node that can only dial out a packet goes through the
// tunnel, to one of which nothing is heard at its address both ways, and to all others to their address.
func (t *tunneled) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	id, known := idOf(to.Name)
	if t.mesh.cfg.Tunnel == nil || !known {
		return t.Transport.WriteTo(b, to.Addr)
	}
	dialOut := t.mesh.links.dialOut(id)
	unheard := !t.mesh.links.dialOut(t.mesh.cfg.Identity.ID) && !t.reached(to.Addr) && t.mesh.cfg.Tunnel.Open(id)
	if dialOut || unheard {
		if err := t.mesh.cfg.Tunnel.Send(id, append([]byte{tunnelPacket}, b...)); err != nil {
			t.mesh.log.Debug("gossip not tunneled", "peer", id, "err", err)
		}
	}
	if dialOut {
		return time.Now(), nil
	}
	return t.Transport.WriteTo(b, to.Addr)
}

// DialTimeout implements memberlist.Transport.
func (t *tunneled) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *tunneled) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if id, known := idOf(to.Name); known && t.mesh.links.dialOut(id) {
		return nil, errDialOut
	}
	return t.Transport.DialTimeout(to.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (t *tunneled) Shutdown() error {
	t.once.Do(func() { close(t.stop) })
	return t.Transport.Shutdown()
}

// idOf returns the ID in a memberlist name.
func idOf(name string) (peer.ID, bool) {
	text, _, _ := strings.Cut(name, "@")
	id, err := peer.ParseID(text)
	return id, err == nil
}

// tunnelMessage is what came through the tunnel.
type tunnelMessage struct {
	from peer.ID
	kind byte
	body []byte
}

// tunnelQueue is how many of them may wait.
const tunnelQueue = 256

// FromTunnel takes what another node's mesh gave to its tunnel. It may be called from any goroutine, does not block, and
// does not keep msg.
func (m *Mesh) FromTunnel(from peer.ID, msg []byte) {
	if len(msg) < 1 {
		m.malformed(from)
		return
	}
	select {
	case m.transport.inbox <- tunnelMessage{from, msg[0], append([]byte(nil), msg[1:]...)}:
	default:
		m.drops.queueFull.Add(1)
	}
}

func (m *Mesh) fromTunnel(from peer.ID, kind byte, body []byte) {
	switch kind {
	case tunnelPacket:
		member, known := m.roster.lookup(from)
		if !known {
			return
		}
		p := &memberlist.Packet{Buf: body, From: net.UDPAddrFromAddrPort(member.GossipAddr()), Timestamp: time.Now()}
		select {
		case m.transport.packets <- p:
		case <-m.transport.stop:
		}
	case tunnelPart:
		m.letters.part(from, body)
	case tunnelAck:
		m.letters.ack(from, body)
	default:
		m.unknown(from, "tunnel", kind)
	}
}
