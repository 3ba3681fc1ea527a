package firewall

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
	"weft/internal/nftwatch"
)

// accepting counts transactions, and accepts all.
type accepting struct {
	*knftables.Fake
	runs *int
}

func (a accepting) Run(context.Context, *knftables.Transaction) error { *a.runs++; return nil }

// scripted is a watcher that counts what the test says.
type scripted struct {
	counts []int // of the following calls of Count; then 1
	lost   bool
}

func (s *scripted) Count(context.Context, uint32) (int, error) {
	if s.lost {
		return 0, nftwatch.ErrLost
	}
	if len(s.counts) == 0 {
		return 1, nil
	}
	n := s.counts[0]
	s.counts = s.counts[1:]
	return n, nil
}

func (*scripted) Forget(uint32)              {}
func (*scripted) Reset()                     {}
func (*scripted) Changed() <-chan struct{}   { return nil }
func (*scripted) Close() error               { return nil }
func (*scripted) Wait(context.Context) error { return nil }

func newScripted(counts ...int) (n *NFT, runs, direct *int, w *scripted) {
	runs, direct, w = new(int), new(int), &scripted{counts: counts}
	n = &NFT{nft: accepting{knftables.NewFake("", ""), runs}, watch: w}
	n.generation = func() (uint32, error) { return 1, nil }
	n.direct = func([]element) error { *direct++; return nil }
	return n, runs, direct, w
}

// TestApplyAgain: rules that another program may have changed while they were set are set again.
func TestApplyAgain(t *testing.T) {
	for name, c := range map[string]struct {
		counts  []int // of transactions at each attempt
		applied int
		intact  bool
	}{
		"alone":      {[]int{1, 0}, 1, true},
		"once":       {[]int{2, 1, 0}, 2, true},
		"all along":  {[]int{2, 2, 2, 2, 2, 2}, applyAttempts, false},
		"afterwards": {[]int{1, 1}, 1, false},
	} {
		n, runs, _, _ := newScripted(c.counts...)
		if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *runs != c.applied {
			t.Errorf("%s: set %d times, want %d", name, *runs, c.applied)
		}
		if intact, err := n.Intact(t.Context()); err != nil || intact != c.intact {
			t.Errorf("%s: intact %v, %v", name, intact, err)
		}
	}
}

// TestLostReports: rules that may have changed unseen are not intact.
func TestLostReports(t *testing.T) {
	n, _, _, w := newScripted(1)
	if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
		t.Fatal(err)
	}
	w.lost = true
	if intact, err := n.Intact(t.Context()); err != nil || intact {
		t.Errorf("intact %v, %v", intact, err)
	}
}

// TestChangePaths: a change of elements alone does not run the nft program; one beside a change of another program is an error.
func TestChangePaths(t *testing.T) {
	addrs := policy.Change{Addrs: policy.Elements{Added: []netip.Prefix{netip.MustParsePrefix("10.32.0.1/32")}}}
	n, runs, direct, _ := newScripted(1, 1, 1, 2)
	if err := n.Change(t.Context(), addrs); err == nil {
		t.Error("unknown rules were changed")
	}
	if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Change(t.Context(), addrs); err != nil || *runs != 1 || *direct != 1 {
		t.Errorf("elements: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	rules := policy.Change{Rules: &policy.Ruleset{Chains: map[string]policy.Chain{}, Sets: map[string]policy.Set{"s1": {}}}}
	if err := n.Change(t.Context(), rules); err != nil || *runs != 2 || *direct != 1 {
		t.Errorf("a new set: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	if err := n.Change(t.Context(), policy.Change{}); err != nil { // counts no transaction
		t.Errorf("no change: %v", err)
	}
	if err := n.Change(t.Context(), addrs); !errors.Is(err, errNotAlone) {
		t.Errorf("beside another program: %v", err)
	}
	if err := n.Change(t.Context(), addrs); err == nil {
		t.Error("rules of another program were changed")
	}
}
