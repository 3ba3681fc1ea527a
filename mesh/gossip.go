package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
)

// MaxBroadcast is the largest broadcast in bytes: one must fit a UDP packet of memberlist's beside its headers.
const MaxBroadcast = 1024

// maxQueued is how many broadcasts may wait; beyond it those go that have been sent most often.
const maxQueued = 4096

// unicastQueue is how many messages may wait to be sent; further ones are dropped and counted.
const unicastQueue = 256

// Errors of a Sender.
var (
	ErrTooLong   = errors.New("mesh: broadcast too long")
	ErrUnknown   = errors.New("mesh: no such member")
	ErrQueueFull = errors.New("mesh: too many messages wait to be sent")
)

// ChannelID tells the gossip of the engines apart on the wire.
type ChannelID uint8

// ChannelIPAM is the allocators' channel, ChannelDNS that of names; 2 is that of links.
const (
	ChannelIPAM ChannelID = 1
	ChannelDNS  ChannelID = 3
)

// Channel is one engine's gossip. Its methods are called from the mesh's goroutines, also concurrently, and must not
// block. Slices given to them are theirs to keep.
type Channel interface {
	// State returns the full state, sent in a push/pull to a node that joins and now and then to others.
	State() []byte
	// Merge applies a broadcast or a full state. The mesh forwards nothing: the engine broadcasts the part that was new to it,
	// with its Sender, before Merge returns or later. An error is about the part that could not be used; the rest is applied.
	Merge(msg []byte) error
	// Message takes in a unicast. An error says that it could not be used.
	Message(from peer.ID, msg []byte) error
}

// Sender sends the gossip of one channel. Its methods may be called concurrently, and do not block.
type Sender struct {
	mesh    *Mesh
	channel ChannelID
}

// Broadcast sends msg, of at most MaxBroadcast bytes, to every member, with high probability and in a time that grows
// with the logarithm of their number. Messages may be lost or arrive again: Channel.State makes up for it.
func (s Sender) Broadcast(msg []byte) error {
	if len(msg) > MaxBroadcast {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(msg), MaxBroadcast)
	}
	if s.mesh.numMembers() <= 1 {
		return nil // nobody to hear it; who joins gets the full state
	}
	s.mesh.queue.QueueBroadcast(&broadcast{append([]byte{byte(kindBroadcast), byte(s.channel)}, msg...), time.Now()})
	s.mesh.queue.Prune(maxQueued)
	return nil
}

// Unicast sends msg to one member over a stream: it arrives once, in no particular order, unless one of the two fails
// meanwhile, of which the sender hears nothing.
func (s Sender) Unicast(to peer.ID, msg []byte) error {
	m, known := s.mesh.roster.lookup(to)
	if !known || m.State != StateAlive {
		return fmt.Errorf("%w: %s", ErrUnknown, to)
	}
	env := []byte{byte(kindUnicast), byte(s.channel)}
	env = append(env, s.mesh.cfg.Identity.ID[:]...)
	env = append(env, to[:]...)
	env = append(env, msg...)
	return s.mesh.enqueue(outgoing{id: to, to: m.GossipAddr(), msg: env})
}

// kind is the first byte of each of weft's messages in memberlist.
type kind uint8

const (
	kindBroadcast kind = 1 // channel, payload
	kindUnicast   kind = 2 // channel, from (8), to (8), payload
	kindInstance  kind = 3 // see conflict.go
)

// broadcast is a message in memberlist's queue.
type broadcast struct {
	msg    []byte
	queued time.Time
}

// staleAfter is how long a broadcast may wait in the queue. memberlist sends first what it has sent least often: while
// there is more news than packets, what is old would wait, and be sent in the end when it is of no use to anybody.
const staleAfter = 10 * time.Second

// Invalidates implements memberlist.Broadcast: deltas do not replace one another, but the new drives out the stale.
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && b.queued.Sub(o.queued) > staleAfter
}

// Message implements memberlist.Broadcast.
func (b *broadcast) Message() []byte { return b.msg }

// Finished implements memberlist.Broadcast.
func (b *broadcast) Finished() {}

// delegate is the mesh as memberlist sees it.
type delegate struct{ mesh *Mesh }

var _ memberlist.Delegate = delegate{}

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte { return d.mesh.meta().encode() }

// NotifyMsg implements memberlist.Delegate. The bytes are the network's.
func (d delegate) NotifyMsg(msg []byte) {
	if len(msg) == 0 {
		d.mesh.malformed(peer.ID{})
		return
	}
	body := append([]byte(nil), msg[1:]...) // memberlist uses its buffer again
	switch kind(msg[0]) {
	case kindBroadcast:
		if len(body) < 1 {
			d.mesh.malformed(peer.ID{})
			return
		}
		d.mesh.merge(ChannelID(body[0]), body[1:])
	case kindUnicast:
		d.unicast(body)
	case kindInstance:
		d.mesh.instanceMessage(body)
	default:
		d.mesh.unknown(peer.ID{}, "message", msg[0])
	}
}

func (d delegate) unicast(body []byte) {
	const header = 1 + 8 + 8
	if len(body) < header {
		d.mesh.malformed(peer.ID{})
		return
	}
	from, to := peer.ID(body[1:9]), peer.ID(body[9:17])
	if to != d.mesh.cfg.Identity.ID {
		d.mesh.drops.misdirected.Add(1) // the address belonged to another node before
		return
	}
	c, ok := d.mesh.channels[ChannelID(body[0])]
	if !ok {
		d.mesh.unknown(from, "channel", body[0])
		return
	}
	if err := c.Message(from, body[header:]); err != nil {
		d.mesh.rejected.note(&d.mesh.drops.rejected, from, err)
	}
}

// errMalformed and errUnknown are what is wrong with gossip that no channel has seen.
var (
	errMalformed = errors.New("mesh: not of the form of its kind")
	errUnknown   = errors.New("mesh: not known to this version")
)

// malformed counts a message that cannot be read.
func (m *Mesh) malformed(from peer.ID) { m.rejected.note(&m.drops.malformed, from, errMalformed) }

// unknown counts a message of a kind that this version does not have.
func (m *Mesh) unknown(from peer.ID, what string, kind byte) {
	m.rejected.note(&m.drops.unknownKind, from, fmt.Errorf("%w: %s %d", errUnknown, what, kind))
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.mesh.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate: for each channel its ID, the length (4 bytes, big endian), the state.
func (d delegate) LocalState(bool) []byte {
	var b []byte
	for id, c := range d.mesh.channels {
		state := c.State()
		b = append(b, byte(id))
		b = binary.BigEndian.AppendUint32(b, uint32(len(state)))
		b = append(b, state...)
	}
	return b
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	b = append([]byte(nil), b...)
	for len(b) > 0 {
		if len(b) < 5 || uint64(len(b)-5) < uint64(binary.BigEndian.Uint32(b[1:])) {
			d.mesh.malformed(peer.ID{})
			return
		}
		n := int(binary.BigEndian.Uint32(b[1:]))
		d.mesh.merge(ChannelID(b[0]), b[5:5+n])
		b = b[5+n:]
	}
}

// merge passes msg to the channel with that ID, which broadcasts what was new to it.
func (m *Mesh) merge(id ChannelID, msg []byte) {
	c, ok := m.channels[id]
	if !ok {
		m.unknown(peer.ID{}, "channel", byte(id))
		return
	}
	if err := c.Merge(msg); err != nil {
		m.rejected.note(&m.drops.rejected, peer.ID{}, err)
		m.log.Debug("gossip rejected", "channel", id, "err", err)
	}
}
