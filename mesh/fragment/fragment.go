// Package fragment sends messages of gossip in fragments over a link that loses, repeats and reorders them: to a node that
// no stream reaches.
package fragment

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/internal/signal"
)

// Each fragment is sent again until it is acknowledged. The numbers are big endian, with their lengths in bytes:
//
//	fragment | 2 | message ID 8 | index 2 | count 2 | bytes
//	ack      | 3 | message ID 8 | index 2
const (
	Kind    = 2 // first byte of a fragment
	AckKind = 3 // first byte of an acknowledgement

	fragmentHeader  = 8 + 2 + 2
	fragmentAck     = 8 + 2
	fragmentSize    = 1000 // bytes of the message in each fragment but the last
	maxFragments    = 256  // of one message
	fragmentResend  = 300 * time.Millisecond
	fragmentTimeout = 5 * time.Second // until the sender gives up
	fragmentWindow  = 16              // fragments in flight at once
)

// Bounds of the messages that arrive.
const (
	maxReassemblies = 64   // messages of which fragments are missing
	maxOfPeer       = 8    // of them of one peer, as many as a node sends at once
	maxReceived     = 1024 // remembered IDs of complete messages: a repeated fragment of one does not start a new message
	reassemblyTTL   = 2 * fragmentTimeout
)

// Errors.
var (
	ErrTooLong   = errors.New("fragment: message too long")
	ErrNotAcked  = errors.New("fragment: the receiver did not acknowledge the message")
	ErrMalformed = errors.New("fragment: malformed")
)

// Link sends messages to other nodes. It may lose, repeat and reorder them. Send is called from several goroutines, must
// not block, and does not keep msg.
type Link interface {
	Send(to peer.ID, msg []byte) error
}

// Fragmenter sends and receives the fragmented messages of a node. Its methods may be called concurrently.
type Fragmenter struct {
	link Link // constant

	mu           sync.Mutex
	sending      map[messageKey]*unackedMessage // guarded by mu
	reassemblies map[messageKey]*reassembly     // guarded by mu
	received     []messageKey                   // guarded by mu: the latest last
}

// messageKey identifies a message by the peer at the other end and the ID that its sender has drawn.
type messageKey struct {
	peer peer.ID
	id   uint64
}

// unackedMessage is a message that is being sent.
type unackedMessage struct {
	unacked map[uint16]bool // indexes of fragments without an acknowledgement; guarded by Fragmenter.mu
	acked   signal.Chan     // set after each acknowledgement
}

// reassembly is a message that is being received. It is guarded by Fragmenter.mu.
type reassembly struct {
	fragments [][]byte // nil: missing
	missing   int
	at        time.Time // of the latest fragment
}

// New returns a Fragmenter over a link.
func New(link Link) *Fragmenter {
	return &Fragmenter{link: link, sending: make(map[messageKey]*unackedMessage), reassemblies: make(map[messageKey]*reassembly)}
}

// Send sends msg and returns when all of it was acknowledged, or with the reason why it may not have arrived: ErrTooLong,
// ErrNotAcked, or that of ctx.
func (f *Fragmenter) Send(ctx context.Context, to peer.ID, msg []byte) error {
	count := (len(msg) + fragmentSize - 1) / fragmentSize
	if count > maxFragments {
		return ErrTooLong
	}
	key := messageKey{to, rand.Uint64()}
	m := &unackedMessage{unacked: make(map[uint16]bool, count), acked: signal.New()}
	for i := range count {
		m.unacked[uint16(i)] = true
	}
	f.mu.Lock()
	f.sending[key] = m
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.sending, key)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, fragmentTimeout, ErrNotAcked)
	defer cancel()
	for {
		window := f.window(m)
		if len(window) == 0 {
			return nil
		}
		for _, i := range window {
			body := msg[int(i)*fragmentSize : min((int(i)+1)*fragmentSize, len(msg))]
			b := binary.BigEndian.AppendUint64([]byte{Kind}, key.id)
			b = binary.BigEndian.AppendUint16(b, i)
			b = binary.BigEndian.AppendUint16(b, uint16(count))
			_ = f.link.Send(to, append(b, body...)) // a fragment that is lost is sent again
		}
		if err := f.awaitAcks(ctx, m); err != nil {
			return err
		}
	}
}

// window returns the indexes of the fragments to be sent next, at most fragmentWindow; none when all were acknowledged.
func (f *Fragmenter) window(m *unackedMessage) (indexes []uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range m.unacked {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	return indexes[:min(len(indexes), fragmentWindow)]
}

// awaitAcks returns when the fragments in flight were acknowledged or are due to be sent again.
func (f *Fragmenter) awaitAcks(ctx context.Context, m *unackedMessage) error {
	timer := time.NewTimer(fragmentResend)
	defer timer.Stop()
	for left := min(f.unacked(m), fragmentWindow); left > 0; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return nil
		case <-m.acked.C():
			left = min(left-1, f.unacked(m))
		}
	}
	return nil
}

func (f *Fragmenter) unacked(m *unackedMessage) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(m.unacked)
}

// ReceiveAck handles the acknowledgement of a fragment, without its kind. The error is ErrMalformed.
func (f *Fragmenter) ReceiveAck(from peer.ID, b []byte) error {
	if len(b) != fragmentAck {
		return ErrMalformed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.sending[messageKey{from, binary.BigEndian.Uint64(b)}]
	if m != nil {
		delete(m.unacked, binary.BigEndian.Uint16(b[8:]))
		m.acked.Set()
	}
	return nil
}

// Receive handles a fragment, without its kind, and returns the message when it is complete, else nil. It keeps b. The
// error is ErrMalformed.
func (f *Fragmenter) Receive(from peer.ID, b []byte) (msg []byte, err error) {
	if len(b) < fragmentHeader {
		return nil, ErrMalformed
	}
	key := messageKey{from, binary.BigEndian.Uint64(b)}
	index, count := binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	if index >= count || count > maxFragments || len(b)-fragmentHeader > fragmentSize {
		return nil, ErrMalformed
	}
	msg, accepted := f.addFragment(key, index, count, b[fragmentHeader:])
	if !accepted {
		return nil, nil // its sender sends it again, and there may be room then
	}
	ack := binary.BigEndian.AppendUint64([]byte{AckKind}, key.id)
	_ = f.link.Send(from, binary.BigEndian.AppendUint16(ack, index)) // when lost, the fragment comes again
	return msg, nil
}

// addFragment adds a fragment to its message. It returns the message when that fragment was the last one missing, and
// whether the fragment is to be acknowledged: there may be no room for one more message.
func (f *Fragmenter) addFragment(key messageKey, index, count uint16, fragment []byte) (msg []byte, accepted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.received, key) {
		return nil, true
	}
	now := time.Now()
	r := f.reassemblies[key]
	if r == nil {
		if !f.makeRoom(key.peer, now) {
			return nil, false
		}
		r = &reassembly{fragments: make([][]byte, count), missing: int(count), at: now}
		f.reassemblies[key] = r
	}
	if int(index) >= len(r.fragments) || r.fragments[index] != nil {
		return nil, true
	}
	r.at, r.fragments[index] = now, fragment // a repeated fragment does not keep the message alive
	if r.missing--; r.missing > 0 {
		return nil, true
	}
	delete(f.reassemblies, key)
	f.received = append(f.received, key)
	if n := len(f.received); n > maxReceived {
		f.received = slices.Clone(f.received[n-maxReceived/2:])
	}
	return slices.Concat(r.fragments...), true
}

// makeRoom drops the messages that were not completed in time, and reports whether there is room for one more of a peer; mu is held.
// If the table is full, the peer with most messages loses the one that waits longest.
func (f *Fragmenter) makeRoom(from peer.ID, now time.Time) bool {
	count, most := make(map[peer.ID]int), from
	for k, old := range f.reassemblies {
		if now.Sub(old.at) > reassemblyTTL {
			delete(f.reassemblies, k)
		} else if count[k.peer]++; count[k.peer] > count[most] {
			most = k.peer
		}
	}
	if count[from] >= maxOfPeer {
		return false
	}
	if len(f.reassemblies) < maxReassemblies {
		return true
	}
	if count[most] <= count[from]+1 {
		return false // no peer has much more than this one
	}
	var oldest messageKey
	for k, old := range f.reassemblies {
		if k.peer == most && (oldest.peer != most || old.at.Before(f.reassemblies[oldest].at)) {
			oldest = k
		}
	}
	delete(f.reassemblies, oldest)
	return true
}
