// Package ratelimit bounds what others can make a node do in a time.
//
// It is pure: times are arguments.
package ratelimit

import "time"

// Bucket is a token bucket: it holds up to burst tokens and gains rate tokens a second. The zero Bucket has none. Its
// methods belong to one goroutine at a time.
type Bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time
}

// New returns a full bucket.
func New(rate, burst float64) Bucket { return Bucket{rate: rate, burst: burst, tokens: burst} }

// Allow removes a token at now, and reports whether there was one.
func (b *Bucket) Allow(now time.Time) bool {
	if since := now.Sub(b.at); !b.at.IsZero() && since > 0 {
		b.tokens = min(b.burst, b.tokens+since.Seconds()*b.rate)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
