// Package hairpin keeps a port of the overlay's bridge in hairpin mode from sending a pod's own frames back to it.
//
// A pod that reaches itself through a service address needs hairpin mode: br_netfilter rewrites the destination of the packet to
// the pod, and the bridge has to send it to the port that it came from. But the bridge also sends back broadcasts, multicasts and
// frames for unknown addresses. The pod then hears its own VRRP, DHCP and mDNS messages, and a bridge inside the pod learns that its
// own hosts are outside.
//
// Of the frames that a pod's port would send back, the rules drop all but packets from an address to itself. Only a rewritten
// packet is one: its source is the pod and not masqueraded yet.
//
//	table bridge weft-hairpin {
//	    chain forward {
//	        type filter hook forward priority -250
//	        iifname != "vweft*" return
//	        update @ports { iif . iif timeout 200ms }  # nftables cannot compare iif with oif: the set has the pairs that are equal
//	        iif . oif != @ports return
//	        ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop
//	        update @hosts4 { ip saddr . ip saddr timeout 200ms } # the same for the addresses
//	        ip saddr . ip daddr @hosts4 accept
//	        update @hosts6 { ip6 saddr . ip6 saddr timeout 200ms }
//	        ip6 saddr . ip6 daddr @hosts6 accept
//	        drop
//	    }
//	}
//
// The sets fill themselves, so the rules do not change with the pods. Their elements last for a moment after the frame that needs
// them, so a pod that is gone leaves none.
package hairpin

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/knftables"
)

// Table is the name of the table in nftables, of the bridge family. Nothing else may use it.
const Table = "weft-hairpin"

// ErrNoNFT means that the nft program is missing or does not work, or that the kernel has no bridge family.
var ErrNoNFT = errors.New("hairpin: the nft program or the bridge family of nftables is missing or does not work")

// Names and sizes in the table.
const (
	chain     = "forward"
	priority  = "-250" // before br_netfilter and before rules of others
	setPorts  = "ports"
	setHosts4 = "hosts4"
	setHosts6 = "hosts6"
	maxPorts  = 1 << 16 // elements
	maxHosts  = 1 << 12 // elements
)

// elementAge is how long an element of a set lasts after the last frame that needed it.
const elementAge = "200ms"

// NFT runs the nft program in the network namespace of the calling thread. Its methods may be called concurrently.
type NFT struct{ nft knftables.Interface }

// New returns the rules of this host, and changes none. The error wraps ErrNoNFT.
func New() (*NFT, error) {
	nft, err := knftables.New(knftables.BridgeFamily, Table)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNFT, err)
	}
	return &NFT{nft}, nil
}

// Apply sets the rules for ports with names of the given prefix, in one transaction. On an error the previous rules stay.
func (n *NFT) Apply(ctx context.Context, podPrefix string) error {
	if err := n.nft.Run(ctx, n.transaction(podPrefix)); err != nil {
		return fmt.Errorf("hairpin: set rules: %w", err)
	}
	return nil
}

// Remove removes the table. It succeeds if there is none.
func (n *NFT) Remove(ctx context.Context) error {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // Delete fails if there is no table
	tx.Delete(&knftables.Table{})
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("hairpin: remove rules: %w", err)
	}
	return nil
}

// transaction returns the transaction that replaces the table.
func (n *NFT) transaction(podPrefix string) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: no port sends a pod's own frames back to it")})
	for _, s := range []struct {
		name, kind string
		size       uint64
	}{
		{setPorts, "iface_index . iface_index", maxPorts},
		{setHosts4, "ipv4_addr . ipv4_addr", maxHosts},
		{setHosts6, "ipv6_addr . ipv6_addr", maxHosts},
	} {
		tx.Add(&knftables.Set{
			Name: s.name, Type: s.kind, Size: &s.size,
			Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag},
		})
	}
	tx.Add(&knftables.Chain{
		Name: chain, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook),
		Priority: knftables.PtrTo(knftables.BaseChainPriority(priority)),
	})
	for _, rule := range []string{
		`iifname != "` + podPrefix + `*" return`,
		update(setPorts, "iif . iif"),
		"iif . oif != @" + setPorts + " return",
		"ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
		update(setHosts4, "ip saddr . ip saddr"),
		"ip saddr . ip daddr @" + setHosts4 + " accept",
		update(setHosts6, "ip6 saddr . ip6 saddr"),
		"ip6 saddr . ip6 daddr @" + setHosts6 + " accept",
		"drop",
	} {
		tx.Add(&knftables.Rule{Chain: chain, Rule: rule})
	}
	return tx
}

// update returns the rule that puts an element into a set.
func update(set, key string) string {
	return "update @" + set + " { " + key + " timeout " + elementAge + " }"
}
