package mesh

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"weft/mesh/memberlog"
	"weft/mesh/mismatch"
)

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
		m.reportMismatch(addr, mismatch.Unclear)
	}
	if n := strings.Count(out.String(), "\n"); n == 0 || n > memberlog.Burst+1 {
		t.Errorf("%d lines", n)
	}
}
