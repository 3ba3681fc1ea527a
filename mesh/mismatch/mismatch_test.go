package mismatch

import (
	"net/netip"
	"testing"
	"time"
)

// TestRecentIsBounded records far more of them than there is room for.
func TestRecentIsBounded(t *testing.T) {
	s := NewRecent()
	now := time.Unix(1000, 0)
	addr := netip.MustParseAddr("10.0.0.1")
	for range 1000 {
		addr, now = addr.Next(), now.Add(time.Millisecond)
		s.Record(addr, Unclear, now)
	}
	list := s.List(now)
	if len(list) != maxEntries || len(s.byAddr) != maxEntries || list[maxEntries-1].Addr != addr {
		t.Errorf("%d mismatches, the last %v, want %v", len(list), list[len(list)-1].Addr, addr)
	}
	if s.Record(addr, Unclear, now) || !s.Record(addr, There, now) || s.Record(addr, Unclear, now) {
		t.Error("a known mismatch is logged again, or one with a clearer reason is not")
	}
	if !s.Record(addr, There, now.Add(logPause)) {
		t.Error("it is not logged again after the pause")
	}
	if left := s.List(now.Add(ttl + logPause + 1)); len(left) != 0 {
		t.Errorf("%v are listed after their TTL", left)
	}
}
