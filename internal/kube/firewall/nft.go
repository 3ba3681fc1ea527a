package firewall

import (
	"context"
	"fmt"
	"sync"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
	"weft/internal/nftsum"
)

// applyAttempts bounds how often Apply sets the rules while other programs change tables at the same time.
const applyAttempts = 4

// NFT is a Firewall that runs the nft program in the network namespace of the process.
type NFT struct {
	nft    knftables.Interface   // of both tables
	tables []knftables.Interface // of one table each, to read counters
	// sum returns the checksums of the tables. generation returns a number that changes whenever any table changes.
	sum        func() (sums, error)
	generation func() (uint32, error)

	mu      sync.Mutex
	applied *table // guarded by mu; nil: unknown
	digest  sums   // guarded by mu; of the tables after Apply
	seen    uint32 // guarded by mu; the latest generation with these tables
}

// sums are the checksums of the tables.
type sums [len(tableFamilies)]nftsum.Sum

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes no rules. Its error wraps ErrNoNFT.
func New(ctx context.Context) (*NFT, error) {
	nft, err := knftables.New("", "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	n := &NFT{nft: nft, sum: sumTables, generation: generation}
	for _, f := range tableFamilies {
		table, err := knftables.New(f, Table)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
		}
		n.tables = append(n.tables, table)
	}
	if err := nft.Check(ctx, n.whole(newTable(&policy.Ruleset{}, &table{}))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return n, nil
}

// tableFamilies are the families that have the table.
var tableFamilies = [...]knftables.Family{knftables.InetFamily, knftables.BridgeFamily}

// sumTables returns the checksums of the tables.
func sumTables() (s sums, err error) {
	for i, f := range [...]nftsum.Family{nftsum.Inet, nftsum.Bridge} {
		if s[i], err = nftsum.Of(f, Table); err != nil {
			return sums{}, fmt.Errorf("firewall: read table: %w", err)
		}
	}
	return s, nil
}

// Apply implements Firewall.
func (n *NFT) Apply(ctx context.Context, r *policy.Ruleset) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.applied
	if old == nil {
		old = &table{}
	}
	t := newTable(r, old)
	known := n.applied != nil
	n.applied = nil // until the tables are known to be t
	for range applyAttempts {
		before, err := n.generation()
		if err != nil {
			return err
		}
		if !known || n.nft.Run(ctx, n.change(old, t)) != nil {
			// The state of the tables is unknown, or another program has changed them.
			if err := n.nft.Run(ctx, n.whole(t)); err != nil {
				return fmt.Errorf("firewall: set rules: %w", err)
			}
		}
		alone, err := n.remember(before)
		if err != nil {
			return err
		}
		if alone {
			break
		}
		known = false
	}
	n.applied = t
	return nil
}

// Remove removes the table, so that everything is allowed. It succeeds if there is no table.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied = nil
	tx := n.nft.NewTransaction()
	for _, f := range tableFamilies {
		b := batch{tx, f}
		b.add(&knftables.Table{}) // Delete fails if there is no table
		b.del(&knftables.Table{})
	}
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("firewall: remove rules: %w", err)
	}
	return nil
}

// remember stores the generation and the digest of the tables. It reports false if the generation is not that of the first change
// since before: another program has changed a table in the meantime, possibly this one, and the digest is not that of the rules.
// The caller holds mu.
func (n *NFT) remember(before uint32) (alone bool, err error) {
	digest, err := n.sum()
	if err != nil {
		return false, err
	}
	seen, err := n.generation()
	if err != nil {
		return false, err
	}
	n.seen, n.digest = seen, digest
	return seen-before <= 1, nil // an empty change makes no generation
}

// Intact implements Firewall. It reads the tables only if the generation has changed since the last call.
func (n *NFT) Intact(context.Context) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applied == nil {
		return false, nil
	}
	seen, err := n.generation()
	if err != nil || seen == n.seen {
		return err == nil, err
	}
	digest, err := n.sum()
	if err != nil || digest != n.digest { // a missing table is an error, too
		n.applied = nil
		return false, nil
	}
	n.seen = seen
	return true, nil
}

// Dropped implements Firewall.
func (n *NFT) Dropped(ctx context.Context) (map[policy.Direction]uint64, error) {
	out := map[policy.Direction]uint64{}
	for _, nft := range n.tables {
		counters, err := nft.ListCounters(ctx)
		if knftables.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("firewall: read counters: %w", err)
		}
		for _, c := range counters {
			for _, d := range directions {
				if c.Name == counterOf(d) && c.Packets != nil {
					out[d] += *c.Packets
				}
			}
		}
	}
	return out, nil
}
