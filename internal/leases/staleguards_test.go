package leases

import (
	"slices"
	"testing"
	"time"

	"weft/internal/guard"
)

// TestStaleGuards: a guard ends when its port has been missing for the grace, and not while a pod starts.
func TestStaleGuards(t *testing.T) {
	start := time.Unix(1000, 0)
	var entries []guard.Entry
	for _, link := range []string{"vweftgone", "vweftlater", "vwefthere"} {
		entries = append(entries, guard.Entry{Port: guard.Port{Link: link}})
	}
	there := map[string]bool{"vwefthere": true}
	var s staleGuards
	at := func(d time.Duration) []string {
		return s.collect(entries, func(link string) bool { return there[link] }, start.Add(d), time.Minute)
	}
	if ended := at(time.Hour); len(ended) > 0 {
		t.Errorf("on the first look: %v", ended)
	}
	there["vweftlater"] = true
	if ended := at(time.Hour + 59*time.Second); len(ended) > 0 {
		t.Errorf("within the grace: %v", ended)
	}
	if ended := at(time.Hour + time.Minute); !slices.Equal(ended, []string{"vweftgone"}) {
		t.Errorf("after the grace: %v", ended)
	}
}
