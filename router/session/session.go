package session

import (
	"crypto/cipher"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/internal/replay"
	"weft/router/wire"
)

// Bounds of the datagrams of one session in one direction. The counter of a datagram is the sum of a number that both
// ends derive from the keys, with its lower 33 bits 0, and the datagram's number in the session. So a counter works as
// a password of 31 bits: where frames are not sealed, it keeps out senders that have not seen any datagram.
const (
	counterBits = 33
	// maxCounters is the most datagrams of a session in one direction.
	maxCounters = 1 << counterBits
	// rekeyCounters is the number of datagrams after which a new session is begun: half of all, so that there is time
	// for it.
	rekeyCounters = 1 << 32
)

// Errors of a Session, returned unwrapped: each is a reason to drop a datagram and to count it.
var (
	// ErrForged: the peer did not seal this datagram, or it was changed on its path.
	ErrForged = errors.New("session: authentication failed")
	// ErrReplayed: the datagram came before, or is too old to know whether it did.
	ErrReplayed = errors.New("session: replayed or too old")
	// ErrCounter: the counter is not one of this session.
	ErrCounter = errors.New("session: counter out of range")
	// ErrPlain: the datagram is not sealed, but must be.
	ErrPlain = errors.New("session: datagram is not sealed")
)

// Session holds the keys that one handshake with a peer made. Its methods may be called from any goroutine.
// See docs/adr/0012-plain-sessions.md.
type Session struct {
	// Constant.
	peer               peer.ID
	local, remote      uint32 // the indexes in datagrams from the peer and in datagrams to it
	cipher             Cipher
	plain              bool
	trusted            bool   // this node allowed unsealed frames at the peer's address
	initiator          bool   // this node began the handshake
	secret             uint32 // the fingerprint of the secret of the handshake
	created            time.Time
	answered           netip.AddrPort // where the response was sent; not valid for an initiator
	seal, open         cipher.AEAD
	sealFrom, openFrom uint64 // the first counter of each direction

	// Atomic.
	counters  atomic.Uint64 // reserved for sending
	confirmed atomic.Bool   // a datagram of the peer was opened, so the peer has the keys
	used      atomic.Bool   // a frame was sent or received since the last sweep of the Node
	received  atomic.Bool   // a datagram was received since then
	heard     atomic.Bool   // one of them came from the data port of the peer and arrived at the data port
	sent      atomic.Bool   // a datagram was sent since then

	// Guarded by mu.
	mu      sync.Mutex
	window  replay.Wide // of the numbers of received datagrams
	located uint64      // highest number of a datagram from data port to data port, plus one
}

// Peer returns the ID of the node at the other end.
func (s *Session) Peer() peer.ID { return s.peer }

// Secret returns the fingerprint of the secret of the handshake.
func (s *Session) Secret() uint32 { return s.secret }

// Index returns the index of the session in datagrams for this end.
func (s *Session) Index() uint32 { return s.local }

// Cipher returns the cipher that seals.
func (s *Session) Cipher() Cipher { return s.cipher }

// Created returns when the handshake ended.
func (s *Session) Created() time.Time { return s.created }

// Answered returns the address to which this node has sent its response. The first datagram of the session that opens shows
// that the peer is reached there. It is not valid if this node began the handshake.
func (s *Session) Answered() netip.AddrPort { return s.answered }

// Plain reports whether both ends agreed to send frames unsealed.
func (s *Session) Plain() bool { return s.plain }

// Reserve reserves n counters in a row for the caller and returns the first; ok is false when the session has no more.
// To the peer, unused counters look like lost datagrams.
func (s *Session) Reserve(n int) (first uint64, ok bool) {
	number := s.counters.Add(uint64(n)) - uint64(n)
	setFlag(&s.sent)
	return s.sealFrom + number, number+uint64(n) <= maxCounters
}

// Use records that a frame passes. Only frames keep a session in use: keepalives do not.
func (s *Session) Use() { setFlag(&s.used) }

// setFlag sets a flag that is set already in most cases; it then writes nothing, so that the cache line stays shared
// between CPUs.
func setFlag(f *atomic.Bool) {
	if !f.Load() {
		f.Store(true)
	}
}

// Initiator reports whether this node began the handshake.
func (s *Session) Initiator() bool { return s.initiator }

// PutHeader writes the header of a datagram of type t to b. The counter comes from Reserve and is used only once.
func (s *Session) PutHeader(b []byte, t wire.Type, counter uint64) {
	wire.Header{Type: t, Session: s.remote, Counter: counter}.Put(b)
}

// Seal appends a datagram of type t to dst: header, sealed body, tag. It works in place if body lies wire.HeaderLen
// bytes behind the end of dst; otherwise body must not overlap the appended bytes. It does not allocate if dst has
// room. The counter comes from Reserve and is used only once.
func (s *Session) Seal(dst []byte, t wire.Type, counter uint64, body []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, wire.HeaderLen)...)
	header := dst[at:]
	s.PutHeader(header, t, counter)
	// The whole header is the nonce: its counter never repeats under one key, and no other buffer is needed.
	return s.seal.Seal(dst, header, body, header)
}

// Open opens the sealed datagram that begins with the header h and has arrived at the data port, in place, and returns its
// body. It accepts each datagram once. newest reports that it left from the data port of the peer (wire.Locates), and that
// no such datagram that was sent later was received yet. The errors are ErrForged, ErrReplayed and ErrCounter; the body is
// then destroyed.
func (s *Session) Open(h wire.Header, datagram []byte) (body []byte, newest bool, err error) {
	if body, err = s.decrypt(h, datagram); err != nil {
		return nil, false, err
	}
	newest, ok := s.accept(h.Counter-s.openFrom, wire.Locates(h.Type, body))
	if !ok {
		return nil, false, ErrReplayed
	}
	return body, newest, nil
}

// OpenAnswer is Open for a datagram that has arrived at an entropy port. Such a datagram does not show that datagrams of the
// peer arrive at the data port.
func (s *Session) OpenAnswer(h wire.Header, datagram []byte) (body []byte, err error) {
	if body, err = s.decrypt(h, datagram); err != nil {
		return nil, err
	}
	if _, ok := s.accept(h.Counter-s.openFrom, false); !ok {
		return nil, ErrReplayed
	}
	return body, nil
}

// decrypt decrypts the datagram that begins with the header h, in place.
func (s *Session) decrypt(h wire.Header, datagram []byte) (body []byte, err error) {
	if h.Counter-s.openFrom >= maxCounters {
		return nil, ErrCounter
	}
	header, sealed := datagram[:wire.HeaderLen], datagram[wire.HeaderLen:]
	if body, err = s.open.Open(sealed[:0], header, sealed, header); err != nil {
		return nil, ErrForged
	}
	return body, nil
}

// AcceptPlain accepts each unsealed datagram once, if the session allows them: h is its header, and body follows that. The
// errors are ErrPlain, ErrCounter and ErrReplayed.
func (s *Session) AcceptPlain(h wire.Header, body []byte) error {
	if !s.plain {
		return ErrPlain
	}
	number := h.Counter - s.openFrom
	if number >= maxCounters {
		return ErrCounter
	}
	if _, ok := s.accept(number, wire.Locates(h.Type, body)); !ok {
		return ErrReplayed
	}
	return nil
}

// accept accepts each number once. locates says that the datagram came from a data port and arrived at one; newest, that it
// is the highest number of such a datagram.
func (s *Session) accept(number uint64, locates bool) (newest, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.window.Accept(number) {
		return false, false
	}
	setFlag(&s.received)
	if !locates {
		return false, true
	}
	setFlag(&s.heard)
	if number < s.located {
		return false, true
	}
	s.located = number + 1
	return true, true
}

// Confirmed reports whether a datagram of the peer was opened.
func (s *Session) Confirmed() bool { return s.confirmed.Load() }

// Confirm records that a datagram of the peer was opened, and reports whether it was the first. The caller then has to
// call Node.ConfirmSession.
func (s *Session) Confirm() (first bool) {
	return !s.confirmed.Load() && s.confirmed.CompareAndSwap(false, true)
}
