package toobig

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// Limits of replies in total, and to one destination. The next packet of a host without a reply may cause one.
const (
	replyRate  = 1000 // a second
	replyBurst = 200
	hostRate   = 100
	hostBurst  = 50
	hostSlots  = 256 // hosts in the same slot share its limit
)

// Limiter bounds the rate of replies, so that a host cannot cause a flood of them to itself, or to the owner of a
// forged source address. It belongs to one goroutine at a time. Make it with NewLimiter.
type Limiter struct {
	seed  maphash.Seed
	all   bucket
	hosts [hostSlots]bucket
}

// NewLimiter returns a Limiter that allows 100 replies a second to one host, 50 of them at once, and 1,000 a second in
// total.
func NewLimiter() *Limiter { return &Limiter{seed: maphash.MakeSeed()} }

// Allow reports whether a reply may be sent to the host with the address to at now, and counts it if so. A host above
// its limit does not use up the limit of the others.
func (l *Limiter) Allow(to netip.Addr, now time.Time) bool {
	b := to.As16()
	host := &l.hosts[maphash.Bytes(l.seed, b[:])%hostSlots]
	if host.fill(now, hostRate, hostBurst) < 1 || l.all.fill(now, replyRate, replyBurst) < 1 {
		return false
	}
	host.tokens--
	l.all.tokens--
	return true
}

// bucket is a token bucket; the zero bucket is full.
type bucket struct {
	tokens float64
	at     time.Time // the time of tokens
}

// fill adds the tokens gained until now, and returns their number.
func (b *bucket) fill(now time.Time, rate, burst float64) float64 {
	switch {
	case b.at.IsZero():
		b.tokens, b.at = burst, now
	case now.After(b.at):
		b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*rate, burst)
		b.at = now
	}
	return b.tokens
}
