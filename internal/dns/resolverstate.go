package dns

import (
	"net/netip"
	"sync"
	"time"
)

// Times of resolvers that do not reply.
const (
	// retryMin is the pause after the first failure, before a resolver is tried again. It doubles up to retryMax.
	retryMin = 2 * time.Second
	retryMax = 5 * time.Minute
	// retryTimeout is how long a query waits for a resolver that is tried again, while another one is known to reply.
	retryTimeout = 300 * time.Millisecond
)

// route is how a resolver is asked: a firewall may block one of its protocols.
type route struct {
	at  netip.AddrPort
	tcp bool
}

// attempt is a resolver to ask, and how long to wait for its reply.
type attempt struct {
	at      netip.AddrPort
	timeout time.Duration
}

// resolverStates remembers which resolvers do not reply, so that not every query waits for them. Its methods may be called
// concurrently; the time is an argument.
type resolverStates struct {
	mu     sync.Mutex
	silent map[route]silence // guarded by mu: those that have not replied to their last query
}

// silence is the state of a resolver that has not replied.
type silence struct {
	pause time.Duration
	until time.Time
}

// order returns the resolvers in the order in which to ask them, each with its timeout. Those that did not reply lately come last;
// after a pause one query tries them at their place, for a shorter time. Where none replies, the order is that of list.
func (s *resolverStates) order(list []netip.AddrPort, tcp bool, timeout time.Duration, now time.Time) []attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetOthers(list)
	var first, last []attempt
	replies := false
	for _, at := range list {
		r := route{at, tcp}
		state, isSilent := s.silent[r]
		switch {
		case !isSilent:
			first = append(first, attempt{at, timeout})
			replies = true
		case !now.Before(state.until):
			first = append(first, attempt{at, min(timeout, retryTimeout)})
			s.silent[r] = silence{state.pause, now.Add(state.pause)} // the next queries do not wait for it as well
		default:
			last = append(last, attempt{at, timeout})
		}
	}
	if replies {
		return append(first, last...)
	}
	all := make([]attempt, 0, len(list))
	for _, at := range list {
		all = append(all, attempt{at, timeout})
	}
	return all
}

// replied records that a resolver has replied.
func (s *resolverStates) replied(at netip.AddrPort, tcp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, route{at, tcp})
}

// failed records that a resolver has not replied to a query that was sent at the time asked.
func (s *resolverStates) failed(at netip.AddrPort, tcp bool, asked, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent == nil {
		s.silent = map[route]silence{}
	}
	r := route{at, tcp}
	state, isSilent := s.silent[r]
	if isSilent && asked.Before(state.until.Add(-state.pause)) {
		return // another query failed meanwhile
	}
	state.pause = min(max(2*state.pause, retryMin), retryMax)
	s.silent[r] = silence{state.pause, now.Add(state.pause)}
}

// forgetOthers forgets resolvers that are not in the list any more. The caller holds mu.
func (s *resolverStates) forgetOthers(list []netip.AddrPort) {
	for r := range s.silent {
		known := false
		for _, at := range list {
			known = known || at == r.at
		}
		if !known {
			delete(s.silent, r)
		}
	}
}
