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

	host hostTable
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
	host, err := knftables.New(knftables.InetFamily, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return &NFT{
		nft: nft, sum: func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Bridge, Table) },
		host: hostTable{nft: host, sum: func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Inet, Table) }},
	}, nil
}

// Apply implements Firewall. It changes only what differs, so that counters stay, unless the table was changed by another program.
func (n *NFT) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.host.apply(ctx, r); err != nil {
		return err
	}
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
	host, hostErr := n.host.intact()
	bridge, err := n.intact()
	return host && bridge, errors.Join(hostErr, err)
}

// intact is Intact for the table of the bridge family. The caller holds mu.
func (n *NFT) intact() (bool, error) {
	if n.applied == nil {
		return false, nil
	}
	same, err := nftsum.Unchanged(n.set, n.sum)
	if err == nil && !same {
		n.applied = nil
	}
	return same, err
}

// Dropped implements Firewall.
func (n *NFT) Dropped(ctx context.Context) (map[Reason]uint64, error) {
	out := map[Reason]uint64{}
	for _, nft := range []knftables.Interface{n.nft, n.host.nft} {
		counters, err := nft.ListCounters(ctx)
		if knftables.IsNotFound(err) {
			return nil, nil
		} else if err != nil {
			return nil, fmt.Errorf("guard: read counters: %w", err)
		}
		for _, c := range counters {
			if reason, ours := strings.CutPrefix(c.Name, dropPrefix); ours && c.Packets != nil {
				out[Reason(reason)] += *c.Packets
			}
		}
	}
	return out, nil
}

// Remove implements Firewall.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied, n.host.applied = nil, nil
	for _, nft := range []knftables.Interface{n.nft, n.host.nft} {
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{}) // Delete fails if there is no table
		tx.Delete(&knftables.Table{})
		if err := nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("guard: remove rules: %w", err)
		}
	}
	return nil
}
