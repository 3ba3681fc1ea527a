package firewall

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"sync"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// NFT is the Firewall through nftables, in the network namespace that the process is in.
type NFT struct {
	nft knftables.Interface
	// list returns a text that is equal as long as nobody changes the table; generation a number that changes whenever any
	// table does.
	list       func(ctx context.Context) (string, error)
	generation func() (uint32, error)

	mu      sync.Mutex
	applied *table            // guarded by mu; nil: unknown
	digest  [sha256.Size]byte // guarded by mu; of the table as it was made
	seen    uint32            // guarded by mu; the generation at which the table was as it was made
}

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes nothing yet. The error wraps ErrNoNFT.
func New(ctx context.Context) (*NFT, error) {
	nft, err := knftables.New(knftables.InetFamily, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	n := &NFT{nft: nft, list: listTable, generation: generation}
	if err := nft.Check(ctx, n.whole(newTable(&policy.Ruleset{}))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return n, nil
}

// listTable returns the table without what changes by use.
func listTable(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "nft", "--stateless", "list", "table", string(knftables.InetFamily), Table).Output()
	if err != nil {
		return "", fmt.Errorf("firewall: listing the table: %w", err)
	}
	return string(out), nil
}

// Apply implements Firewall.
func (n *NFT) Apply(ctx context.Context, r *policy.Ruleset) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := newTable(r)
	if n.applied == nil || n.nft.Run(ctx, n.change(n.applied, t)) != nil {
		// Nothing is known of the table, or it is not what it was.
		if err := n.nft.Run(ctx, n.whole(t)); err != nil {
			n.applied = nil
			return fmt.Errorf("firewall: setting the rules: %w", err)
		}
	}
	n.applied = t
	return n.remember(ctx)
}

// Remove removes the table: everything is allowed. That there is none is success.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied = nil
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // or the deletion could fail
	tx.Delete(&knftables.Table{})
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("firewall: removing the rules: %w", err)
	}
	return nil
}

// remember notes how the table looks; mu is held.
func (n *NFT) remember(ctx context.Context) error {
	seen, err := n.generation()
	if err != nil {
		return err
	}
	text, err := n.list(ctx)
	if err != nil {
		return err
	}
	n.seen, n.digest = seen, sha256.Sum256([]byte(text))
	return nil
}

// Intact implements Firewall. As long as nobody has changed any table that costs next to nothing.
func (n *NFT) Intact(ctx context.Context) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applied == nil {
		return false, nil
	}
	seen, err := n.generation()
	if err != nil || seen == n.seen {
		return err == nil, err
	}
	text, err := n.list(ctx)
	if err != nil || sha256.Sum256([]byte(text)) != n.digest { // no table is an error, too
		n.applied = nil
		return false, nil
	}
	n.seen = seen
	return true, nil
}

// Dropped implements Firewall.
func (n *NFT) Dropped(ctx context.Context) (map[policy.Direction]uint64, error) {
	counters, err := n.nft.ListCounters(ctx)
	if knftables.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("firewall: reading counters: %w", err)
	}
	out := map[policy.Direction]uint64{}
	for _, c := range counters {
		for _, d := range directions {
			if c.Name == counterOf(d) && c.Packets != nil {
				out[d] = *c.Packets
			}
		}
	}
	return out, nil
}
