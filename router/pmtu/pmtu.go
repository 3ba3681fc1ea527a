// Package pmtu finds the largest datagram that passes the path to one peer, without help from the path (RFC 8899,
// datagram packetization layer path MTU discovery).
//
// A Prober first assumes that the path has the MTU of this node's underlay, which is nearly always true, and confirms
// it with a probe: a datagram padded to a size, which the peer acknowledges. With traffic, it confirms the present size
// every two seconds. Control probes of size Base, which passes every path, distinguish a path that has become narrower
// (a black hole) from a path that loses datagrams and from a peer that is gone: unacknowledged larger probes are too
// large only if control probes are acknowledged. Then the size falls to Base at once, and a search finds the largest
// size that passes. Then the Prober searches for a larger size again: after ten seconds, as what changes one part of a path
// often changes others soon after, then with pauses that double, and finally every five minutes.
//
//	             Max acknowledged              size lost, control acknowledged
//	Unconfirmed ------------------> Confirmed --------------------------------> Searching
//	     |                            ^   |  <----------------------------------   |
//	     | nothing acknowledged       |   |      bounds meet                       |
//	     +------------> Silent <------|---+----------------------------------------+
//	                      |           |
//	                      +-----------+ anything acknowledged
//
// Everything is pure: time is an argument, nothing is sent, nothing is allocated after New. Sizes are in bytes of UDP
// payload.
package pmtu

import "time"

// Config is the prior knowledge about a path.
type Config struct {
	// Base is a size that is assumed to pass every path, such as 1,200. The size never falls below it, unless Max is
	// lower. If Base does not pass, the peer counts as silent.
	Base int
	// Max is the largest size on this node's underlay: its MTU without the IP and UDP headers.
	Max int
	// Overhead is the length of these headers, 28 over IPv4 and 48 over IPv6. It is used to try the sizes of common
	// MTUs first; a wrong value only makes searches longer.
	Overhead int
	// Seed makes the tokens hard to guess for hosts that do not see the datagrams. It should be random.
	Seed uint64
}

// Times. Those of RFC 8899, section 5.1.1, are longer (15 seconds for an acknowledgement, 10 minutes to the next
// search), as they are for senders that do not know the round-trip time and need not be much faster than TCP.
const (
	gap         = 200 * time.Millisecond // between two probes: 5 a second
	confirmEach = 2 * time.Second        // between confirmations of the present size
	firstRaise  = 10 * time.Second       // from the end of a search that a change caused to the next one; doubled each time
	raiseEach   = 5 * time.Minute        // at most, between searches for a larger size

	firstTimeout = time.Second // until the round-trip time is known
	minTimeout   = 100 * time.Millisecond
	maxTimeout   = 2 * time.Second

	firstSilence = time.Second // until a silent peer is probed again; doubled each time
	maxSilence   = 8 * time.Second

	hintEach = time.Second // between confirmations that hints cause
)

// State is the state of a Prober. The zero State is invalid.
type State uint8

// States.
const (
	StateUnconfirmed State = iota + 1 // nothing is known yet; the size is an assumption
	StateConfirmed                    // the peer has acknowledged the size
	StateSearching                    // the peer has acknowledged the size, and a larger one may pass
	StateSilent                       // the peer acknowledges nothing; the size does not change
)

// String returns the name of the state in metrics and JSON.
func (s State) String() string {
	switch s {
	case StateUnconfirmed:
		return "unconfirmed"
	case StateConfirmed:
		return "confirmed"
	case StateSearching:
		return "searching"
	case StateSilent:
		return "silent"
	default:
		return "invalid"
	}
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Prober probes the path to one peer. It belongs to one goroutine at a time. Its owner calls Traffic after it sent
// data, and calls Next when Deadline has come and after each call of another method, until Next returns no probe. Times
// should carry the monotonic clock. Make it with New.
type Prober struct {
	base, max, overhead int

	size      int  // the largest size that may be sent
	confirmed bool // this size or a larger one was acknowledged

	// The search: between size, which passes, and above, which does not or is max + 1.
	searching bool
	above     int
	likely    bool // size belongs to a common MTU, or was the result of a search: one byte more is tried before halving
	named     bool // size was a hint: one byte more is tried first
	hint      int  // a reported size, to be tried first; 0 for none

	traffic   bool // data was sent since a confirmation was begun
	confirmAt time.Time
	raiseAt   time.Time
	pause     time.Duration // from the end of this search to the next one
	hintAt    time.Time     // when the next hint may have an effect

	silences int // confirmations in a row without any acknowledgement
	retryAt  time.Time

	trial trial
	sent  history
	rtt   time.Duration // smoothed; 0 for unknown

	tokens uint64 // state of the generator
}

// New returns a Prober that allows cfg.Max.
func New(cfg Config) *Prober {
	p := &Prober{base: max(cfg.Base, 1), max: max(cfg.Max, 1), overhead: cfg.Overhead, tokens: cfg.Seed, pause: firstRaise}
	p.size = p.max
	return p
}

// Size returns the largest size that may be sent now, in bytes. It is never above Max, and never below the smaller of
// Base and Max.
func (p *Prober) Size() int { return p.size }

// RTT returns the smoothed round-trip time to the peer, 0 if it is not known yet.
func (p *Prober) RTT() time.Duration { return p.rtt }

// State returns the state of the Prober, for status documents.
func (p *Prober) State() State {
	switch {
	case p.silences > 0:
		return StateSilent
	case !p.confirmed:
		return StateUnconfirmed
	case p.searching:
		return StateSearching
	default:
		return StateConfirmed
	}
}

// Traffic records that data was sent to the peer since the last call. Without traffic there are no probes, except that
// a search is finished.
func (p *Prober) Traffic() { p.traffic = true }

// SetMax sets Config.Max at now. A smaller size takes effect at once. A larger size is searched for, unless the old one
// is not confirmed either: then it is assumed, as in the beginning.
func (p *Prober) SetMax(largest int, now time.Time) {
	largest = max(largest, 1)
	if largest == p.max {
		return
	}
	raised := largest > p.max
	p.max = largest
	p.trial.stop()
	switch {
	case !p.confirmed:
		p.size = largest
	case raised:
		p.size = max(p.size, p.effectiveBase())
		p.pause = firstRaise
		p.search(largest + 1)
	default:
		p.size = min(p.size, largest)
		p.above = min(p.above, largest+1)
	}
	p.finishSearch(now)
}

// TooBig records at now a report, from this node's kernel (EMSGSIZE) or an ICMP message, that a datagram of size bytes
// was too large and that mtu bytes would pass; 0 stands for unknown. As any host could forge it, it does not change the
// size: with traffic, the size is confirmed, at most once a second, and a search tries mtu first. Callers that know the
// MTU of the underlay use SetMax.
func (p *Prober) TooBig(size, mtu int, now time.Time) {
	switch {
	case size > 0 && size <= mtu: // contradicts itself
	case p.searching && p.size < mtu && mtu < p.above:
		p.hint = mtu
	case mtu < p.size && !now.Before(p.hintAt):
		p.hint, p.hintAt, p.confirmAt = mtu, now.Add(hintEach), now
	}
}

// effectiveBase is the smallest size that is used.
func (p *Prober) effectiveBase() int { return min(p.base, p.max) }
