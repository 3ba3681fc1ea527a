package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
)

// A letter is a unicast to a node that no stream leads to: it goes through the tunnel in parts, each of which is sent
// again until it is acknowledged.
//
//	part   | letter 8 | index 2 | count 2 | bytes
//	ack    | letter 8 | index 2
const (
	letterHeader = 8 + 2 + 2
	letterPart   = 1000 // bytes of the message in each part but the last
	letterParts  = 256  // at most, in one letter
	letterResend = 300 * time.Millisecond
	letterFor    = 5 * time.Second // until its sender gives up
	letterWindow = 16              // parts under way at once
)

// Bounds of letters that arrive.
const (
	maxLetters  = 64   // being put together
	maxReceived = 1024 // remembered, so that a part that comes again is not a new letter
	letterStale = 2 * letterFor
)

// errLetter is returned where a letter was not acknowledged in time.
var errLetter = errors.New("mesh: the other did not acknowledge it")

// letters are those that this mesh sends and receives.
type letters struct {
	mesh *Mesh

	mu       sync.Mutex
	sending  map[letterKey]*sentLetter     // guarded by mu
	coming   map[letterKey]*receivedLetter // guarded by mu
	received []letterKey                   // guarded by mu: the latest last
}

type letterKey struct {
	peer peer.ID
	id   uint64
}

type sentLetter struct {
	open map[uint16]bool // parts without an acknowledgement
	news chan struct{}   // holds a token after one
}

type receivedLetter struct {
	parts [][]byte
	left  int
	at    time.Time
}

func newLetters(m *Mesh) *letters {
	return &letters{mesh: m, sending: make(map[letterKey]*sentLetter), coming: make(map[letterKey]*receivedLetter)}
}

// send sends msg and returns once all of it has arrived, or why it may not have.
func (l *letters) send(ctx context.Context, to peer.ID, msg []byte) error {
	count := (len(msg) + letterPart - 1) / letterPart
	if count > letterParts {
		return ErrTooLong
	}
	key := letterKey{to, rand.Uint64()}
	s := &sentLetter{open: make(map[uint16]bool, count), news: make(chan struct{}, 1)}
	for i := range count {
		s.open[uint16(i)] = true
	}
	l.mu.Lock()
	l.sending[key] = s
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sending, key)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, letterFor, errLetter)
	defer cancel()
	for {
		open := l.window(s)
		if len(open) == 0 {
			return nil
		}
		for _, i := range open {
			part := msg[int(i)*letterPart : min((int(i)+1)*letterPart, len(msg))]
			b := binary.BigEndian.AppendUint64([]byte{tunnelPart}, key.id)
			b = binary.BigEndian.AppendUint16(b, i)
			b = binary.BigEndian.AppendUint16(b, uint16(count))
			_ = l.mesh.cfg.Tunnel.Send(to, append(b, part...)) // is sent again
		}
		if err := l.wait(ctx, s); err != nil {
			return err
		}
	}
}

// window returns the parts to be sent next.
func (l *letters) window(s *sentLetter) (open []uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range s.open {
		open = append(open, i)
	}
	slices.Sort(open)
	return open[:min(len(open), letterWindow)]
}

// wait waits until all that is under way was acknowledged, or is to be sent again.
func (l *letters) wait(ctx context.Context, s *sentLetter) error {
	timer := time.NewTimer(letterResend)
	defer timer.Stop()
	for left := min(l.openParts(s), letterWindow); left > 0; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return nil
		case <-s.news:
			left = min(left-1, l.openParts(s))
		}
	}
	return nil
}

func (l *letters) openParts(s *sentLetter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(s.open)
}

// ack takes the acknowledgement of a part.
func (l *letters) ack(from peer.ID, b []byte) {
	if len(b) != 8+2 {
		l.mesh.malformed(from)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sending[letterKey{from, binary.BigEndian.Uint64(b)}]
	if s == nil {
		return
	}
	delete(s.open, binary.BigEndian.Uint16(b[8:]))
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// part takes a part of a letter, which it keeps, and hands over the letter once it is whole.
func (l *letters) part(from peer.ID, b []byte) {
	if len(b) < letterHeader {
		l.mesh.malformed(from)
		return
	}
	key := letterKey{from, binary.BigEndian.Uint64(b)}
	index, count := binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	if index >= count || count > letterParts || len(b)-letterHeader > letterPart {
		l.mesh.malformed(from)
		return
	}
	whole, taken := l.collect(key, index, count, b[letterHeader:])
	if !taken {
		return // there are too many, and it will come again
	}
	ack := binary.BigEndian.AppendUint64([]byte{tunnelAck}, key.id)
	_ = l.mesh.cfg.Tunnel.Send(from, binary.BigEndian.AppendUint16(ack, index)) // or the part comes again
	if whole != nil {
		delegate{l.mesh}.NotifyMsg(whole)
	}
}

// collect notes a part, and returns the letter where it was the last that was missing.
func (l *letters) collect(key letterKey, index, count uint16, part []byte) (whole []byte, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.received, key) {
		return nil, true
	}
	now := time.Now()
	r := l.coming[key]
	if r == nil {
		for k, old := range l.coming {
			if now.Sub(old.at) > letterStale {
				delete(l.coming, k)
			}
		}
		if len(l.coming) >= maxLetters {
			return nil, false
		}
		r = &receivedLetter{parts: make([][]byte, count), left: int(count)}
		l.coming[key] = r
	}
	r.at = now
	if int(index) >= len(r.parts) || r.parts[index] != nil {
		return nil, true
	}
	r.parts[index] = part
	if r.left--; r.left > 0 {
		return nil, true
	}
	delete(l.coming, key)
	l.received = append(l.received, key)
	if n := len(l.received); n > maxReceived {
		l.received = slices.Clone(l.received[n-maxReceived/2:])
	}
	return slices.Concat(r.parts...), true
}
