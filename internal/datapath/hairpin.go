package datapath

import (
	"context"
	"errors"

	"weft/internal/hairpin"
	"weft/internal/nftsum"
	"weft/internal/podlink"
)

// hairpinRules keep ports in hairpin mode from sending a pod's own frames back to it. Without the rules such a pod hears itself,
// which only the log reports: most pods do not mind.
type hairpinRules struct {
	d      *Datapath
	sum    nftsum.Sum // of the table, as it was set last
	failed bool
}

// Name implements hostRules.
func (*hairpinRules) Name() string { return "the rules for ports in hairpin mode" }

// Intact implements hostRules.
func (h *hairpinRules) Intact(context.Context) (bool, error) {
	return nftsum.Unchanged(h.sum, func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Bridge, hairpin.Table) })
}

// Apply implements hostRules.
func (h *hairpinRules) Apply(ctx context.Context) error {
	err := h.apply(ctx)
	if err != nil && !h.failed {
		h.d.log.Warn("pods in hairpin mode receive their own broadcasts", "err", err)
	}
	h.failed = err != nil
	return err
}

func (h *hairpinRules) apply(ctx context.Context) error {
	rules, err := hairpin.New()
	if err != nil {
		return err
	}
	if err := rules.Apply(ctx, podlink.HostPrefix); err != nil {
		return err
	}
	h.sum, err = nftsum.Of(nftsum.Bridge, hairpin.Table)
	return err
}

// Postponed implements hostRules.
func (*hairpinRules) Postponed() {}

// removeHairpin removes the rules. A host without rules or without nftables is success.
func removeHairpin(ctx context.Context) error {
	rules, err := hairpin.New()
	if errors.Is(err, hairpin.ErrNoNFT) {
		return nil
	}
	if err != nil {
		return err
	}
	return rules.Remove(ctx)
}
