package statuspage

import (
	"testing"
	"time"
)

func TestFormat(t *testing.T) {
	now := time.Date(2026, 11, 28, 22, 17, 58, 0, time.FixedZone("CET", 3600))
	for _, c := range []struct{ got, want string }{
		{countText(999), "999"}, {countText(502443), "502\u202f443"}, {countText(uint64(1048574)), "1\u202f048\u202f574"},
		{plural(1, "node"), "1 node"}, {plural(1200, "node"), "1\u202f200 nodes"},
		{shareText(0, 5), "0 %"}, {shareText(1, 1000), "< 1 %"}, {shareText(1, 3), "33 %"},
		{shareText(999, 1000), "> 99 %"}, {shareText(5, 5), "100 %"},
		{rateText(125e6), "1.0\u00a0Gbit/s"}, {bytesText(999), "999\u00a0B"},
		{shortened("worker-17", 9), "worker-17"}, {shortened("worker-117", 9), "worker-1…"},
		{distance(59 * time.Second), "just now"}, {distance(-time.Second), "just now"}, {distance(3 * time.Minute), "3 min ago"},
		{distance(2 * time.Hour), "2 h ago"}, {distance(49 * time.Hour), "2 days ago"}, {distance(-5 * 24 * time.Hour), "in 5 days"},
		{newMoment(now.Add(-2*time.Hour).UTC(), now).Exact, "2026-11-28 20:17:58 CET"},
		{newMoment(now, now).Machine, "2026-11-28T22:17:58+01:00"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
