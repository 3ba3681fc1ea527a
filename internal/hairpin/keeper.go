package hairpin

import (
	"context"
	"errors"
	"log/slog"

	"weft/internal/nftsum"
)

// Keeper keeps the rules in force. Without them a pod in hairpin mode hears itself, which only the log reports: most pods do not mind. Its
// methods are called by one goroutine at a time.
type Keeper struct {
	podPrefix string
	log       *slog.Logger
	sum       nftsum.Sum // of the table, as it was set last
	failed    bool
}

// NewKeeper returns a Keeper for ports with names of the given prefix, which has changed nothing yet.
func NewKeeper(podPrefix string, log *slog.Logger) *Keeper {
	return &Keeper{podPrefix: podPrefix, log: log}
}

// Name names the rules, as a part of a sentence.
func (*Keeper) Name() string { return "the rules for ports in hairpin mode" }

// Intact reports whether the rules are as Apply made them last. It starts no program.
func (k *Keeper) Intact(context.Context) (bool, error) {
	return nftsum.Unchanged(k.sum, func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Bridge, Table) })
}

// Apply sets the rules, whatever there is now.
func (k *Keeper) Apply(ctx context.Context) error {
	err := k.apply(ctx)
	if err != nil && !k.failed {
		k.log.Warn("pods in hairpin mode receive their own broadcasts", "err", err)
	}
	k.failed = err != nil
	return err
}

func (k *Keeper) apply(ctx context.Context) error {
	rules, err := New()
	if err != nil {
		return err
	}
	if err := rules.Apply(ctx, k.podPrefix); err != nil {
		return err
	}
	k.sum, err = nftsum.Of(nftsum.Bridge, Table)
	return err
}

// Postponed is called when the rules are not intact, and another program keeps removing them.
func (*Keeper) Postponed() {}

// Remove removes the rules. A host without rules or without nftables is success.
func Remove(ctx context.Context) error {
	rules, err := New()
	if errors.Is(err, ErrNoNFT) {
		return nil
	}
	if err != nil {
		return err
	}
	return rules.Remove(ctx)
}
