// Package roaming decides when frames follow a peer to another address. An address is first proven: a probe is sent there,
// and the peer has to answer it (path validation, RFC 9000, section 8.2). Until then frames go where they went before.
//
// Neither an authenticated datagram nor an announcement proves an address. An attacker on the path can send a copy of a
// datagram from any address before the datagram itself arrives, and a member can announce the address of another host.
//
// The package is pure: no goroutine, no clock, no lock and no I/O. The time and random numbers are arguments.
// See docs/adr/0041-proven-endpoints.md.
package roaming

import (
	"net/netip"
	"time"

	"weft/router/elapsed"
)

// Times and counts of a Validator.
const (
	// probeEach is the shortest time between two probes of one peer, whatever is proposed.
	probeEach = 100 * time.Millisecond
	// firstPause is the time between the first probe of a candidate and the second; it is doubled after each.
	firstPause = 200 * time.Millisecond
	// maxProbes is the number of probes after which a candidate is given up; retryAfter is how long it is then ignored.
	maxProbes  = 5
	retryAfter = 10 * time.Second
	// proofWindow is how long the answer to a probe proves its address.
	proofWindow = 3 * time.Second
	// moveEach is the shortest time between two moves of one peer.
	moveEach = 500 * time.Millisecond
	// maxOpen is the number of probes that may still be answered. With probeEach they cover 800 ms at least.
	maxOpen = 8
)

// Reason is why an address is a candidate. The zero Reason is invalid.
type Reason uint8

// Reasons.
const (
	// Seen: an authenticated datagram of the peer came from the address.
	Seen Reason = iota + 1
	// Announced: the peer announces the address.
	Announced

	numReasons
)

// Probe is a probe to send: the peer's answer has its token.
type Probe struct {
	Addr  netip.AddrPort
	Token uint32
}

// Validator proves the addresses of one peer. The zero Validator is ready for use. Its methods belong to one goroutine at
// a time.
type Validator struct {
	candidates [numReasons]candidate
	open       [maxOpen]openProbe // the probes sent last, in a circle
	next       int                // index in open of the next probe
	probedAt   time.Time
	movedAt    time.Time
}

// candidate is an address that may become the endpoint of the peer.
type candidate struct {
	addr   netip.AddrPort // not valid: there is none
	probes int            // sent since it was proposed
	sentAt time.Time      // of the last one
}

// openProbe is a probe that may still be answered.
type openProbe struct {
	Probe
	at time.Time
}

// Propose makes addr a candidate, in place of another one with the same reason. A candidate that did not answer is ignored
// for some seconds.
func (v *Validator) Propose(reason Reason, addr netip.AddrPort, now time.Time) {
	c := &v.candidates[reason]
	if c.addr == addr && (c.probes < maxProbes || elapsed.Since(c.sentAt, now) < retryAfter) {
		return
	}
	*c = candidate{addr: addr}
}

// Next returns the probe that is due at now; call it again until ok is false. random returns uniform random numbers that
// an attacker cannot predict. The probe counts as sent.
func (v *Validator) Next(now time.Time, random func() uint32) (p Probe, ok bool) {
	if elapsed.Since(v.probedAt, now) < probeEach || elapsed.Since(v.movedAt, now) < moveEach {
		return Probe{}, false
	}
	for i := range v.candidates {
		c := &v.candidates[i]
		if !c.addr.IsValid() || c.probes >= maxProbes || c.probes > 0 && elapsed.Since(c.sentAt, now) < firstPause<<(c.probes-1) {
			continue
		}
		p = Probe{Addr: c.addr, Token: max(random(), 1)}
		c.probes++
		c.sentAt, v.probedAt = now, now
		v.open[v.next] = openProbe{Probe: p, at: now}
		v.next = (v.next + 1) % maxOpen
		return p, true
	}
	return Probe{}, false
}

// Proves returns the address that an answer with token, received at now, proves; ok is false if it proves none. The source of
// the answer does not matter: only a peer that has received the probe knows the token.
func (v *Validator) Proves(token uint32, now time.Time) (addr netip.AddrPort, ok bool) {
	for _, p := range v.open {
		if token != 0 && p.Token == token && elapsed.Since(p.at, now) < proofWindow {
			return p.Addr, true
		}
	}
	return netip.AddrPort{}, false
}

// Reached notes that the peer has answered at addr, which is its endpoint from now on; moved says that it was another one
// before. It reports whether addr was an announced candidate. After a move, earlier probes prove nothing any more.
func (v *Validator) Reached(addr netip.AddrPort, moved bool, now time.Time) (announced bool) {
	announced = v.candidates[Announced].addr == addr
	for i := range v.candidates {
		if v.candidates[i].addr == addr {
			v.candidates[i] = candidate{}
		}
	}
	if moved {
		v.open, v.movedAt = [maxOpen]openProbe{}, now
	}
	return announced
}
