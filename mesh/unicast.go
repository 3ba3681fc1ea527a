package mesh

import (
	"context"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/mesh/seal"
)

// unicastSenders is how many unicasts are sent at once. Each uses a stream, and a stream may hang until its timeout.
const unicastSenders = 8

// unicastQueue is how many unicasts may wait to be sent. Further ones are dropped and counted.
const unicastQueue = 256

// outgoing is a unicast that waits to be sent.
type outgoing struct {
	id  peer.ID
	to  netip.AddrPort
	msg []byte
}

// enqueue appends o to the unicasts to be sent. It does not block: the error is ErrQueueFull.
func (m *Mesh) enqueue(o outgoing) error {
	select {
	case m.unicasts <- o:
		return nil
	default:
		m.drops.queueFull.Add(1)
		return ErrQueueFull
	}
}

// sendUnicasts sends queued unicasts until ctx ends.
func (m *Mesh) sendUnicasts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-m.unicasts:
			if err := m.send(ctx, o); err != nil {
				m.drops.unsent.Add(1)
				m.log.Debug("message not sent", "addr", o.to, "err", err)
			}
		}
	}
}

// send sends a unicast over a stream, or in fragments through the tunnel when no stream reaches the member.
func (m *Mesh) send(ctx context.Context, o outgoing) error {
	err := errDialOut
	if !m.links.dialOut(o.id) {
		err = m.transport.sendUnicast(o)
		if err == nil || m.cfg.Tunnel == nil || !m.cfg.Tunnel.Open(o.id) {
			return err
		}
	}
	if m.cfg.Tunnel == nil {
		return err
	}
	return m.fragments.Send(ctx, o.id, o.msg)
}

// sendUnicast sends a unicast over a stream, and waits until its receiver has handled it.
func (t *sealedTransport) sendUnicast(o outgoing) error {
	s, err := t.openStream(o.to.String(), o.id, streamTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := s.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	if err := s.session.WriteMessage(s.Conn, seal.Unicast, o.msg); err != nil {
		return err
	}
	return s.awaitStatus(t, o.to.String())
}

// handleUnicast handles a unicast of a node that has proven its ID, by a stream or by its session: kind, channel, from,
// to, payload.
func (m *Mesh) handleUnicast(sender peer.ID, msg []byte) {
	const header = 1 + 1 + 8 + 8
	if len(msg) < header {
		m.countMalformed(sender)
		return
	}
	if kind(msg[0]) != kindUnicast {
		m.countUnknown(sender, "message", msg[0])
		return
	}
	if peer.ID(msg[2:]) != sender || peer.ID(msg[10:]) != m.cfg.Identity.ID {
		m.drops.misdirected.Add(1)
		return
	}
	c, ok := m.channels[ChannelID(msg[1])]
	if !ok {
		m.countUnknown(sender, "channel", msg[1])
		return
	}
	if err := c.Message(sender, msg[header:]); err != nil {
		m.rejected.record(&m.drops.rejected, sender, err)
	}
}
