package dns

import (
	"net/netip"
	"sync"
)

// clientShare is the part of each bound that one client gets: a quarter.
const clientShare = 4

// shares bounds what all clients use together, and what one of them uses. Its methods may be called concurrently.
type shares struct {
	total int // constant

	mu       sync.Mutex
	used     int                // guarded by mu
	byClient map[netip.Addr]int // guarded by mu: of clients that use any
}

func newShares(total int) *shares { return &shares{total: total, byClient: make(map[netip.Addr]int)} }

// acquire acquires one unit for a client, and reports whether there is one left for it. release returns it. A client is one
// address; the zero Addr stands for all that the server does not serve.
func (s *shares) acquire(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= s.total || s.byClient[client] >= s.total/clientShare {
		return false
	}
	s.used++
	s.byClient[client]++
	return true
}

func (s *shares) release(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	if s.byClient[client]--; s.byClient[client] == 0 {
		delete(s.byClient, client)
	}
}

// inUse returns how many units are in use.
func (s *shares) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
