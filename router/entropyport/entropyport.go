// Package entropyport decides whether frames for a peer may leave from an entropy port: a further source port of this node, so that a
// network card, a path of equal costs (ECMP) and the sockets of the receiver distribute the frames between two nodes, as by the source
// ports of VXLAN (RFC 7348, section 5).
//
// A firewall or an address translator may drop what comes from another port than the data port. So a port is proven first: a probe as
// long as the longest datagram to the peer leaves from it, and the answer has to arrive at it. Only while such probes are answered do
// frames leave from there; otherwise they leave from the data port.
//
//	          frames                         answer
//	unproven --------> probes, 1 s to 30 s apart --> proven: a probe every 3 s
//	   ^                                               |
//	   +--- three probes in a row without an answer ---+
//	        no answer for 10 s, another endpoint, longer datagrams
//
// The package is pure: no goroutine, no clock, no lock and no I/O. The time and random numbers are arguments.
// See docs/adr/0048-a-source-port-a-flow.md.
package entropyport

import (
	"net/netip"
	"sync/atomic"
	"time"

	"weft/router/elapsed"
)

// Times and counts of a Path.
const (
	// firstPause is the time between the first probe of a port that is not proven and the second; it is doubled after each, up to
	// longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
	// confirmEach is the time between an answer and the next probe of a proven port, retryAfter that between two probes of it if the
	// first was not answered. Three such probes end the proof: 4.5 s after the last answer.
	confirmEach = 3 * time.Second
	retryAfter  = 500 * time.Millisecond
	tries       = 3
	// proofLasts is how long an answer proves a port that is not probed any more, as no frames leave from it.
	proofLasts = 10 * time.Second
	// answerWithin is how long after a probe its answer counts.
	answerWithin = 3 * time.Second
)

// Endpoint is where a peer is reached: its address, and the index of the session. The zero Endpoint: it is not reached directly.
type Endpoint struct {
	Addr    netip.AddrPort
	Session uint32
}

// Probe is a probe to send from the port: the peer's answer has its token and its size.
type Probe struct {
	Token uint32
	Size  int // of the datagram in bytes
}

// Path is the path from one entropy port to one peer. The zero Path is not proven. Any goroutine may call Carries and Proven; all other
// methods belong to one goroutine at a time.
type Path struct {
	// Atomic.

	used   atomic.Bool                    // there were frames since the last Next
	calm   atomic.Bool                    // no probe waits for a frame
	proven atomic.Pointer[netip.AddrPort] // the address for which the port is proven; nil: none

	// Owned by the callers of Next and Answered.

	to         Endpoint // of the probes
	size       int      // of the longest probe that was answered, in bytes
	wanted     int      // size of the last probe
	unanswered int      // probes since the last answer
	due        bool     // the next probe does not wait
	sentAt     time.Time
	answeredAt time.Time
	open       [tries]openProbe // the probes sent last, in a circle
	next       int              // index in open of the next probe
}

// openProbe is a probe that may still be answered.
type openProbe struct {
	Probe
	at time.Time
}

// Carries reports whether a frame for the peer at addr may leave from the port, and notes that there is one. due says that a probe has
// waited for it: Next should be called at once.
func (p *Path) Carries(addr netip.AddrPort) (ok, due bool) {
	if !p.used.Load() {
		p.used.Store(true)
		due = !p.calm.Swap(true)
	}
	at := p.proven.Load()
	return at != nil && *at == addr, due
}

// Proven reports whether frames leave from the port.
func (p *Path) Proven() bool { return p.proven.Load() != nil }

// Next returns the probe that is due at now, if there is one; it counts as sent. to is where the peer is reached at present, and size is
// the length of the longest datagram to it in bytes. random returns uniform random numbers that an attacker cannot predict. Next also
// ends the proof when it is due, so it must be called several times a second whether there are frames or not.
func (p *Path) Next(to Endpoint, size int, now time.Time, random func() uint32) (probe Probe, ok bool) {
	used := p.used.Swap(false)
	p.follow(to, size)
	p.calm.Store(!p.isDue(now))
	if !to.Addr.IsValid() {
		return Probe{}, false
	}
	if p.Proven() && (elapsed.Since(p.answeredAt, now) >= proofLasts || p.unanswered >= tries && elapsed.Since(p.sentAt, now) >= retryAfter) {
		p.proven.Store(nil)
	}
	if !used || !p.isDue(now) {
		return Probe{}, false
	}
	probe = Probe{Token: max(random(), 1), Size: size}
	p.open[p.next] = openProbe{Probe: probe, at: now}
	p.next = (p.next + 1) % len(p.open)
	p.unanswered++
	p.due, p.sentAt, p.wanted = false, now, size
	p.calm.Store(true)
	return probe, true
}

// follow adopts where the peer is reached, and the length of the longest datagram to it. Earlier probes prove nothing any more if
// either is new.
func (p *Path) follow(to Endpoint, size int) {
	moved, longer := to.Addr != p.to.Addr, p.Proven() && size > p.size
	if !moved && !longer && to.Session == p.to.Session {
		return
	}
	p.to, p.open = to, [tries]openProbe{}
	switch {
	case moved || longer:
		p.proven.Store(nil)
	case !p.Proven():
		return // a new session does not make the peer answer: the pauses go on
	} // else the peer has to answer soon: it may be another program now, one that does not know entropy ports
	p.unanswered, p.due = 0, true
}

// isDue reports whether it is time for a probe.
func (p *Path) isDue(now time.Time) bool {
	switch {
	case p.due:
		return true
	case !p.Proven():
		return elapsed.Since(p.sentAt, now) >= min(firstPause<<min(max(p.unanswered-1, 0), 10), longestPause)
	case p.unanswered > 0:
		return elapsed.Since(p.sentAt, now) >= retryAfter
	default:
		return elapsed.Since(p.answeredAt, now) >= confirmEach
	}
}

// Answered handles an answer that arrived at the port at now, with the token and the size of the probe. It proves the port if the probe
// is one of the last ones to where the peer is reached.
func (p *Path) Answered(probe Probe, now time.Time) {
	for i := range p.open {
		if o := &p.open[i]; o.Probe == probe && probe.Token != 0 && elapsed.Since(o.at, now) < answerWithin {
			*o = openProbe{}
			p.size, p.unanswered, p.answeredAt = probe.Size, 0, now
			if probe.Size == p.wanted && !p.Proven() {
				addr := p.to.Addr
				p.proven.Store(&addr)
			}
			return
		}
	}
}
