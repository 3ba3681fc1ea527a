package firewall

import (
	"context"
	"testing"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// accepting accepts all transactions.
type accepting struct{ *knftables.Fake }

func (accepting) Run(context.Context, *knftables.Transaction) error { return nil }

// TestApplyAgain: rules that another program may have changed while they were set are set again, and then count as
// intact.
func TestApplyAgain(t *testing.T) {
	for name, c := range map[string]struct {
		foreign []bool // whether another program changes a table during each attempt
		applied int
	}{
		"alone":      {nil, 1},
		"once":       {[]bool{true}, 2},
		"all along":  {[]bool{true, true, true, true, true, true}, applyAttempts},
		"not at all": {[]bool{false, true}, 1},
	} {
		generation, reads := uint32(1<<32-2), 0
		n := &NFT{nft: accepting{knftables.NewFake("", "")}}
		n.generation = func() (uint32, error) { return generation, nil }
		n.sum = func() (sums, error) {
			generation++ // by the rules
			if reads < len(c.foreign) && c.foreign[reads] {
				generation++
			}
			reads++
			return sums{{1}}, nil
		}
		if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if reads != c.applied {
			t.Errorf("%s: set %d times, want %d", name, reads, c.applied)
		}
		if intact, err := n.Intact(t.Context()); err != nil || !intact {
			t.Errorf("%s: intact %v, %v", name, intact, err)
		}
	}
}
