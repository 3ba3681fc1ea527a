package mesh

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is kept of nodes that have no secret in common with this one: anybody can pose as one, from any
// address.
const (
	maxStrangers = 16
	strangerAge  = 3 * time.Minute  // longer than the pauses with which a node tries to join
	strangerSaid = 10 * time.Minute // between two lines of the log about one
)

// Stranger is an address from which gossip came that this node does not understand, or that does not understand it.
type KeyMismatch struct {
	Addr   netip.Addr
	Reason MismatchReason
	Last   time.Time // when it was heard of last
}

// strangers keeps the latest of them. Its methods may be called concurrently.
type strangers struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]stranger // guarded by mu: at most maxStrangers
}

type stranger struct {
	KeyMismatch
	said time.Time // when the log said so last
}

func newStrangers() *strangers { return &strangers{byAddr: make(map[netip.Addr]stranger)} }

// note takes in that something came from addr at now, and reports whether that is worth a line in the log.
func (s *strangers) note(addr netip.Addr, why MismatchReason, now time.Time) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.byAddr[addr]
	if !known {
		s.makeRoom(now)
	}
	if known && why == MismatchUnclear {
		why = e.Reason // which may be clearer
	}
	news = !known || why != e.Reason || now.Sub(e.said) >= strangerSaid
	e.KeyMismatch = KeyMismatch{Addr: addr, Reason: why, Last: now}
	if news {
		e.said = now
	}
	s.byAddr[addr] = e
	return news
}

// makeRoom drops what is old, and else the oldest where there is no room for one more; mu is held.
func (s *strangers) makeRoom(now time.Time) {
	var oldest stranger
	for addr, e := range s.byAddr {
		if now.Sub(e.Last) > strangerAge {
			delete(s.byAddr, addr)
		} else if !oldest.Addr.IsValid() || e.Last.Before(oldest.Last) {
			oldest = e
		}
	}
	if len(s.byAddr) >= maxStrangers {
		delete(s.byAddr, oldest.Addr)
	}
}

// list returns who was heard of lately, ordered by address.
func (s *strangers) list(now time.Time) []KeyMismatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []KeyMismatch
	for _, e := range s.byAddr {
		if now.Sub(e.Last) <= strangerAge {
			list = append(list, e.KeyMismatch)
		}
	}
	slices.SortFunc(list, func(a, b KeyMismatch) int { return a.Addr.Compare(b.Addr) })
	return list
}

// Strangers returns the addresses at which there seems to be a node without a secret in common with this one, heard of
// in the last minutes: at most 16, ordered. Where a member is alive now, whatever it was has been mended.
func (m *Mesh) KeyMismatches() []KeyMismatch {
	return slices.DeleteFunc(m.outside.list(time.Now()), func(s KeyMismatch) bool { return m.roster.aliveAtHost(s.Addr) })
}
