package session

import (
	"net/netip"
	"time"
)

// Bounds of what messages may cost, as rate (a second) and burst (at once). A handshake is five multiplications on
// Curve25519: a quarter of a millisecond.
const (
	// freeRate and freeBurst bound the initiations that are accepted without a cookie.
	freeRate, freeBurst = 100, 200
	// addressRate and addressBurst bound the initiations with a cookie from one address.
	addressRate, addressBurst = 20, 20
	// cookieRate and cookieBurst bound the cookie replies that are sent.
	cookieRate, cookieBurst = 2000, 500
	// resetRate and resetBurst bound the unknown-session notices that are believed.
	resetRate, resetBurst = 100, 100
	// noticeRate and noticeBurst bound the unknown-session notices that are sent.
	noticeRate, noticeBurst = 1000, 200
)

// rateLimiter bounds what unauthenticated senders can cost this node. Its memory is constant.
// See docs/adr/0013-late-initiations.md.
type rateLimiter struct {
	free    bucket
	cookies bucket
	resets  bucket
	notices bucket
	// addresses are buckets by a hash of the address; addresses with the same hash share one.
	addresses [256]bucket
}

func newRateLimiter() rateLimiter {
	l := rateLimiter{
		free: newBucket(freeRate, freeBurst), cookies: newBucket(cookieRate, cookieBurst),
		resets: newBucket(resetRate, resetBurst), notices: newBucket(noticeRate, noticeBurst),
	}
	for i := range l.addresses {
		l.addresses[i] = newBucket(addressRate, addressBurst)
	}
	return l
}

// allowAddress reports whether one more initiation with a cookie may come from addr at now. key makes the hash
// unpredictable.
func (l *rateLimiter) allowAddress(key [KeyLen]byte, addr netip.Addr, now time.Time) bool {
	text := addr.As16()
	sum := mac(key, text[:])
	return l.addresses[sum[0]].allow(now)
}

// bucket is a token bucket: it holds up to burst tokens and gains rate tokens a second.
type bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time
}

func newBucket(rate, burst float64) bucket { return bucket{rate: rate, burst: burst, tokens: burst} }

// allow removes a token at now, and reports whether there was one.
func (b *bucket) allow(now time.Time) bool {
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
