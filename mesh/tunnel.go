package mesh

import (
	"errors"
	"strings"
	"time"

	"weft/internal/peer"
	"weft/mesh/fragment"
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
	tunnelPacket   = 1 // a sealed packet
	tunnelFragment = fragment.Kind
	tunnelAck      = fragment.AckKind
)

// errDialOut is the error of an attempt to open a stream to a node that accepts no connections.
var errDialOut = errors.New("mesh: the node can only dial out")

// tunnelMessage is a message from the tunnel.
type tunnelMessage struct {
	from peer.ID
	kind byte
	body []byte
}

// runTunnel handles messages from the tunnel until Shutdown.
func (t *sealedTransport) runTunnel() {
	for {
		select {
		case <-t.stop:
			return
		case m := <-t.inbox:
			t.mesh.handleTunnelMessage(m)
		}
	}
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
		m.transport.receivePacket(msg.body, origin{tunnel: msg.from}, time.Now())
	case tunnelFragment:
		whole, err := m.fragments.Receive(msg.from, msg.body)
		if err != nil {
			m.countMalformed(msg.from)
		} else if whole != nil {
			m.handleUnicast(msg.from, whole)
		}
	case tunnelAck:
		if m.fragments.ReceiveAck(msg.from, msg.body) != nil {
			m.countMalformed(msg.from)
		}
	default:
		m.countUnknown(msg.from, "tunnel", msg.kind)
	}
}
