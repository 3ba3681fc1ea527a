package guard

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

// hostTable is a second table, of the family inet. A bridge passes frames to the group of LLDP (01:80:c2:00:00:0e) to the host before
// any rule of the bridge family, as if the port was on no bridge (br_handle_frame in net/bridge/br_input.c): the packet in such a frame is
// checked by nothing, neither by the guard nor by policies nor by rules about the bridge. No other packet has a port as its interface.
//
//	input     packets to this host             -> dropped if they come from a port
//	forward   packets that the host forwards   -> dropped if they would enter a subnet (subnets.go); only where there are some
type hostTable struct {
	nft knftables.Interface
	// sum returns the checksum of the table.
	sum func() (nftsum.Sum, error)

	// guarded by NFT.mu
	applied []chain    // nil: unknown
	set     nftsum.Sum // checksum of the table after apply
}

// hostChains returns the chains of the table with a hook.
func hostChains(r Ruleset) []chain {
	in := chain{name: "input", hook: knftables.InputHook}
	for _, name := range append(slices.Clone(r.Uplinks), append(slices.Clone(r.Others), r.PodPrefix+"*")...) {
		in.rules = append(in.rules, "iifname "+quote(name)+" goto "+dropChain(ReasonGroup))
	}
	chains := []chain{in}
	if rules := forwardRules(r); len(rules) > 0 {
		chains = append(chains, chain{name: "forward", hook: knftables.ForwardHook, rules: rules})
	}
	return chains
}

// transaction returns the transaction that replaces the table.
func (h *hostTable) transaction(chains []chain) *knftables.Transaction {
	tx := h.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: packets to this host that passed no bridge, and into subnets")})
	for _, reason := range []Reason{ReasonGroup, ReasonSubnet} {
		dropped := dropChain(reason)
		tx.Add(&knftables.Counter{Name: dropped})
		tx.Add(newChain(dropped, ""))
		tx.Add(&knftables.Rule{Chain: dropped, Rule: knftables.Concat("counter name", quote(dropped))})
		tx.Add(&knftables.Rule{Chain: dropped, Rule: "drop"})
	}
	for _, c := range chains {
		tx.Add(newChain(c.name, c.hook))
		for _, rule := range c.rules {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: rule})
		}
	}
	return tx
}

// apply replaces the table, unless it has these rules already.
func (h *hostTable) apply(ctx context.Context, r Ruleset) error {
	chains := hostChains(r)
	if h.applied != nil && reflect.DeepEqual(h.applied, chains) {
		return nil
	}
	h.applied = nil
	if err := h.nft.Run(ctx, h.transaction(chains)); err != nil {
		return fmt.Errorf("guard: set rules: %w", err)
	}
	var err error
	if h.set, err = h.sum(); err == nil {
		h.applied = chains
	}
	return err
}

// intact reports whether the table is as apply left it. If not, the next apply replaces it.
func (h *hostTable) intact() (bool, error) {
	if h.applied == nil {
		return false, nil
	}
	same, err := nftsum.Unchanged(h.set, h.sum)
	if err == nil && !same {
		h.applied = nil
	}
	return same, err
}
