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

// MaxTunnel is the length in bytes of the longest message that is passed to a Tunnel.
const MaxTunnel = 1240

// Tunnel carries gossip to nodes that cannot be reached at their gossip address, because they can only dial out or
// because the link is broken. It uses the sessions of the datapath and its relays (docs/adr/0017-dial-out-nodes.md). Its methods
// are called from several goroutines, and must not block.
type Tunnel interface {
	// Send sends msg, of at most MaxTunnel bytes, to the other node's Mesh.FromTunnel. The message may be lost, repeated
	// or reordered. Send does not keep msg.
	Send(to peer.ID, msg []byte) error
	// Open reports whether the tunnel reaches a node at present, so that a message is sent at once.
	Open(to peer.ID) bool
}

// The kinds of messages in a tunnel, in their first byte.
const (
	tunnelPacket   = 1 // a packet of memberlist's
	tunnelFragment = 2 // see fragment.go
	tunnelAck      = 3
)

// errDialOut is the error of an attempt to open a stream to a node that accepts no connections.
var errDialOut = errors.New("mesh: the node can only dial out")

const (
	// heardFor is how long an address is assumed to work after a packet came from it.
	heardFor = time.Minute
	// maxHeard bounds the addresses for which the time of their latest packet is kept.
	maxHeard = maxMembers
	// packetQueue is how many received packets may wait for memberlist; further ones wait in the transport.
	packetQueue = 64
	// tunnelQueue is how many messages from the tunnel may wait; further ones are dropped and counted.
	tunnelQueue = 256
)

// tunneled is memberlist's transport: the network, and beside it the tunnel.
type tunneled struct {
	memberlist.Transport // constant

	// constant
	mesh    *Mesh
	packets chan *memberlist.Packet
	inbox   chan tunnelMessage
	stop    chan struct{} // closed by Shutdown
	once    sync.Once

	mu    sync.Mutex
	heard map[string]time.Time // guarded by mu: when the latest packet came, by address
}

// tunnelMessage is a message from the tunnel.
type tunnelMessage struct {
	from peer.ID
	kind byte
	body []byte
}

var _ memberlist.NodeAwareTransport = (*tunneled)(nil)

func newTunneled(m *Mesh) *tunneled {
	return &tunneled{
		Transport: m.cfg.Transport, mesh: m, packets: make(chan *memberlist.Packet, packetQueue),
		inbox: make(chan tunnelMessage, tunnelQueue), stop: make(chan struct{}),
		heard: make(map[string]time.Time),
	}
}

// run passes packets from the network to memberlist until Shutdown.
func (t *tunneled) run() {
	for {
		select {
		case <-t.stop:
			return
		case p := <-t.Transport.PacketCh():
			t.recordHeard(p.From.String())
			select {
			case t.packets <- p:
			case <-t.stop:
			}
		}
	}
}

// runTunnel handles messages from the tunnel until Shutdown.
func (t *tunneled) runTunnel() {
	for {
		select {
		case <-t.stop:
			return
		case m := <-t.inbox:
			t.mesh.handleTunnelMessage(m)
		}
	}
}

// recordHeard records that a packet came from addr. At the bound all other addresses are forgotten.
func (t *tunneled) recordHeard(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.heard[addr]; !known && len(t.heard) >= maxHeard {
		clear(t.heard)
	}
	t.heard[addr] = time.Now()
}

// heardLately reports whether a packet came from addr within heardFor.
func (t *tunneled) heardLately(addr string) bool {
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

// WriteToAddress implements memberlist.NodeAwareTransport. It sends a packet through the tunnel to a node that can only
// dial out, both through the tunnel and to its address to a node from which no packet came lately, and to their address
// to all other nodes.
func (t *tunneled) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	id, known := idOf(to.Name)
	if t.mesh.cfg.Tunnel == nil || !known {
		return t.Transport.WriteTo(b, to.Addr)
	}
	dialOut := t.mesh.links.dialOut(id)
	unheard := !t.mesh.links.dialOut(t.mesh.cfg.Identity.ID) && !t.heardLately(to.Addr) && t.mesh.cfg.Tunnel.Open(id)
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

// idOf returns the ID in a name that nodeName made.
func idOf(name string) (peer.ID, bool) {
	text, _, _ := strings.Cut(name, "@")
	id, err := peer.ParseID(text)
	return id, err == nil
}

// FromTunnel accepts a message that another node's mesh sent through its Tunnel. It may be called from any goroutine,
// does not block, and does not keep msg.
func (m *Mesh) FromTunnel(from peer.ID, msg []byte) {
	if len(msg) < 1 {
		m.countMalformed(from)
		return
	}
	select {
	case m.transport.inbox <- tunnelMessage{from, msg[0], append([]byte(nil), msg[1:]...)}:
	default:
		m.drops.queueFull.Add(1)
	}
}

// handleTunnelMessage handles one message from the tunnel. It keeps the body.
func (m *Mesh) handleTunnelMessage(msg tunnelMessage) {
	switch msg.kind {
	case tunnelPacket:
		member, known := m.roster.lookup(msg.from)
		if !known {
			return
		}
		p := &memberlist.Packet{Buf: msg.body, From: net.UDPAddrFromAddrPort(member.GossipAddr()), Timestamp: time.Now()}
		select {
		case m.transport.packets <- p:
		case <-m.transport.stop:
		}
	case tunnelFragment:
		m.fragments.receiveFragment(msg.from, msg.body)
	case tunnelAck:
		m.fragments.receiveAck(msg.from, msg.body)
	default:
		m.countUnknown(msg.from, "tunnel", msg.kind)
	}
}
