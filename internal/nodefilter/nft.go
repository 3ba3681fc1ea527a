package nodefilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

// Names in the table.
const (
	setOwn      = "own"
	setNodes4   = "nodes4"
	setNodes6   = "nodes6"
	counterPods = "pods"
)

// NFT is a Firewall that runs the nft program in the network namespace of the calling thread.
type NFT struct {
	nft knftables.Interface
	// sum returns the checksum of the table.
	sum func() (nftsum.Sum, error)

	mu      sync.Mutex
	set     nftsum.Sum // guarded by mu; checksum of the table after Apply; zero: unknown
	applied Ruleset    // guarded by mu; that of set
}

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes no rules. The error wraps ErrNoNFT if nft is missing, if the kernel refuses the
// rules, or if the process lacks the privilege.
func New(ctx context.Context) (*NFT, error) {
	nft, err := knftables.New(knftables.InetFamily, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	tx := nft.NewTransaction()
	addRemoval(tx)
	addTable(tx, Ruleset{Bridge: "weave"})
	if err := nft.Check(ctx, tx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return &NFT{nft: nft, sum: func() (nftsum.Sum, error) { return nftsum.Of(nftsum.Inet, Table) }}, nil
}

// Apply implements Firewall. The counter keeps its value unless another program has changed the table. If only the nodes have changed, so
// do only the elements of their sets: there may be thousands.
func (n *NFT) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	tx := n.nft.NewTransaction()
	if intact, err := n.intact(); err == nil && intact && onlyNodesDiffer(n.applied, r) {
		addChanges(tx, n.applied.Nodes, r.Nodes)
	} else {
		addTable(tx, r)
	}
	n.set = nftsum.Sum{}
	if err := n.nft.Run(ctx, tx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("nodefilter: set rules: %w", err)
		}
		tx = n.nft.NewTransaction() // there may be a table of another build, or of another program
		addRemoval(tx)
		addTable(tx, r)
		if err := n.nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("nodefilter: set rules: %w", err)
		}
	}
	sum, err := n.sum()
	if err == nil {
		n.set, n.applied = sum, r
		n.applied.Nodes = slices.Clone(r.Nodes)
	}
	return err
}

// onlyNodesDiffer reports whether the table of a becomes that of b by other elements in the sets of nodes.
func onlyNodesDiffer(a, b Ruleset) bool {
	return !a.KeepNodes && !b.KeepNodes && a.Bridge == b.Bridge && slices.Equal(a.Links, b.Links) && slices.Equal(a.Own, b.Own)
}

// addChanges makes the nodes after of the nodes before.
func addChanges(tx *knftables.Transaction, before, after []netip.Addr) {
	old := make(map[netip.Addr]bool, len(before))
	for _, addr := range before {
		old[addr] = true
	}
	for _, addr := range after {
		if !old[addr] {
			tx.Add(nodeElement(addr))
		}
		delete(old, addr)
	}
	for addr := range old {
		tx.Delete(nodeElement(addr))
	}
}

// nodeElement is the element of a node.
func nodeElement(addr netip.Addr) *knftables.Element {
	set := setNodes6
	if addr.Is4() {
		set = setNodes4
	}
	return &knftables.Element{Set: set, Key: []string{addr.String()}}
}

// addRemoval adds the removal of the table, whether there is one or not.
func addRemoval(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{}) // Delete fails if there is no table
	tx.Delete(&knftables.Table{})
}

// addTable adds what makes a table that of r.
func addTable(tx *knftables.Transaction, r Ruleset) {
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: ports of nodes, closed to pods")})
	tx.Add(&knftables.Counter{Name: counterPods})
	tx.Add(&knftables.Set{Name: setOwn, Type: "inet_proto . inet_service"})
	tx.Flush(&knftables.Set{Name: setOwn})
	for _, p := range r.Own {
		tx.Add(&knftables.Element{Set: setOwn, Key: p.key()})
	}
	for _, set := range []struct{ name, addr string }{{setNodes4, "ipv4_addr"}, {setNodes6, "ipv6_addr"}} {
		tx.Add(&knftables.Set{Name: set.name, Type: set.addr})
		if !r.KeepNodes {
			tx.Flush(&knftables.Set{Name: set.name})
		}
	}
	for _, addr := range r.Nodes {
		tx.Add(nodeElement(addr))
	}
	const ports, dropped = "meta l4proto . th dport @" + setOwn, "counter name " + counterPods + " drop"
	var input []string
	for _, name := range append([]string{r.Bridge}, r.Links...) {
		input = append(input, knftables.Concat(from(name), ports, dropped))
	}
	addChain(tx, knftables.InputHook, input...)
	addChain(tx, knftables.ForwardHook,
		knftables.Concat(from(r.Bridge), "ip daddr @"+setNodes4, ports, dropped),
		knftables.Concat(from(r.Bridge), "ip6 daddr @"+setNodes6, ports, dropped))
}

// from matches packets from an interface.
func from(name string) string { return `iifname "` + name + `"` }

// key returns the port as it is in a set.
func (p Port) key() []string {
	return []string{strconv.Itoa(int(p.Protocol)), strconv.Itoa(int(p.Number))}
}

// addChain makes these rules the only ones of the chain of a hook.
func addChain(tx *knftables.Transaction, hook knftables.BaseChainHook, rules ...string) {
	name := string(hook)
	tx.Add(&knftables.Chain{
		Name: name, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(hook), Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	tx.Flush(&knftables.Chain{Name: name})
	for _, rule := range rules {
		tx.Add(&knftables.Rule{Chain: name, Rule: rule})
	}
}

// Intact implements Firewall.
func (n *NFT) Intact() (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.intact()
}

// intact is Intact. The caller holds mu.
func (n *NFT) intact() (bool, error) {
	if n.set == (nftsum.Sum{}) {
		return false, nil
	}
	return nftsum.Unchanged(n.set, n.sum)
}

// Dropped implements Firewall.
func (n *NFT) Dropped(ctx context.Context) (uint64, error) {
	counters, err := n.nft.ListCounters(ctx)
	if err != nil {
		return 0, fmt.Errorf("nodefilter: read the counter: %w", err)
	}
	for _, c := range counters {
		if c.Name == counterPods && c.Packets != nil {
			return *c.Packets, nil
		}
	}
	return 0, errors.New("nodefilter: there is no counter")
}

// Remove implements Firewall.
func (n *NFT) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set = nftsum.Sum{}
	tx := n.nft.NewTransaction()
	addRemoval(tx)
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("nodefilter: remove rules: %w", err)
	}
	return nil
}
