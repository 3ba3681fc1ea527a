package vxlan

import (
	"slices"
	"time"
)

// Times and counts of a Path. Each duration is varied by a tenth either way, so that nodes that start together do not
// go on in step. Under traffic a path that breaks is left after the rest of a gap and three gaps more: 880 ms at most.
const (
	gap      = 200 * time.Millisecond // between probes, under traffic and until a path is proven
	idle     = 5 * time.Second        // between probes of a path on which nothing passes
	busyFor  = time.Second            // how long after a frame a path counts as under traffic
	needed   = 3                      // answers in a row that prove a path
	lostMost = 3                      // probes in a row without an answer that end a path
	tryMost  = 5                      // and that end an attempt to prove one
	pauseMin = time.Second            // before the next attempt, doubled each time
	pauseMax = time.Minute            // but no longer
	steady   = time.Minute            // a path that held for so long is not punished for its past
	replyGap = 20 * time.Millisecond  // between answers at least, whatever a peer sends
)

// State is where a Path stands. The zero State is invalid.
type State uint8

// States of a Path.
const (
	// Userspace: the kernel path is left alone for a while, as probes were lost on it.
	Userspace State = iota + 1
	// Probing: probes are sent, and the peer is carried in userspace.
	Probing
	// Kernel: the path is proven, and the peer carried by the kernel.
	Kernel
)

// String returns the state as status and logs have it.
func (s State) String() string {
	switch s {
	case Userspace:
		return "userspace"
	case Probing:
		return "probing"
	case Kernel:
		return "kernel"
	default:
		return "invalid"
	}
}

// Path decides whether one peer is carried by the kernel. It does no I/O and has no clock: who owns it calls Next when
// Due says so, gives it the probes that come from the peer, sends what both return, and looks at State after each call.
// The fields From and To of probes are the owner's.
//
// The kernel carries frames to the peer once probes have gone there and back several times in a row, which proves both
// directions, and while the peer's own probes say that it is willing. Both ends do the same, each for itself.
type Path struct {
	rand  func() uint64
	state State
	next  time.Time // when Next has something to do

	open   []uint64 // nonces of the probes without an answer yet, the oldest first
	streak int      // answers in a row

	willing   bool      // what the peer said last
	busyUntil time.Time // traffic was seen
	replyAt   time.Time // no answer before
	since     time.Time // of state Kernel

	pause time.Duration // the last one after a path that failed
	retry time.Duration // the last one after an attempt that failed
	firm  bool          // the pause is not cut short
}

// NewPath returns a Path that begins to probe at now. rand returns random numbers that nobody can guess.
func NewPath(rand func() uint64, now time.Time) *Path {
	p := &Path{rand: rand, state: Userspace, open: make([]uint64, 0, tryMost)}
	p.schedule(now, gap)
	return p
}

// State returns where the path stands; the peer is carried by the kernel in state Kernel alone.
func (p *Path) State() State { return p.state }

// Due returns when Next is to be called. Any other call may change it.
func (p *Path) Due() time.Time { return p.next }

// Next moves the path on to now and returns the probe to send, if there is one to send now.
func (p *Path) Next(now time.Time) (probe Probe, ok bool) {
	if now.Before(p.next) {
		return Probe{}, false
	}
	if p.state == Userspace {
		p.begin()
	}
	if n := len(p.open); n >= tryMost || n >= lostMost && p.state == Kernel {
		p.leave(now, p.state == Kernel)
		return Probe{}, false
	}
	nonce := p.rand() | 1 // never 0
	p.open = append(p.open, nonce)
	p.schedule(now, gap)
	return Probe{Willing: true, Nonce: nonce}, true
}

// Receive takes a probe from the peer and returns the answer to send, if it gets one.
func (p *Path) Receive(in Probe, now time.Time) (reply Probe, ok bool) {
	p.willing = in.Willing
	if in.Reply {
		p.answered(in.Echo, now)
	} else if p.state == Userspace && !p.firm && in.Willing {
		p.next = now // the peer is there after all
	}
	switch {
	case p.state == Kernel && !p.willing:
		// It misses answers, or has only just started: the path has to be proven again, to both.
		p.begin()
		p.schedule(now, gap)
	case p.state == Probing && p.streak >= needed && p.willing && len(p.open) < lostMost:
		p.state, p.since = Kernel, now
		p.retry = 0
	}
	if in.Reply || in.Nonce == 0 || now.Before(p.replyAt) {
		return Probe{}, false
	}
	p.replyAt = now.Add(replyGap)
	return Probe{Reply: true, Willing: p.state != Userspace, Echo: in.Nonce}, true
}

// Traffic notes that frames pass through the device at now, perhaps this peer's: a path that breaks now costs frames,
// and is watched closely.
func (p *Path) Traffic(now time.Time) {
	p.busyUntil = now.Add(busyFor)
	if p.state == Kernel && len(p.open) == 0 && p.next.After(now.Add(gap+gap/10)) {
		p.next = now
	}
}

// Fail notes at now that the kernel path cannot be used, whatever the probes say.
func (p *Path) Fail(now time.Time) { p.leave(now, true) }

// Farewell returns what a node says to a peer that it will not reach by the kernel any more. It gets no answer.
func Goodbye() Probe { return Probe{Reply: true} }

// answered takes the answer to the probe with nonce. A late one counts as well: what matters is that it came. Those
// that were sent before it and have no answer count as lost.
func (p *Path) answered(nonce uint64, now time.Time) {
	i := slices.Index(p.open, nonce)
	if i < 0 {
		return
	}
	p.open = slices.Delete(p.open, 0, i+1)
	if i > 0 {
		p.streak = 0
	}
	p.streak++
	proven := p.state == Probing && p.streak >= needed
	calm := p.state == Kernel && !now.Before(p.busyUntil)
	if len(p.open) == 0 && (proven || calm) {
		p.schedule(now, idle)
	}
}

// begin starts to prove the path.
func (p *Path) begin() {
	p.state, p.streak, p.open = Probing, 0, p.open[:0]
}

// leave gives the path up for a while. The pause is firm after a path that was in use, and longer each time that it
// held for a short time only: one that comes and goes shall not take the traffic along. After an attempt that failed it
// is longer each time as well, but the peer can end it by a probe of its own.
func (p *Path) leave(now time.Time, firm bool) {
	pause := &p.retry
	if firm {
		pause = &p.pause
		if p.state == Kernel && now.Sub(p.since) >= steady {
			p.pause = 0
		}
	}
	*pause = min(max(2**pause, pauseMin), pauseMax)
	p.begin()
	p.state, p.firm = Userspace, firm
	p.schedule(now, *pause)
}

// schedule has Next called about d after now.
func (p *Path) schedule(now time.Time, d time.Duration) {
	p.next = now.Add(d - d/10 + time.Duration(p.rand()%uint64(d/5)))
}
