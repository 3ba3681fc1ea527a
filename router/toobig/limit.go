package toobig

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// Limits of replies: of all, and to one destination. Hosts that hear nothing ask again with their next packet.
const (
	replyRate  = 1000 // a second
	replyBurst = 200
	hostRate   = 100
	hostBurst  = 50
	hostSlots  = 256 // hosts that share a slot share its limit
)

// Limiter bounds the replies, so that nobody can have a storm of them sent, to himself or to another whose address he
// uses. It belongs to one goroutine at a time. Make it with NewLimiter.
type Limiter struct {
	seed  maphash.Seed
	all   bucket
	hosts [hostSlots]bucket
}

// NewLimiter returns a Limiter that allows 100 replies a second to a host, 50 of them at once, and 1,000 a second to all.
func NewLimiter() *Limiter { return &Limiter{seed: maphash.MakeSeed()} }

// Allow reports whether a reply may be sent to the host with the address to at now, and counts it if so. A host that has
// had enough costs the others nothing.
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
	at     time.Time // as of which tokens holds
}

// fill adds what has come in until now, and returns what there is.
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
