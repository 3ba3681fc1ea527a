package session

import (
	"net/netip"
	"time"

	"weft/internal/ratelimit"
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
	free    ratelimit.Bucket
	cookies ratelimit.Bucket
	resets  ratelimit.Bucket
	notices ratelimit.Bucket
	// addresses are buckets by a hash of the address; addresses with the same hash share one.
	addresses [256]ratelimit.Bucket
}

func newRateLimiter() rateLimiter {
	l := rateLimiter{
		free: ratelimit.New(freeRate, freeBurst), cookies: ratelimit.New(cookieRate, cookieBurst),
		resets: ratelimit.New(resetRate, resetBurst), notices: ratelimit.New(noticeRate, noticeBurst),
	}
	for i := range l.addresses {
		l.addresses[i] = ratelimit.New(addressRate, addressBurst)
	}
	return l
}

// allowAddress reports whether one more initiation with a cookie may come from addr at now. key makes the hash
// unpredictable.
func (l *rateLimiter) allowAddress(key [KeyLen]byte, addr netip.Addr, now time.Time) bool {
	text := addr.As16()
	sum := mac(key, text[:])
	return l.addresses[sum[0]].Allow(now)
}
