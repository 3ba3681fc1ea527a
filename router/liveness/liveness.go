// Package liveness decides whether the direct link between this node and a peer carries datagrams in both directions.
//
// It is a set of pure state machines: no goroutine, no clock, no lock and no I/O. The time and random numbers are
// arguments. The owner of a Link calls Tick every TickInterval, does what the returned Actions say, and reports events:
// answers to probes, answered handshakes, and requests for a hole punch.
//
//	   +-- initiations or probes without an answer --+
//	   |                                             v
//	Unknown ---> Open --- the same -------------> Broken
//	   ^         |  ^                                |
//	   +---------+  +--------------------------------+
//	  no session      handshake or probes answered
//
// A link is judged by traffic where there is traffic. It is probed only while the peer is silent although frames are
// sent to it, and while the link is not in use (broken, or the peer is relayed) or kept without a proof: then the probes find out when it
// works (again). A probe goes to every address where the peer may be reached, with another token to each: the answer shows at which
// of them the peer was reached. It must come from the peer itself, not from a relay, so an answer proves both directions.
package liveness

import (
	"net/netip"
	"slices"
	"time"
)

// Times and counts of a Link.
const (
	// TickInterval is the time between two calls of Tick.
	TickInterval = 500 * time.Millisecond
	// Tries is the number of initiations in a row without an answer after which a link is broken: about two seconds.
	// TriesFirst applies while nothing has come over the link yet, as the peer may have only just started.
	Tries      = 3
	TriesFirst = 5
	// Silence is how long nothing arrives from a peer to which frames are sent before the link is probed. A healthy
	// peer sends at least every two seconds. After maxMisses probes in a row without an answer the link is broken.
	Silence   = 2500 * time.Millisecond
	maxMisses = 3
	// probeInterval is the time between probes of a link that is not in use. After neededProofs answered probes the
	// link works. The count starts again when a probe is without an answer for longer than proofWindow.
	probeInterval = 2 * time.Second
	proofWindow   = time.Second
	neededProofs  = 2
	// punchFor is how long a hole punch is tried, punchPause the shortest time between two of one link.
	punchFor   = 4 * time.Second
	punchPause = 2 * time.Second
	// maxAddresses is the number of addresses at which a peer is probed at once.
	maxAddresses = 4
)

// State is what is known of a link. The zero State is invalid.
type State uint8

// States of a Link.
const (
	// Unknown: nothing has been proven yet, or there is no session any more.
	Unknown State = iota + 1
	// Open: datagrams of the peer have arrived over the direct link in answer to datagrams of this node.
	Open
	// Broken: the link does not carry datagrams, or carries them in one direction only.
	Broken
)

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Open:
		return "open"
	case Broken:
		return "broken"
	default:
		return "invalid"
	}
}

// Observation is what the owner knows of a peer at the time of a Tick.
type Observation struct {
	// Direct: datagrams for the peer are sent to the peer itself. Relayed: they are sent to a relay. Neither is set
	// while the peer has no address.
	Direct, Relayed bool
	// Session: there is a session with the peer. Keep: a session must be kept even if no frames pass.
	Session, Keep bool
	// Unanswered is the number of initiations in a row without an answer; values below Tries may be reported as 0.
	Unanswered int
	// Silent: frames are sent to the peer, or its kernel path is in doubt, and nothing has arrived from it for Silence.
	Silent bool
	// Configured is the address that the peer announces, Observed the source of its last direct datagram, Proven where it
	// last answered. Each may be the zero AddrPort.
	Configured, Observed, Proven netip.AddrPort
}

// Actions is what the owner does after a Tick.
type Actions struct {
	// RequestSession: start a handshake with the peer, if none is under way. Its initiations also try the link itself.
	RequestSession bool
	// UseSession: mark the present session as used, so that it does not expire.
	UseSession bool
	// Probes are the probes to send.
	Probes []Probe
}

// Probe is a probe to send to an address: the peer's answer has its token.
type Probe struct {
	Addr  netip.AddrPort
	Token uint32
}

// Link is the state of the link to one peer. Its methods belong to one goroutine at a time.
type Link struct {
	state  State
	proofs int // answered probes since the last change of state
	misses int // probes in a row without an answer

	sent     []Probe // the last set of probes; none: it was answered, or there was none
	probedAt time.Time

	punchAddr  netip.AddrPort // the address at which another node has observed the peer
	punchAt    time.Time      // when the hole punch started
	punchUntil time.Time
}

// New returns a Link in state Unknown.
func New() *Link { return &Link{state: Unknown} }

// State returns what is known of the link.
func (l *Link) State() State { return l.state }

// Tick moves the link on to now. random returns uniform random numbers that an attacker cannot predict; it is called
// once for each probe. The caller does not change Actions.Probes.
func (l *Link) Tick(o Observation, now time.Time, random func() uint32) Actions {
	if o.Direct && o.initiationsFailed() {
		l.fail()
	}
	a := Actions{UseSession: o.Session && o.Keep, RequestSession: !o.Session && (o.Keep || l.state == Broken)}
	if !o.Session && l.state == Open {
		l.state = Unknown
	}
	// A session that the peer has begun proves nothing. One that is kept has no frames that would.
	unproven := o.Keep && l.state == Unknown
	unused := o.Relayed || l.state == Broken || unproven
	if !o.Session || !unused && !o.Silent {
		l.misses = 0
		return a
	}
	if now.Sub(l.probedAt) < l.interval(o.Silent, now) {
		return a
	}
	l.countLastProbe(now)
	if (!unused || unproven && !o.Relayed && o.Silent) && l.misses >= maxMisses {
		l.fail()
	}
	l.probedAt, l.sent = now, nil
	for _, addr := range l.addresses(o, now) {
		l.sent = append(l.sent, Probe{Addr: addr, Token: max(random(), 1)})
	}
	a.Probes = l.sent
	return a
}

// initiationsFailed reports whether the handshakes show that the link does not work.
func (o *Observation) initiationsFailed() bool {
	if o.Observed.IsValid() {
		return o.Unanswered >= Tries
	}
	return o.Unanswered >= TriesFirst
}

// interval returns the time between the last probe and the next one.
func (l *Link) interval(silent bool, now time.Time) time.Duration {
	if silent || l.proofs > 0 || now.Before(l.punchUntil) {
		return TickInterval
	}
	return probeInterval
}

// countLastProbe counts the last probe as missed if it has no answer.
func (l *Link) countLastProbe(now time.Time) {
	if len(l.sent) == 0 {
		return
	}
	l.misses++
	if now.Sub(l.probedAt) > proofWindow {
		l.proofs = 0
	}
}

// addresses returns the addresses at which the peer may be reached directly, each once.
func (l *Link) addresses(o Observation, now time.Time) (all []netip.AddrPort) {
	candidates := [maxAddresses]netip.AddrPort{o.Configured, o.Proven, o.Observed}
	if now.Before(l.punchUntil) {
		candidates[maxAddresses-1] = l.punchAddr
	}
	for _, addr := range candidates {
		if addr.IsValid() && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

// HandleReply handles the answer to a probe. direct says that it came from the peer itself. at is the address of the last set
// of probes at which the peer was reached, not valid if token is of none of them; works reports that the link was proven by
// this answer. An answer that came over a relay has an address but proves nothing, as the peer's own datagrams did not
// arrive over the link.
func (l *Link) HandleReply(token uint32, direct bool) (at netip.AddrPort, works bool) {
	i := slices.IndexFunc(l.sent, func(p Probe) bool { return p.Token == token })
	if i < 0 {
		return netip.AddrPort{}, false
	}
	at = l.sent[i].Addr
	if !direct {
		return at, false
	}
	l.sent, l.misses = nil, 0
	l.proofs++
	if l.proofs < neededProofs {
		return at, false
	}
	l.HandleResponse()
	return at, true
}

// HandleResponse handles an answered handshake: the peer has answered, from its own address, an initiation of this
// node. That proves both directions.
func (l *Link) HandleResponse() {
	l.state, l.proofs, l.misses = Open, 0, 0
}

// StartPunch starts a hole punch: for punchFor from now on the peer is also probed at addr, where another node has
// observed it, at every Tick, beginning with the next one. Both peers of the pair do so at once, and each thereby opens
// its own NAT for the other. It reports false, and does nothing, if the last one started less than punchPause ago.
func (l *Link) StartPunch(addr netip.AddrPort, now time.Time) bool {
	if since := now.Sub(l.punchAt); since >= 0 && since < punchPause {
		return false
	}
	l.punchAddr, l.punchAt, l.punchUntil, l.probedAt = addr, now, now.Add(punchFor), time.Time{}
	return true
}

// fail moves the link to Broken.
func (l *Link) fail() { l.state, l.proofs, l.misses = Broken, 0, 0 }
