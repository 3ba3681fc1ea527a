package drop

import (
	"maps"
	"testing"
)

// TestReasons: every reason has a name of its own and a meaning, and no other value has a name.
func TestReasons(t *testing.T) {
	seen := map[string]bool{"": true, "invalid": true}
	for _, r := range All() {
		if seen[r.String()] || r.Meaning() == "" {
			t.Errorf("reason %d has the name %q and the meaning %q", r, r, r.Meaning())
		}
		seen[r.String()] = true
	}
	if Reason(0).String() != "invalid" || end.String() != "invalid" {
		t.Error("an invalid reason has a name")
	}
}

// TestCounters: only the counters of reasons that occurred are returned.
func TestCounters(t *testing.T) {
	var c Counters
	c.Add(Queue, 2)
	c.Add(Runt, 1)
	c.Add(Queue, 3)
	if got, want := c.Nonzero(), map[Reason]uint64{Queue: 5, Runt: 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
