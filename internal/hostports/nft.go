package hostports

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"sigs.k8s.io/knftables"
)

// Table is the name of the tables of this package, of IPv4 and of IPv6.
const Table = "weft-hostports"

// Names of the chains.
const (
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainPorts       = "ports"
)

// family has the differences between the address families.
type family struct {
	name     knftables.Family
	word     string
	loopback string
}

var families = []family{{knftables.IPv4Family, "ip", "127.0.0.0/8"}, {knftables.IPv6Family, "ip6", "::1"}}

// Publish publishes exactly the given ports by rules of this package, and removes those that it published before. It runs the nft
// program in the network namespace of the calling thread.
func Publish(ctx context.Context, ports []Port) error {
	for _, f := range families {
		nft, err := knftables.New(f.name, Table)
		switch {
		case err != nil && len(ports) == 0:
			return nil // without the program there are no rules of this package
		case err != nil:
			return fmt.Errorf("hostports: %w", err)
		}
		own := slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return p.Target.Addr().Is4() != (f.word == "ip") })
		if err := nft.Run(ctx, f.transaction(nft, own)); err != nil {
			return fmt.Errorf("hostports: publish the ports of containers: %w", err)
		}
	}
	return nil
}

// transaction returns the transaction that replaces the table of a family by one for the ports; without ports there is none.
func (f family) transaction(nft knftables.Interface, ports []Port) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // Delete fails if there is no table
	tx.Delete(&knftables.Table{})
	if len(ports) == 0 {
		return tx
	}
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: ports of containers that another program removed")})
	tx.Add(&knftables.Chain{Name: chainPorts})
	for name, at := range map[string]struct{ hook, priority string }{
		chainPrerouting:  {"prerouting", "dstnat+5"}, // after the rules of portmap, should they come back
		chainOutput:      {"output", "-95"},          // as dstnat+5, which old versions of nft do not know here
		chainPostrouting: {"postrouting", "srcnat-5"},
	} {
		tx.Add(&knftables.Chain{
			Name: name, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.BaseChainHook(at.hook)),
			Priority: knftables.PtrTo(knftables.BaseChainPriority(at.priority)),
		})
	}
	for _, name := range []string{chainPrerouting, chainOutput} {
		tx.Add(&knftables.Rule{Chain: name, Rule: "fib daddr type local jump " + chainPorts})
	}
	var targets []netip.Addr
	for _, p := range ports {
		tx.Add(&knftables.Rule{Chain: chainPorts, Rule: f.rule(p)})
		if !slices.Contains(targets, p.Target.Addr()) {
			targets = append(targets, p.Target.Addr())
		}
	}
	for _, a := range targets { // answers to the pod itself, and to the host's loopback, must come back through the host
		tx.Add(&knftables.Rule{Chain: chainPostrouting, Rule: knftables.Concat(
			f.word, "daddr", a, f.word, "saddr", "{", a, ",", f.loopback, "} masquerade")})
	}
	return tx
}

// rule returns the rule of a port.
func (f family) rule(p Port) string {
	words := []any{}
	if p.HostAddr.IsValid() {
		words = append(words, f.word, "daddr", p.HostAddr)
	}
	return knftables.Concat(append(words, p.Protocol, "dport", p.HostPort, "dnat to", p.Target)...)
}
