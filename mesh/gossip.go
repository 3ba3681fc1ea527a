package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
)

// MaxBroadcast is the length in bytes of the longest broadcast: it must fit a UDP packet of memberlist's with its headers.
const MaxBroadcast = 1024

// Errors of a Sender.
var (
	ErrTooLong   = errors.New("mesh: message too long")
	ErrUnknown   = errors.New("mesh: no such member")
	ErrQueueFull = errors.New("mesh: too many messages wait to be sent")
)

// ChannelID identifies an engine's gossip on the wire.
type ChannelID uint8

// ChannelIPAM is the channel of the allocators, ChannelDNS that of names. 2 is channelLinks, 4 channelIdentity.
const (
	ChannelIPAM ChannelID = 1
	ChannelDNS  ChannelID = 3
)

// Channel is one engine's gossip. Its methods are called from the mesh's goroutines, also concurrently, and must not
// block. The callee owns the slices that it receives.
type Channel interface {
	// State returns the full state. It is sent in a push/pull to a node that joins, and now and then to others.
	State() []byte
	// Merge applies a broadcast or a full state. The mesh forwards nothing: the engine broadcasts the part that was new to
	// it, with its Sender, before Merge returns or later. An error is about the part that could not be used; the rest is
	// applied.
	Merge(msg []byte) error
	// Message handles a unicast. An error means that it could not be used.
	Message(from peer.ID, msg []byte) error
}

// Sender sends the gossip of one channel. Its methods may be called concurrently, and do not block.
type Sender struct {
	mesh    *Mesh
	channel ChannelID
}

// Broadcast sends msg, of at most MaxBroadcast bytes, to every member, with high probability and in a time that grows
// with the logarithm of their number. Messages may be lost or arrive again; Channel.State repairs losses.
func (s Sender) Broadcast(msg []byte) error {
	if len(msg) > MaxBroadcast {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(msg), MaxBroadcast)
	}
	if s.mesh.numMembers() <= 1 {
		return nil // there is no receiver, and a node that joins later gets the full state
	}
	if s.mesh.queue.Add(append([]byte{byte(kindBroadcast), byte(s.channel)}, msg...), time.Now()) > 0 {
		s.mesh.dropped.Set()
	}
	return nil
}

// Unicast sends msg to one member over a stream, which proves its sender to the receiver. It arrives once, in no particular
// order, unless one of the two nodes fails meanwhile; the sender is not notified of that. The error is ErrUnknown or ErrQueueFull.
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

// kind is the first byte of each of weft's messages.
type kind uint8

const (
	kindBroadcast kind = 1 // channel, payload
	kindUnicast   kind = 2 // channel, from (8), to (8), payload; only in streams and in the tunnel
)

// delegate is the mesh as memberlist sees it.
type delegate struct{ mesh *Mesh }

var _ memberlist.Delegate = delegate{}

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte { return d.mesh.meta().Encode() }

// NotifyMsg implements memberlist.Delegate. It does not keep msg.
func (d delegate) NotifyMsg(msg []byte) {
	if len(msg) == 0 {
		d.mesh.countMalformed(peer.ID{})
		return
	}
	body := append([]byte(nil), msg[1:]...) // memberlist reuses its buffer
	switch kind(msg[0]) {
	case kindBroadcast:
		if len(body) < 1 {
			d.mesh.countMalformed(peer.ID{})
			return
		}
		d.mesh.merge(ChannelID(body[0]), body[1:])
	case kindUnicast: // only a stream or a session proves its sender
		d.mesh.drops.misdirected.Add(1)
	default:
		d.mesh.countUnknown(peer.ID{}, "message", msg[0])
	}
}

// errMalformed and errUnknown are the errors about gossip that no channel has seen.
var (
	errMalformed = errors.New("mesh: malformed message")
	errUnknown   = errors.New("mesh: not known to this version")
)

// countMalformed counts a message that cannot be read.
func (m *Mesh) countMalformed(from peer.ID) {
	m.rejected.record(&m.drops.malformed, from, errMalformed)
}

// countUnknown counts a message of a kind that this version does not have.
func (m *Mesh) countUnknown(from peer.ID, what string, kind byte) {
	m.rejected.record(&m.drops.unknownKind, from, fmt.Errorf("%w: %s %d", errUnknown, what, kind))
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.mesh.queue.Take(overhead, limit, d.mesh.numMembers())
}

// stateHeader is the length in bytes of what precedes each channel's state in a push/pull.
const stateHeader = 1 + 4

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
		if len(b) < stateHeader || uint64(len(b)-stateHeader) < uint64(binary.BigEndian.Uint32(b[1:])) {
			d.mesh.countMalformed(peer.ID{})
			return
		}
		n := int(binary.BigEndian.Uint32(b[1:]))
		d.mesh.merge(ChannelID(b[0]), b[stateHeader:stateHeader+n])
		b = b[stateHeader+n:]
	}
}

// merge passes msg to the channel with that ID, which broadcasts what was new to it.
func (m *Mesh) merge(id ChannelID, msg []byte) {
	c, ok := m.channels[id]
	if !ok {
		m.countUnknown(peer.ID{}, "channel", byte(id))
		return
	}
	if err := c.Merge(msg); err != nil {
		m.rejected.record(&m.drops.rejected, peer.ID{}, err)
		m.log.Debug("gossip rejected", "channel", id, "err", err)
	}
}
