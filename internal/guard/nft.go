package guard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

// NFT is a Firewall that runs the nft program in the network namespace of the calling thread.
type NFT struct {
	nft knftables.Interface
	// sum returns the checksum of the table.
	sum func() (nftsum.Sum, error)

	mu      sync.Mutex
	applied *table     // guarded by mu; nil: unknown
	rules   []chain    // guarded by mu; the constant chains of applied
	set     nftsum.Sum // guarded by mu; checksum of the table after Apply
}

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes no rules. The error wraps ErrNoNFT if nft is missing, if the kernel refuses the
// rules, or if the process lacks the privilege.
func New(ctx context.Context) (*NFT, error) {
	nft, err := knftables.New(knftables.BridgeFamily, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	empty := Ruleset{PodPrefix: "vweft"}
	if err := nft.Check(ctx, whole(nft, empty, newTable(empty))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return &NFT{nft: nft, sum: func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Bridge, Table) }}, nil
}

// Apply implements Firewall. It changes only what differs, so that counters stay, unless the table was changed by another program.
func (n *NFT) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t, rules := newTable(r), constant(r)
	if n.applied == nil || !reflect.DeepEqual(n.rules, rules) || !n.change(ctx, t) {
		if err := n.nft.Run(ctx, whole(n.nft, r, t)); err != nil {
			n.applied = nil
			return fmt.Errorf("guard: set rules: %w", err)
		}
	}
	n.applied, n.rules = t, rules
	var err error
	if n.set, err = n.sum(); err != nil {
		n.applied = nil
	}
	return err
}

// change changes the table to t, and reports whether it could. The caller holds mu.
func (n *NFT) change(ctx context.Context, t *table) bool {
	tx := n.nft.NewTransaction()
	addChange(tx, n.applied, t)
	return tx.NumOperations() == 0 || n.nft.Run(ctx, tx) == nil
}

// Intact implements Firewall.
func (n *NFT) Intact() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applied == nil {
		return false, nil
	}
	now, err := n.sum()
	if err != nil && !errors.Is(err, nftsum.ErrNoTable) {
		return false, err
	}
	if err != nil || now != n.set {
		n.applied = nil
		return false, nil
	}
	return true, nil
}

// Dropped implements Firewall.
func (n *NFT) Dropped(ctx context.Context) (map[Reason]uint64, error) {
	counters, err := n.nft.ListCounters(ctx)
	if knftables.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("guard: read counters: %w", err)
	}
	out := map[Reason]uint64{}
	for _, c := range counters {
		if reason, ours := strings.CutPrefix(c.Name, dropPrefix); ours && c.Packets != nil {
			out[Reason(reason)] = *c.Packets
		}
	}
	return out, nil
}

// Remove implements Firewall.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied = nil
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // Delete fails if there is no table
	tx.Delete(&knftables.Table{})
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("guard: remove rules: %w", err)
	}
	return nil
}
