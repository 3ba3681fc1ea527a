package mesh

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/mesh/memberlog"
)

// TestKeyMismatchesAreBounded records far more of them than there is room for.
func TestKeyMismatchesAreBounded(t *testing.T) {
	s := newKeyMismatches()
	now := time.Unix(1000, 0)
	addr := netip.MustParseAddr("10.0.0.1")
	for range 1000 {
		addr, now = addr.Next(), now.Add(time.Millisecond)
		s.record(addr, MismatchUnclear, now)
	}
	list := s.list(now)
	if len(list) != maxKeyMismatches || len(s.byAddr) != maxKeyMismatches || list[maxKeyMismatches-1].Addr != addr {
		t.Errorf("%d mismatches, the last %v, want %v", len(list), list[len(list)-1].Addr, addr)
	}
	if s.record(addr, MismatchUnclear, now) || !s.record(addr, MismatchThere, now) || s.record(addr, MismatchUnclear, now) {
		t.Error("a known mismatch is logged again, or one with a clearer reason is not")
	}
	if !s.record(addr, MismatchThere, now.Add(keyMismatchLogPause)) {
		t.Error("it is not logged again after the pause")
	}
	if left := s.list(now.Add(keyMismatchTTL + keyMismatchLogPause + 1)); len(left) != 0 {
		t.Errorf("%v are listed after their TTL", left)
	}
}

// TestKeyMismatchesDoNotFillTheLog reports packets under another key from a new address each.
func TestKeyMismatchesDoNotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	m, err := New(Config{
		Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr, Keys: testKeys("a"),
		Logger: slog.New(slog.NewTextHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.1")
	for range 10000 {
		addr = addr.Next()
		m.reportMismatch(addr, MismatchUnclear)
	}
	if n := strings.Count(out.String(), "\n"); n == 0 || n > memberlog.Burst+1 {
		t.Errorf("%d lines", n)
	}
}
