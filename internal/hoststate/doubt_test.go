package hoststate_test

import (
	"testing"
	"time"

	"weft/internal/hoststate"
)

// TestDoubt: a missing local route is restored when it is missing for some time without a break, and other differences at once.
func TestDoubt(t *testing.T) {
	var doubt hoststate.Doubt
	start := time.Unix(1e9, 0)
	local, up := hoststate.Action{Kind: hoststate.AddLocal, Prefix: addr6}, hoststate.Action{Kind: hoststate.SetUp, Link: "weave"}
	for _, step := range []struct {
		after   time.Duration
		list    []hoststate.Action
		ripe    int
		pending bool
	}{
		{0, []hoststate.Action{local, up}, 1, true},
		{hoststate.DoubtTime - 1, []hoststate.Action{local}, 0, true},
		{hoststate.DoubtTime, nil, 0, false},
		{hoststate.DoubtTime + 1, []hoststate.Action{local}, 0, true},
		{3 * hoststate.DoubtTime, []hoststate.Action{local, up}, 2, false},
	} {
		ripe, pending := doubt.Ripe(step.list, start.Add(step.after))
		if len(ripe) != step.ripe || pending != step.pending {
			t.Errorf("after %v: %v, pending %v", step.after, ripe, pending)
		}
	}
}
