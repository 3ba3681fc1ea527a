package session

import (
	"crypto/cipher"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/router/replay"
	"weft/router/wire"
)

// Bounds of what one session seals in one direction. The counter of a datagram is a number that both ends derive from
// the keys, its lower 33 bits 0, and the datagram's number in the session. So a counter is as good as a password of 31
// bits: where frames are not sealed it keeps out those who have not seen any.
const (
	counterBits = 33
	// maxCounters is how many datagrams a session may carry in one direction.
	maxCounters = 1 << counterBits
	// rekeyCounters is when a new one is begun: there is as much time again.
	rekeyCounters = 1 << 32
)

// Errors of a Session, each a reason to drop a datagram and to count it. They are returned as they are.
var (
	// ErrForged: the datagram was not sealed by the peer, or was changed on its way.
	ErrForged = errors.New("session: not sealed by the peer")
	// ErrReplayed: it has come before, or so late that this cannot be told.
	ErrReplayed = errors.New("session: came before")
	// ErrCounter: its counter is none of this session's.
	ErrCounter = errors.New("session: counter of no datagram of this session")
	// ErrPlain: it is not sealed, and must be.
	ErrPlain = errors.New("session: not sealed")
)

// Session is the keys with one peer, from one handshake. Its methods may be called from any goroutine.
type Session struct {
	// Constant.
	peer               peer.ID
	local, remote      uint32 // the index that stands in datagrams from the peer, and in those to it
	cipher             Cipher
	plain              bool
	trusted            bool   // this node needs no seal at the address that the peer had
	initiator          bool   // this node began the handshake
	secret             uint32 // the fingerprint of the secret that it was made with
	created            time.Time
	seal, open         cipher.AEAD
	sealFrom, openFrom uint64 // the first counter of each direction

	// Atomic.
	counters  atomic.Uint64 // handed out for sending
	confirmed atomic.Bool   // the peer has shown that it has the keys
	used      atomic.Bool   // a frame passed since the Node last looked
	heard     atomic.Bool   // a datagram came since then
	spoke     atomic.Bool   // one was sent since then

	// Guarded by mu.
	mu     sync.Mutex
	window replay.Window // of numbers in the session
}

// Peer returns who is at the other end.
func (s *Session) Peer() peer.ID { return s.peer }

// Index returns what stands in the header of datagrams that are for this end.
func (s *Session) Index() uint32 { return s.local }

// Cipher returns what seals.
func (s *Session) Cipher() Cipher { return s.cipher }

// Created returns when the handshake ended that made it.
func (s *Session) Created() time.Time { return s.created }

// Plain reports whether both ends have agreed that frames need not be sealed on the way between them.
func (s *Session) Plain() bool { return s.plain }

// Reserve returns the first of n counters in a row that are nobody else's, ok = false where the session has come to its
// end. Counters that are not used in the end are as good as lost datagrams.
func (s *Session) Reserve(n int) (first uint64, ok bool) {
	number := s.counters.Add(uint64(n)) - uint64(n)
	setFlag(&s.spoke)
	return s.sealFrom + number, number+uint64(n) <= maxCounters
}

// Use notes that a frame passes, as against what only keeps the session: it is what the session is kept for.
func (s *Session) Use() { setFlag(&s.used) }

// setFlag sets a flag that mostly is set, so that CPUs need not tell each other.
func setFlag(f *atomic.Bool) {
	if !f.Load() {
		f.Store(true)
	}
}

// Initiator reports whether this node began the handshake.
func (s *Session) Initiator() bool { return s.initiator }

// PutHeader writes the header of a datagram of type t to b. The counter is one of Reserve's, used for nothing else.
func (s *Session) PutHeader(b []byte, t wire.Type, counter uint64) {
	wire.Header{Type: t, Session: s.remote, Counter: counter}.Put(b)
}

// Seal appends to dst a datagram of type t: header, sealed body, tag. It does so in place where body lies wire.HeaderLen
// bytes behind the end of dst, and otherwise body must not overlap what is appended; it allocates nothing where dst has
// room for all of it. The counter is one of Reserve's, used for nothing else.
func (s *Session) Seal(dst []byte, t wire.Type, counter uint64, body []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, wire.HeaderLen)...)
	header := dst[at:]
	s.PutHeader(header, t, counter)
	// All of the header is the nonce: its counter never repeats under one key, and no other memory is needed.
	return s.seal.Seal(dst, header, body, header)
}

// Open opens, in place, the sealed datagram that begins with the header h, and returns its body. It passes each datagram
// once. The errors are ErrForged, ErrReplayed and ErrCounter; the body is destroyed then. newest says that no datagram
// sent later has come yet.
func (s *Session) Open(h wire.Header, datagram []byte) (body []byte, newest bool, err error) {
	number := h.Counter - s.openFrom
	if number >= maxCounters {
		return nil, false, ErrCounter
	}
	header, sealed := datagram[:wire.HeaderLen], datagram[wire.HeaderLen:]
	if body, err = s.open.Open(sealed[:0], header, sealed, header); err != nil {
		return nil, false, ErrForged
	}
	newest, ok := s.accept(number)
	if !ok {
		return nil, false, ErrReplayed
	}
	return body, newest, nil
}

// AcceptPlain passes each datagram that is not sealed once, if there may be any. The errors are ErrPlain, ErrCounter and
// ErrReplayed.
func (s *Session) AcceptPlain(h wire.Header) error {
	if !s.plain {
		return ErrPlain
	}
	number := h.Counter - s.openFrom
	if number >= maxCounters {
		return ErrCounter
	}
	if _, ok := s.accept(number); !ok {
		return ErrReplayed
	}
	return nil
}

func (s *Session) accept(number uint64) (newest, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	highest, any := s.window.Highest()
	if !s.window.Accept(number) {
		return false, false
	}
	setFlag(&s.heard)
	return !any || number > highest, true
}

// Confirmed reports whether a datagram of the peer's was opened.
func (s *Session) Confirmed() bool { return s.confirmed.Load() }

// Confirm notes that a datagram of the peer's was opened, and reports whether it was the first: then the Node has to be
// told (Node.Confirm).
func (s *Session) Confirm() (first bool) {
	return !s.confirmed.Load() && s.confirmed.CompareAndSwap(false, true)
}
