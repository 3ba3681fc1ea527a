package carrier

import (
	"slices"
	"time"
)

// Times and counts of a Path. Each duration is varied by up to a tenth in both directions, so that nodes that start
// together do not stay in step. Under traffic, a path that breaks is left after the rest of a gap and three gaps more:
// 880 ms at most, if userspace carries the frames instead.
const (
	gap      = 200 * time.Millisecond // between probes, under traffic and until a path is proven
	idle     = 5 * time.Second        // between probes of a path without traffic
	busyFor  = time.Second            // how long after a frame a path counts as under traffic
	needed   = 3                      // replies in a row that prove a path
	lostMost = 3                      // probes in a row without a reply that end a path, if userspace is proven
	unsure   = time.Second            // between probes of a path without replies that is kept
	keepMost = 5 * time.Minute        // a path without replies is kept for at most this long: the peer may be gone for good
	tryMost  = 5                      // probes without a reply that end an attempt to prove a path
	pauseMin = time.Second            // before the next attempt; doubled each time
	pauseMax = time.Minute            // the longest pause
	steady   = time.Minute            // a path in use for this long starts again with the shortest pause
	replyGap = 20 * time.Millisecond  // the shortest time between replies, whatever a peer sends
)

// State is the state of a Path. The zero State is invalid.
type State uint8

// States of a Path.
const (
	// Paused: the kernel path is not used and not probed for a while, as probes were lost on it.
	Paused State = iota + 1
	// Probing: probes are sent; the peer is carried in userspace.
	Probing
	// Carrying: the path is proven; the peer is carried by the kernel.
	Carrying
)

// String returns the name of the state in the status document and in logs.
func (s State) String() string {
	switch s {
	case Paused:
		return "paused"
	case Probing:
		return "probing"
	case Carrying:
		return "carrying"
	default:
		return "invalid"
	}
}

// Path decides whether the kernel carries one peer. It does no I/O and has no clock: its owner calls Next when Due has
// come, passes it the probes from the peer, sends the probes that both return, and checks State after each call. The
// owner sets the fields From and To of probes.
//
// The kernel carries frames to the peer as soon as several probes in a row were answered, which proves both directions,
// and as long as the peer's own probes have the flag Willing. Both ends decide for themselves.
//
// Probes are answered by the peer's daemon. If it is stopped or dead, no probe is answered, although the kernels of both ends still
// carry frames, and userspace would not. So a path without replies is left only when the peer was heard in userspace since
// (Heard): for a carrier that works. See docs/adr/0032-proven-carriers.md.
type Path struct {
	rand  func() uint64
	state State
	next  time.Time // when Next has work

	open   []uint64 // nonces of the probes without a reply, the oldest first
	streak int      // replies in a row

	lostSince time.Time // when the first of the probes without a reply was sent
	heard     time.Time // when the peer last proved that userspace reaches it
	kept      bool      // the path is in use although its probes are lost

	willing   bool      // in the peer's last probe
	busyUntil time.Time // until when the path counts as under traffic
	replyAt   time.Time // the time of the next reply at the earliest
	since     time.Time // of state Carrying

	pause time.Duration // the last pause after a path in use failed
	retry time.Duration // the last pause after an attempt failed
	firm  bool          // a probe of the peer does not end the pause
}

// NewPath returns a Path that begins to probe at now. rand returns unpredictable random numbers.
func NewPath(rand func() uint64, now time.Time) *Path {
	p := &Path{rand: rand, state: Paused, open: make([]uint64, 0, tryMost)}
	p.schedule(now, gap)
	return p
}

// State returns the state; the kernel carries the peer in state Carrying only.
func (p *Path) State() State { return p.state }

// Due returns when to call Next. Any other call may change it.
func (p *Path) Due() time.Time { return p.next }

// Next advances the path to now and returns the probe to send; ok is false if there is none.
func (p *Path) Next(now time.Time) (probe Probe, ok bool) {
	if now.Before(p.next) {
		return Probe{}, false
	}
	if p.state == Paused {
		p.begin()
	}
	pause, lost := gap, p.state == Carrying && len(p.open) >= lostMost
	switch n := len(p.open); {
	case p.state != Carrying && n >= tryMost || lost && p.heard.After(p.lostSince),
		lost && now.Sub(p.lostSince) >= keepMost:
		p.leave(now, p.state == Carrying)
		return Probe{}, false
	case lost:
		pause, p.kept = unsure, true
		if n >= tryMost {
			p.open = slices.Delete(p.open, 0, 1)
		}
	}
	nonce := p.rand() | 1 // never 0
	if len(p.open) == 0 {
		p.lostSince = now
	}
	p.open = append(p.open, nonce)
	p.schedule(now, pause)
	return Probe{Willing: true, Nonce: nonce}, true
}

// Doubtful reports whether the path is in use and a reply is overdue. The owner then finds out whether userspace reaches the peer,
// and calls Heard.
func (p *Path) Doubtful() bool { return p.state == Carrying && len(p.open) > 1 }

// Kept reports whether the path is in use although its probes are lost: no better carrier is proven.
func (p *Path) Kept() bool { return p.state == Carrying && p.kept }

// Heard records that at the time at the peer proved that userspace reaches it in both directions. A path without replies is then
// left at now.
func (p *Path) Heard(at, now time.Time) {
	if at.After(p.heard) {
		p.heard = at
	}
	if p.Kept() && p.heard.After(p.lostSince) && p.next.After(now) {
		p.next = now
	}
}

// Receive handles a probe from the peer and returns the reply to send; ok is false if there is none.
func (p *Path) Receive(in Probe, now time.Time) (reply Probe, ok bool) {
	p.willing = in.Willing
	if in.Reply {
		p.answered(in.Echo, now)
	} else if p.state == Paused && !p.firm && in.Willing {
		p.next = now // the peer is reachable
	}
	switch {
	case p.state == Carrying && !p.willing:
		// The peer misses replies, or has only just started: both have to prove the path again.
		p.begin()
		p.schedule(now, gap)
	case p.state == Probing && p.streak >= needed && p.willing && len(p.open) < lostMost:
		p.state, p.since = Carrying, now
		p.retry = 0
	}
	if in.Reply || in.Nonce == 0 || now.Before(p.replyAt) {
		return Probe{}, false
	}
	p.replyAt = now.Add(replyGap)
	return Probe{Reply: true, Willing: p.state != Paused, Echo: in.Nonce}, true
}

// Traffic records that frames pass through the carrier at now, perhaps those of this peer. A path that breaks then loses
// frames, so it is probed more often.
func (p *Path) Traffic(now time.Time) {
	p.busyUntil = now.Add(busyFor)
	if p.state == Carrying && len(p.open) == 0 && p.next.After(now.Add(gap+gap/10)) {
		p.next = now
	}
}

// Fail records at now that the kernel path cannot be used, whatever the result of the probes.
func (p *Path) Fail(now time.Time) { p.leave(now, true) }

// Goodbye returns the probe that a node sends to a peer that it does not reach by the kernel any more. It gets no
// reply.
func Goodbye() Probe { return Probe{Reply: true} }

// answered records the reply to the probe with nonce; a late reply counts as well. Earlier probes without a reply count
// as lost.
func (p *Path) answered(nonce uint64, now time.Time) {
	i := slices.Index(p.open, nonce)
	if i < 0 {
		return
	}
	p.open = slices.Delete(p.open, 0, i+1)
	p.lostSince, p.kept = now, false
	if i > 0 {
		p.streak = 0
	}
	p.streak++
	proven := p.state == Probing && p.streak >= needed
	calm := p.state == Carrying && !now.Before(p.busyUntil)
	if len(p.open) == 0 && (proven || calm) {
		p.schedule(now, idle)
	}
}

// begin starts an attempt to prove the path.
func (p *Path) begin() {
	p.state, p.streak, p.open, p.kept = Probing, 0, p.open[:0], false
}

// leave stops the use of the path for a pause. After a path in use the pause is firm, and longer each time that the
// path worked for a short time only, so that a flapping path does not disturb the traffic. After a failed attempt it is
// longer each time as well, but a probe of the peer ends it.
func (p *Path) leave(now time.Time, firm bool) {
	pause := &p.retry
	if firm {
		pause = &p.pause
		if p.state == Carrying && now.Sub(p.since) >= steady {
			p.pause = 0
		}
	}
	*pause = min(max(2**pause, pauseMin), pauseMax)
	p.begin()
	p.state, p.firm = Paused, firm
	p.schedule(now, *pause)
}

// schedule sets Due to about d after now.
func (p *Path) schedule(now time.Time, d time.Duration) {
	p.next = now.Add(d - d/10 + time.Duration(p.rand()%uint64(d/5)))
}
