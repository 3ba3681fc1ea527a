package hostnet

import (
	"net/netip"
	"time"
)

// How long a change must last before it is followed. A lease that is renewed, or a link that goes down and up, takes the address
// away for less.
const (
	// settle is how long the address must be missing.
	settle = 1500 * time.Millisecond
	// settleFamily is the same where only an address of the other family is left: that one is often configured first.
	settleFamily = 10 * time.Second
)

// Follower decides which address of the host a node uses while the host's addresses change. It is pure: it belongs to one goroutine,
// and time is an argument. Make it with NewFollower.
type Follower struct {
	fixed   bool // the operator has given the address
	wasHere bool // the host has had it
	addr    netip.Addr
	link    string // that had it last
	mtu     int    // of that link in bytes; 0: not known
	gone    time.Time
}

// Step is a decision of a Follower.
type Step struct {
	Addr netip.Addr // at which the other nodes shall reach this one; never changes if it is fixed
	// Local: Addr is an address of this host. Missing: it was one, and was removed or its interface is down, and there is no other.
	Local, Missing bool
	MTU            int // of the interface that has or had Addr, in bytes
	// Again is after what time to look again although nothing changes; 0: never.
	Again time.Duration
}

// NewFollower returns a Follower of addr, which the node uses now. If the operator has given it, it is fixed, and the first look shows
// whether it is an address of this host.
func NewFollower(addr netip.Addr, fixed bool) *Follower {
	return &Follower{addr: addr, fixed: fixed, wasHere: !fixed}
}

// Wants reports whether Observe needs a candidate for these addresses: looking for one may take time.
func (f *Follower) Wants(list []Address) bool { return !f.fixed && f.wasHere && !f.usable(list) }

// Link returns the name of the interface that had the address last; empty: not known.
func (f *Follower) Link() string { return f.link }

// usable reports whether the host has the address, and may use it for new sessions.
func (f *Follower) usable(list []Address) bool {
	own, ok := find(list, f.addr)
	return ok && own.Up && !own.Tentative && !own.Deprecated
}

// Observe returns the decision about the addresses of the host at now. candidate is the address that the node would choose if it
// started now; not valid: none.
func (f *Follower) Observe(list []Address, candidate netip.Addr, now time.Time) Step {
	own, here := find(list, f.addr)
	if here {
		f.wasHere, f.link, f.mtu = true, own.Link, min(own.MTU, MaxMTU)
	}
	if f.usable(list) || f.fixed || !f.wasHere {
		f.gone = time.Time{}
		return f.step(here, f.wasHere && (!here || !own.Up), 0)
	}
	if f.gone.IsZero() {
		f.gone = now
	}
	wait := settle
	if candidate.IsValid() && candidate.Is4() != f.addr.Is4() {
		wait = settleFamily
	}
	if left := wait - now.Sub(f.gone); left > 0 {
		return f.step(here, false, left)
	}
	next, ok := find(list, candidate)
	if !ok || !next.Up || next.Tentative || next.Addr == f.addr || next.Deprecated && here && own.Up {
		return f.step(here, !here || !own.Up, 0)
	}
	f.addr, f.link, f.mtu, f.gone = next.Addr, next.Link, min(next.MTU, MaxMTU), time.Time{}
	return f.step(true, false, 0)
}

func (f *Follower) step(local, missing bool, again time.Duration) Step {
	mtu := f.mtu
	if mtu == 0 {
		mtu = defaultMTU
	}
	return Step{Addr: f.addr, Local: local, Missing: missing, MTU: mtu, Again: again}
}
