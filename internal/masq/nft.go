package masq

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

// chain is the table's only chain.
const chain = "postrouting"

// half has the differences between the address families.
type half struct {
	family    knftables.Family // of a table for this family only
	is4       bool
	set       string
	setType   string
	word      string // in rules
	multicast string
}

var (
	half4 = half{family: knftables.IPv4Family, is4: true, set: "overlay4", setType: "ipv4_addr", word: "ip", multicast: "224.0.0.0/4"}
	half6 = half{family: knftables.IPv6Family, set: "overlay6", setType: "ipv6_addr", word: "ip6", multicast: "ff00::/8"}
)

// part is a table with the address families of its rules.
type part struct {
	nft    knftables.Interface
	halves []half
}

// NFT is a Firewall that runs the nft program in the network namespace of the calling thread.
type NFT struct {
	parts []part // one for both families, or two on kernels without NAT in the inet family
}

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes no rules. The error wraps ErrNoNFT if nft is missing, if the kernel refuses the
// rules, or if the process lacks the privilege.
func New(ctx context.Context) (*NFT, error) {
	inet, err := open(knftables.InetFamily)
	if err != nil {
		return nil, err
	}
	both := &NFT{parts: []part{{inet, []half{half4, half6}}}}
	// Linux has NAT in the inet family since version 5.2.
	if both.check(ctx) == nil {
		return both, nil
	}
	split := &NFT{}
	for _, h := range []half{half4, half6} {
		nft, err := open(h.family)
		if err != nil {
			return nil, err
		}
		split.parts = append(split.parts, part{nft, []half{h}})
	}
	if err := split.check(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return split, nil
}

func open(f knftables.Family) (knftables.Interface, error) {
	nft, err := knftables.New(f, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return nft, nil
}

// check reports whether the kernel accepts the rules, without changing any.
func (n *NFT) check(ctx context.Context) error {
	for _, p := range n.parts {
		if err := p.nft.Check(ctx, p.transaction(Ruleset{})); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements Firewall. If the kernel needs a table for each family, it uses two transactions.
func (n *NFT) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	for _, p := range n.parts {
		if err := p.nft.Run(ctx, p.transaction(r)); err != nil {
			return fmt.Errorf("masq: set rules: %w", err)
		}
	}
	return nil
}

// Sums returns the checksums of the tables as they are now, to compare with later ones.
func (n *NFT) Sums() ([]nftsum.Sum, error) {
	var sums []nftsum.Sum
	for _, p := range n.parts {
		sum, err := nftsum.Of(p.family(), Table)
		if err != nil {
			return nil, fmt.Errorf("masq: %w", err)
		}
		sums = append(sums, sum)
	}
	return sums, nil
}

// Intact reports whether the tables are as they were when Sums returned these sums. It starts no program.
func (n *NFT) Intact(sums []nftsum.Sum) (bool, error) {
	now, err := n.Sums()
	if errors.Is(err, nftsum.ErrNoTable) {
		return false, nil
	}
	return err == nil && slices.Equal(now, sums), err
}

// family returns the family of the table.
func (p part) family() nftsum.Family {
	switch {
	case len(p.halves) > 1:
		return nftsum.Inet
	case p.halves[0].is4:
		return nftsum.IPv4
	}
	return nftsum.IPv6
}

// Remove implements Firewall.
func (n *NFT) Remove(ctx context.Context) error {
	for _, p := range n.parts {
		tx := p.nft.NewTransaction()
		tx.Add(&knftables.Table{}) // Delete fails if there is no table
		tx.Delete(&knftables.Table{})
		if err := p.nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("masq: remove rules: %w", err)
		}
	}
	return nil
}

// transaction returns the transaction that replaces the table by r.
func (p part) transaction(r Ruleset) *knftables.Transaction {
	tx := p.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: masquerade for what leaves the overlay")})
	for _, h := range p.halves {
		tx.Add(&knftables.Set{Name: h.set, Type: h.setType, Flags: []knftables.SetFlag{knftables.IntervalFlag}})
		for _, prefix := range r.Ranges {
			if prefix.Addr().Is4() == h.is4 {
				tx.Add(&knftables.Element{Set: h.set, Key: []string{prefix.Masked().String()}})
			}
		}
	}
	tx.Add(&knftables.Chain{
		Name: chain, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook),
		Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	if r.Bridge != "" {
		tx.Add(&knftables.Rule{Chain: chain, Rule: knftables.Concat("oifname", `"`+r.Bridge+`"`, "return")})
	}
	for _, h := range p.halves {
		tx.Add(&knftables.Rule{Chain: chain, Rule: knftables.Concat(
			h.word, "saddr", "@", h.set, h.word, "daddr", "!=", "@", h.set, h.word, "daddr", "!=", h.multicast,
			// Without fully-random, two pods may get the same source port at once, and one packet is dropped.
			"masquerade fully-random",
		)})
	}
	return tx
}
