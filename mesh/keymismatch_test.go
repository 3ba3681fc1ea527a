package mesh

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestMismatchIn(t *testing.T) {
	for _, tt := range []struct {
		line string
		addr string // empty: none
		why  MismatchReason
	}{
		{"Decrypt packet failed: no installed keys could decrypt the message from=192.168.1.7:6783", "192.168.1.7", MismatchUnclear},
		{"Decrypt packet failed: unsupported encryption version 7 from=[fd00::7]:6783", "fd00::7", MismatchUnclear},
		{"Decrypt packet failed: cannot decrypt empty payload from=[::ffff:10.0.0.1]:1", "10.0.0.1", MismatchUnclear},
		{"failed to receive: no installed keys could decrypt the message from=192.168.1.7:40000", "192.168.1.7", MismatchOther},
		{"failed to receive: encryption is configured but remote state is not encrypted from=192.168.1.7:40000", "192.168.1.7", MismatchThere},
		{"failed to receive: remote state is encrypted and encryption is not configured from=192.168.1.7:40000", "192.168.1.7", MismatchHere},
		{"failed to receive: EOF from=192.168.1.7:40000", "", 0},
		{"failed to receive: no installed keys could decrypt the message", "", 0},
		{"failed to receive: no installed keys could decrypt the message from=pipe", "", 0},
		{`discarding packet with unacceptable label "Decrypt packet failed: ": from=192.168.1.7:1`, "", 0},
		{"", "", 0},
	} {
		addr, why, ok := mismatchIn(tt.line)
		if ok != (tt.addr != "") || ok && (addr.String() != tt.addr || why != tt.why) {
			t.Errorf("%q: %v, %d, %v", tt.line, addr, why, ok)
		}
	}
}

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

// TestKeyMismatchesDoNotFillTheLog writes the lines of memberlist for packets from a new address each.
func TestKeyMismatchesDoNotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	log := newMemberlistLog(slog.New(slog.NewTextHandler(&out, nil)), newKeyMismatches())
	addr := netip.MustParseAddr("10.0.0.1")
	for range 10000 {
		addr = addr.Next()
		log.Printf("[ERR] memberlist: %s%s from=%s", textPacket, textNoKey, fmt.Sprint(netip.AddrPortFrom(addr, 6783)))
	}
	if n := strings.Count(out.String(), "\n"); n == 0 || n > logBurst+1 {
		t.Errorf("%d lines", n)
	}
}
