package mesh

import (
	"context"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
)

// unicastSenders is how many unicasts are sent at once. Each uses a stream, and a stream may hang until its timeout.
const unicastSenders = 8

// unicastQueue is how many unicasts may wait to be sent. Further ones are dropped and counted.
const unicastQueue = 256

// outgoing is a unicast that waits to be sent.
type outgoing struct {
	id  peer.ID // zero: the node at the address, of unknown ID
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
	list := m.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	err := errDialOut
	if o.id.IsZero() || !m.links.dialOut(o.id) {
		to := &memberlist.Node{Name: nodeName(o.id, o.to), Addr: o.to.Addr().AsSlice(), Port: o.to.Port()}
		err = list.SendReliable(to, o.msg)
		if err == nil || o.id.IsZero() || m.cfg.Tunnel == nil || !m.cfg.Tunnel.Open(o.id) {
			return err
		}
	}
	if m.cfg.Tunnel == nil {
		return err
	}
	return m.fragments.send(ctx, o.id, o.msg)
}
