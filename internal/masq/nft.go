package masq

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"
)

// chain is the table's only chain.
const chain = "postrouting"

// half is what differs between the families.
type half struct {
	family    knftables.Family // of a table that can hold no other
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

// part is a table and the families of addresses that it serves.
type part struct {
	nft    knftables.Interface
	halves []half
}

// NFT is the Firewall through nftables, in the network namespace of the calling thread.
type NFT struct {
	parts []part // one for both families; two on kernels that have no NAT in the inet family
}

var _ Firewall = (*NFT)(nil)

// New returns the host's Firewall. It changes nothing yet. The error wraps ErrNoNFT when nft is missing, is refused by
// the kernel, or lacks the privilege.
func New(ctx context.Context) (*NFT, error) {
	inet, err := open(knftables.InetFamily)
	if err != nil {
		return nil, err
	}
	both := &NFT{parts: []part{{inet, []half{half4, half6}}}}
	// Linux 5.2 brought NAT to the inet family.
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

// check reports whether the kernel would take a ruleset.
func (n *NFT) check(ctx context.Context) error {
	for _, p := range n.parts {
		if err := p.nft.Check(ctx, p.transaction(Ruleset{})); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements Firewall. Where the kernel needs a table for each family, these are two transactions.
func (n *NFT) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	for _, p := range n.parts {
		if err := p.nft.Run(ctx, p.transaction(r)); err != nil {
			return fmt.Errorf("masq: setting the rules: %w", err)
		}
	}
	return nil
}

// Remove implements Firewall.
func (n *NFT) Remove(ctx context.Context) error {
	for _, p := range n.parts {
		tx := p.nft.NewTransaction()
		tx.Add(&knftables.Table{}) // or the deletion could fail
		tx.Delete(&knftables.Table{})
		if err := p.nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("masq: removing the rules: %w", err)
		}
	}
	return nil
}

// transaction replaces the table by one that holds r.
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
			// Without it two pods behind one address can be given the same port at once, and one packet is lost.
			"masquerade fully-random",
		)})
	}
	return tx
}
