// Package pmtu finds the largest datagram that the path to one peer takes, without help from the path (RFC 8899,
// datagram packetization layer path MTU discovery).
//
// A Prober begins in the hope that the path takes what the own underlay takes, which is nearly always so, and asks the
// peer to confirm it: by a probe, a datagram padded to a size, which the peer answers. As long as there is traffic the
// present size is confirmed every two seconds. What tells a path that has become narrow (a black hole) from one that
// loses datagrams and from a peer that is gone are control probes of Base, which every path takes: only if these are
// answered does the silence about the larger ones say anything about their size. Then the size falls to Base at once,
// and a search finds the largest one that passes. Every five minutes it looks whether more passes again.
//
//	             Max acknowledged              size lost, control acknowledged
//	Unconfirmed ------------------> Confirmed --------------------------------> Searching
//	     |                            ^   |  <----------------------------------   |
//	     | nothing acknowledged       |   |      bounds meet                       |
//	     +------------> Silent <------|---+----------------------------------------+
//	                      |           |
//	                      +-----------+ anything acknowledged
//
// Everything is pure: time comes as an argument, nothing is sent, nothing is allocated after New. Sizes are in bytes of
// UDP payload.
package pmtu

import "time"

// Config says what is known of a path beforehand.
type Config struct {
	// Base is a size that every path is assumed to take, such as 1,200: size never falls below it, unless Max does.
	// Whether Base itself passes is not questioned: where it does not, the peer counts as silent.
	Base int
	// Max is the largest size that the own underlay takes: its MTU without the IP and UDP headers.
	Max int
	// Overhead is the length of these headers, 28 over IPv4 and 48 over IPv6. It is used to try the sizes first that
	// belong to common MTUs; a wrong one makes searching longer and its result no worse.
	Overhead int
	// Seed makes the tokens hard to guess for those who do not see the datagrams. It should be random.
	Seed uint64
}

// Times. Those of RFC 8899, section 5.1.1, are longer (15 seconds for an answer, 10 minutes to the next search): they are
// for those who do not know the round trip time and must not notice much sooner than TCP.
const (
	gap         = 200 * time.Millisecond // between two probes: 5 a second
	confirmEach = 2 * time.Second        // between confirmations of the present size
	raiseEach   = 5 * time.Minute        // between searches for more

	firstTimeout = time.Second // until a round trip was measured
	minTimeout   = 100 * time.Millisecond
	maxTimeout   = 2 * time.Second

	firstSilence = time.Second // until a silent peer is tried again, doubled each time
	maxSilence   = 8 * time.Second

	hintEach = time.Second // between confirmations that hints bring forward
)

// State says what a Prober is about. The zero State is invalid.
type State uint8

// States.
const (
	StateUnconfirmed State = iota + 1 // nothing is known yet; the size is a hope
	StateConfirmed                    // the peer has acknowledged the size
	StateSearching                    // the peer has acknowledged the size, and a larger one may pass
	StateSilent                       // the peer acknowledges nothing; the size stays as it was
)

// String returns the state as metrics and JSON have it.
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

// Prober is what is known of the path to one peer. It belongs to one goroutine at a time: its owner calls Traffic when
// data was sent, and Next whenever Deadline has come and after each call of another method, until Next has nothing more.
// The times given to it should carry the monotonic clock. Make it with New.
type Prober struct {
	base, max, overhead int

	size      int  // what may be sent
	confirmed bool // size was acknowledged, or lies below one that was

	// The search: between size, which passes, and above, which does not or is max + 1.
	searching bool
	above     int
	likely    bool // size belongs to a common MTU, or was the result of a search: one byte more comes before halving
	named     bool // size was a hint: one byte more comes before anything else
	hint      int  // a size that somebody named, to be tried first; 0 for none

	traffic   bool // data was sent since a confirmation was begun
	confirmAt time.Time
	raiseAt   time.Time
	hintAt    time.Time // when hints are listened to again

	silences int // confirmations in a row to which nothing was acknowledged
	retryAt  time.Time

	trial trial
	sent  history
	rtt   time.Duration // smoothed; 0 for unknown

	tokens uint64 // state of the generator
}

// New returns a Prober that allows cfg.Max.
func New(cfg Config) *Prober {
	p := &Prober{base: max(cfg.Base, 1), max: max(cfg.Max, 1), overhead: cfg.Overhead, tokens: cfg.Seed}
	p.size = p.max
	return p
}

// Size returns the largest size in bytes that may be sent now. It is never above Max, and never below the smaller of
// Base and Max.
func (p *Prober) Size() int { return p.size }

// RTT returns the smoothed round trip time to the peer, 0 as long as there is none.
func (p *Prober) RTT() time.Duration { return p.rtt }

// State returns what the Prober is about, for status.
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

// Traffic notes that data was sent to the peer since the last call. Without it nothing is probed, except that a search
// which has begun is finished.
func (p *Prober) Traffic() { p.traffic = true }

// SetMax notes at now that the own underlay takes max bytes from now on. A smaller size holds at once; a larger one is
// searched for, unless the old one has not been confirmed either: then it is hoped for, as in the beginning.
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
		p.search(largest + 1)
	default:
		p.size = min(p.size, largest)
		p.above = min(p.above, largest+1)
	}
	p.settle(now)
}

// TooBig notes at now that somebody said that a datagram of size bytes was too large and that mtu bytes would pass: the
// own kernel (EMSGSIZE), or an ICMP message. 0 for either says that it is not known. As anybody could say so, it
// changes no size: as soon as there is traffic the size is confirmed, once a second at most, and mtu is the first size that a search
// tries. A caller who knows the own underlay's MTU itself uses SetMax.
func (p *Prober) TooBig(size, mtu int, now time.Time) {
	switch {
	case size > 0 && size <= mtu: // contradicts itself
	case p.searching && p.size < mtu && mtu < p.above:
		p.hint = mtu
	case mtu < p.size && !now.Before(p.hintAt):
		p.hint, p.hintAt, p.confirmAt = mtu, now.Add(hintEach), now
	}
}

// effectiveBase is the size below which none is sought.
func (p *Prober) effectiveBase() int { return min(p.base, p.max) }
