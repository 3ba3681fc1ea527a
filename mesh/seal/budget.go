package seal

import (
	"errors"
	"net/netip"
	"sync"
)

// ErrBudget means that the messages that are being received hold as many bytes as they may.
var ErrBudget = errors.New("seal: no room for more bytes of messages")

// Budget bounds the bytes of the messages that are being received, over many streams: in all, and those of each host to
// half of that, which has to be one and a half messages. Its methods may be called concurrently.
type Budget struct {
	most int // constant

	mu    sync.Mutex
	left  int                  // guarded by mu
	taken map[netip.Prefix]int // guarded by mu: bytes of each host that has any
}

// NewBudget returns a budget of n bytes.
func NewBudget(n int) *Budget { return &Budget{most: n, left: n, taken: make(map[netip.Prefix]int)} }

// Left returns how many bytes are left.
func (b *Budget) Left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left
}

// Share is what one host may take of a budget.
type Share struct {
	budget *Budget
	host   netip.Prefix
}

// Share returns the share of a host.
func (b *Budget) Share(host netip.Prefix) Share { return Share{b, host} }

// Give gives n bytes back.
func (s Share) Give(n int) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.budget.left += n
	if s.budget.taken[s.host] -= n; s.budget.taken[s.host] == 0 {
		delete(s.budget.taken, s.host)
	}
}

func (s Share) take(n int) bool {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	if n > s.budget.left || s.budget.taken[s.host]+n > s.budget.most/2 {
		return false
	}
	s.budget.left -= n
	s.budget.taken[s.host] += n
	return true
}

// grow returns msg with room for more bytes, of total in the end. It takes the new buffer from the share and gives the
// old one back; without room it gives msg back.
func (s Share) grow(msg []byte, more, total int) ([]byte, error) {
	if cap(msg)-len(msg) >= more && msg != nil {
		return msg, nil
	}
	n := max(len(msg)+more, 2*cap(msg))
	if 2*n > total {
		n = total // so the old and the new buffer are at most one and a half messages
	}
	if !s.take(n) {
		s.Give(cap(msg))
		return nil, ErrBudget
	}
	grown := make([]byte, len(msg), n)
	copy(grown, msg)
	s.Give(cap(msg))
	return grown, nil
}
