package ipam

import "weft/internal/peer"

// outbox holds the messages that are sent once the Allocator's mu is released: every message of an Allocator leaves
// through it, in order. A message about a change is added after the change is durable. The caller holds mu.
type outbox struct{ messages []outgoing }

// outgoing is a message in the outbox.
type outgoing struct {
	to     peer.ID // zero: all nodes
	msg    []byte
	onSent func(error) // may be nil
}

// broadcast adds deltas for all nodes.
func (o *outbox) broadcast(deltas [][]byte) {
	for _, d := range deltas {
		o.messages = append(o.messages, outgoing{msg: d})
	}
}

// unicast adds a message for one node.
func (o *outbox) unicast(to peer.ID, msg []byte) {
	o.messages = append(o.messages, outgoing{to: to, msg: msg})
}

// unicastThen adds a message for one node; onSent is called with the error of Gossip.Unicast, with nothing locked.
func (o *outbox) unicastThen(to peer.ID, msg []byte, onSent func(error)) {
	o.messages = append(o.messages, outgoing{to: to, msg: msg, onSent: onSent})
}

// drain removes and returns all messages.
func (o *outbox) drain() []outgoing {
	messages := o.messages
	o.messages = nil
	return messages
}

// send sends messages that were drained from the outbox. Nothing is locked.
func (a *Allocator) send(messages []outgoing) {
	for _, o := range messages {
		if o.to.IsZero() {
			a.cfg.Gossip.Broadcast(o.msg)
			continue
		}
		err := a.cfg.Gossip.Unicast(o.to, o.msg)
		switch {
		case o.onSent != nil:
			o.onSent(err)
		case err != nil:
			a.cfg.Logger.Debug("message not sent", "peer", o.to, "err", err)
		}
	}
}
