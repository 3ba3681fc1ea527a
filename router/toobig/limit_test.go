package toobig

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	l, now := NewLimiter(), time.Unix(1_700_000_000, 0)
	allowed := func(to netip.Addr, n int) (got int) {
		for range n {
			if l.Allow(to, now) {
				got++
			}
		}
		return got
	}
	if got := allowed(ip4A, 1000); got != hostBurst {
		t.Errorf("%d at once", got)
	}
	now = now.Add(100 * time.Millisecond)
	if got := allowed(ip4A, 1000); got != hostRate/10 {
		t.Errorf("%d a tenth of a second later", got)
	}
	now = now.Add(-time.Hour)
	if got := allowed(ip4A, 1000); got != 0 {
		t.Errorf("%d when the clock went back", got)
	}
	now = now.Add(2 * time.Hour)
	sum := 0
	for i := range 1000 {
		sum += allowed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 10)
	}
	if sum != replyBurst {
		t.Errorf("%d at once to many", sum)
	}
	if n := testing.AllocsPerRun(100, func() { l.Allow(ip6A, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
