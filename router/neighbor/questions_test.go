package neighbor

import (
	"net/netip"
	"testing"
	"time"
)

func TestRepeated(t *testing.T) {
	start := time.Unix(1000, 0)
	type ask struct {
		after time.Duration // since start
		flood bool
	}
	for name, asks := range map[string][]ask{
		"once":                  {{0, false}},
		"as hosts repeat":       {{0, false}, {time.Second, true}, {2 * time.Second, false}},
		"at once":               {{0, false}, {time.Millisecond, false}, {100 * time.Millisecond, false}},
		"tried again":           {{0, false}, {time.Second, true}, {4 * time.Second, false}, {7 * time.Second, true}},
		"again much later":      {{0, false}, {time.Minute, false}, {time.Minute + time.Second, true}},
		"the clock is set back": {{0, false}, {-time.Hour, false}, {time.Second - time.Hour, true}},
	} {
		var q Questions
		for _, a := range asks {
			if got := q.Repeated(ip4B, macA, start.Add(a.after)); got != a.flood {
				t.Errorf("%s: after %s: flooded %v, want %v", name, a.after, got, a.flood)
			}
		}
	}
	var q Questions
	q.Repeated(ip4B, macA, start)
	if q.Repeated(ip4B, macB, start.Add(time.Second)) || q.Repeated(ip4A, macA, start.Add(time.Second)) {
		t.Error("questions of another host, or for another address, are no repetition")
	}
}

// TestRepeatedBounds: a scan of many addresses floods at a bounded rate, and in bounded memory.
func TestRepeatedBounds(t *testing.T) {
	var q Questions
	now, floods := time.Unix(1000, 0), 0
	const seconds, perSecond = 20, 3000
	for range seconds {
		for i := range perSecond {
			if q.Repeated(netip.AddrFrom4([4]byte{10, 32, byte(i >> 8), byte(i)}), macA, now) {
				floods++
			}
			now = now.Add(time.Second / perSecond)
		}
	}
	if most := floodBurst + seconds*floodsPerSecond; floods < most-floodsPerSecond-1 || floods > most {
		t.Errorf("%d floods, want about %d", floods, most)
	}
	for i := range 2 * maxQuestions {
		q.Repeated(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), macB, now)
	}
	if len(q.pending) > maxQuestions {
		t.Errorf("%d questions", len(q.pending))
	}
}
