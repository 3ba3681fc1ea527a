package ipam

import (
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/health"
)

// TestEventsEnd: what happened to a pool is shown for its lifetime after it happened last, and few events are kept.
func TestEventsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for code, lifetime := range lifetimes {
			var e events
			e.report(code, "Fix it.", "it happened to %s", "b")
			time.Sleep(lifetime / 2)
			e.report(code, "Fix it.", "it happened to %s", "b")
			time.Sleep(lifetime / 2)
			if found := e.findings(time.Now()); len(found) != 1 || found[0].Code != code || found[0].Text != "it happened to b" {
				t.Errorf("%s: %+v, want one event", code, found)
			}
			time.Sleep(lifetime / 2)
			if found := e.findings(time.Now()); len(found) != 0 {
				t.Errorf("%s: %+v is still there", code, found)
			}
		}
		var many events
		for i := range 3 * maxEvents {
			many.report(health.OwnershipConflict, "", "%d", i)
		}
		if found := many.findings(time.Now()); len(found) != maxEvents || found[maxEvents-1].Text != "23" {
			t.Errorf("%d events are kept: %+v", len(found), found)
		}
	})
}
