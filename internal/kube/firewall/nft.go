package firewall

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
	"weft/internal/nftsum"
	"weft/internal/nftwatch"
)

// runTimeout bounds one transaction. All rules of a large node take some seconds.
const runTimeout = time.Minute

// applyAttempts bounds how often Apply sets the rules while other programs change the tables at the same time.
const applyAttempts = 4

// NFT is a Firewall for the network namespace that New is called in, and all other methods as well. The nft program sets all rules; changes
// go to the kernel directly, except those that are large or have base chains.
type NFT struct {
	nft    knftables.Interface   // of both tables
	tables []knftables.Interface // of one table each, to read counters
	watch  watcher
	// generation returns a number that changes whenever any table changes, direct makes a transaction without the nft program.
	generation  func() (uint32, error)
	direct      func([]step) error
	generations *nftwatch.Generations

	mu      sync.Mutex
	kernel  kernel // guarded by mu
	applied *table // guarded by mu; nil: unknown
}

// watcher counts transactions that change the tables. *nftwatch.Watcher is one.
type watcher interface {
	Count(ctx context.Context, generation uint32) (int, error)
	Forget(generation uint32)
	Reset()
	Changed() <-chan struct{}
	Wait(ctx context.Context) error
	Close() error
}

var _ Firewall = (*NFT)(nil)

// New returns the Firewall of the host, which the caller must close. It changes no rules. Its error wraps ErrNoNFT.
func New(ctx context.Context) (*NFT, error) {
	n, err := newNFT()
	if err != nil {
		return nil, err
	}
	if err := n.nft.Check(ctx, n.whole(newTable(&policy.Ruleset{}, &table{}), &policy.Ruleset{}).Transaction); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	if n.watch, err = nftwatch.Open(Table, nftsum.Inet, nftsum.Bridge); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	if n.generations, err = nftwatch.OpenGenerations(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoNFT, err), n.watch.Close())
	}
	n.generation = n.generations.Get
	return n, nil
}

// newNFT returns an NFT that cannot know whether it is alone.
func newNFT() (*NFT, error) {
	nft, err := knftables.New("", "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	n := &NFT{nft: nft}
	n.direct = n.kernel.run
	for _, f := range tableFamilies {
		table, err := knftables.New(f, Table)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
		}
		n.tables = append(n.tables, table)
	}
	return n, nil
}

// Close releases the resources of n. The rules stay.
func (n *NFT) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.watch.Close(), n.generations.Close(), n.kernel.close())
}

// Changed returns the channel of wake-ups at changes of the tables, also those by n. It is never closed.
func (n *NFT) Changed() <-chan struct{} { return n.watch.Changed() }

// Wait waits until ctx ends, or until changes of the tables can no longer be followed: then it returns why, and n must be made anew.
func (n *NFT) Wait(ctx context.Context) error { return n.watch.Wait(ctx) }

// tableFamilies are the families that have the table.
var tableFamilies = [...]knftables.Family{knftables.InetFamily, knftables.BridgeFamily}

// Apply implements Firewall.
func (n *NFT) Apply(ctx context.Context, r *policy.Ruleset) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.applied
	if old == nil {
		old = &table{}
	}
	t := newTable(r, old)
	n.applied = nil // until the tables are known to be t
	for range applyAttempts {
		n.watch.Reset()
		if err := n.run(ctx, n.whole(t, r)); err != nil {
			return fmt.Errorf("firewall: set rules: %w", err)
		}
		err := n.alone(ctx)
		if err == nil {
			n.applied = t
			return nil
		}
		if !errors.Is(err, errNotAlone) {
			return err
		}
	}
	return nil // another program changes the tables all the time: they are not intact
}

// Change implements Firewall.
func (n *NFT) Change(ctx context.Context, c policy.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.applied
	if old == nil {
		return errors.New("firewall: the tables are not known")
	}
	t := old
	var tx *transaction
	if old.extends(c) {
		tx = n.extend(t, c)
	} else {
		if c.Rules != nil {
			t = newTable(c.Rules, old)
		}
		tx = n.change(old, t, c)
	}
	if tx.NumOperations() == 0 {
		n.applied = t
		return nil
	}
	n.applied = nil // until the tables are known to be t
	if err := n.run(ctx, tx); err != nil {
		return fmt.Errorf("firewall: change rules: %w", err)
	}
	if err := n.alone(ctx); err != nil {
		return err
	}
	n.applied = t
	return nil
}

// errNotAlone means that another program has changed the tables.
var errNotAlone = errors.New("firewall: another program has changed the tables")

// run runs a transaction that changes something.
func (n *NFT) run(ctx context.Context, tx *transaction) error {
	if !tx.program && tx.size <= maxDirect {
		return n.direct(tx.direct)
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	return n.nft.Run(ctx, tx.Transaction)
}

// alone returns nil if exactly one transaction has changed the tables since the rules were known. The error is errNotAlone if there were
// others, or if that is unknown. The caller holds mu.
func (n *NFT) alone(ctx context.Context) error {
	now, changes, err := n.changes(ctx)
	if err != nil {
		return err
	}
	if changes != 1 {
		return errNotAlone
	}
	n.watch.Forget(now)
	return nil
}

// changes returns the present generation, and how many transactions up to it changed the tables since the last Forget.
func (n *NFT) changes(ctx context.Context) (generation uint32, count int, err error) {
	generation, err = n.generation()
	if err != nil {
		return 0, 0, err
	}
	count, err = n.watch.Count(ctx, generation)
	if errors.Is(err, nftwatch.ErrLost) {
		return generation, 2, nil // as if another program had changed them
	}
	return generation, count, err
}

// Remove removes the table, so that everything is allowed. It succeeds if there is no table.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applied = nil
	tx := n.nft.NewTransaction()
	for _, f := range tableFamilies {
		b := batch{&transaction{Transaction: tx}, f}
		b.add(&knftables.Table{}) // Delete fails if there is no table
		b.del(&knftables.Table{})
	}
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("firewall: remove rules: %w", err)
	}
	return nil
}

// Intact implements Firewall.
func (n *NFT) Intact(ctx context.Context) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.applied == nil {
		return false, nil
	}
	_, changes, err := n.changes(ctx)
	if err != nil {
		return false, err
	}
	if changes > 0 {
		n.applied = nil
	}
	return changes == 0, nil
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
