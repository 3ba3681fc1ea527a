package ipam

import (
	"errors"
	"fmt"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
)

// maxPeers bounds how many nodes are remembered as senders, and as requesters with the last answer to them. maxUnreachable
// bounds those senders that no message reaches, which may be made up.
const (
	maxPeers       = 4096
	maxUnreachable = 64
)

// Message handles a message that another allocator sent by Gossip.Unicast. An error means that the message cannot be
// used: it wraps ErrMessage, ring.ErrEncoding, ring.ErrRange, paxos.ErrEncoding or is a *ring.ClusterMismatchError.
// Other failures, such as a failed write, are logged: the sender repeats its message.
func (a *Allocator) Message(from peer.ID, msg []byte) error {
	err := a.handle(from, msg)
	if _, mismatch := errors.AsType[*ring.ClusterMismatchError](err); err == nil || mismatch {
		return err
	}
	for _, unusable := range []error{ErrMessage, ring.ErrEncoding, ring.ErrRange, paxos.ErrEncoding} {
		if errors.Is(err, unusable) {
			return err
		}
	}
	a.cfg.Logger.Warn("message not handled", "peer", from, "err", err)
	return nil
}

func (a *Allocator) handle(from peer.ID, msg []byte) error {
	if from == a.cfg.Self || from.IsZero() {
		return fmt.Errorf("%w: from %s", ErrMessage, from)
	}
	if len(msg) > 1 && messageKind(msg[1]).ofReclaim() {
		return a.handleReclaim(from, msg)
	}
	m, err := decodeUnicast(msg)
	if err != nil {
		return err
	}
	return a.do(func() error {
		if n := len(a.senders); n < maxUnreachable || n < maxPeers && a.cfg.Membership.Reachable(from) {
			a.senders[from] = struct{}{}
		}
		switch m.kind {
		case kindRequest:
			return a.handleRequest(from, &m)
		case kindReply:
			return a.handleReply(from, &m)
		case kindHandover:
			return a.handleHandover(from, &m)
		default:
			return fmt.Errorf("%w: of kind %d, of a later weft", ErrMessage, m.kind)
		}
	})
}

// handleReclaim handles a message of a reclaim instance.
func (a *Allocator) handleReclaim(from peer.ID, msg []byte) error {
	m, err := decodeReclaim(msg)
	if err != nil {
		return err
	}
	return a.do(func() error {
		switch m.kind {
		case kindBallot:
			return a.handleBallot(from, &m)
		case kindAnswer:
			return a.handleAnswer(from, &m)
		default:
			return a.handleCommit(&m)
		}
	})
}

// mergeFrom merges the ring of a message, and returns its pool. The caller holds mu.
func (a *Allocator) mergeFrom(from peer.ID, m *unicast) (*pool, error) {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return nil, err
	}
	if p := a.pool(incoming.Range()); p != nil {
		if err := a.unfence(p, from); err != nil { // it is alive
			return nil, err
		}
	}
	if err := a.mergeRing(incoming, fromGossip); err != nil {
		return nil, err
	}
	return a.pool(incoming.Range()), nil
}
