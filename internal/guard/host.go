package guard

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

// hostTable is a second table, of the family inet. A bridge passes frames to the group of LLDP (01:80:c2:00:00:0e) to the host before
// any rule of the bridge family, as if the port was on no bridge (br_handle_frame in net/bridge/br_input.c): the packet in such a frame is
// checked by nothing, neither by the guard nor by policies nor by rules about the bridge. No other packet has a port as its interface.
//
//	input   packets to this host   -> dropped if they come from a port
type hostTable struct {
	nft knftables.Interface
	// sum returns the checksum of the table.
	sum func() (nftsum.Sum, error)

	// guarded by NFT.mu
	applied []string   // rules; nil: unknown
	set     nftsum.Sum // checksum of the table after apply
}

// hostRules returns the rules of the chain input.
func hostRules(r Ruleset) (rules []string) {
	for _, name := range append(slices.Clone(r.Uplinks), append(slices.Clone(r.Others), r.PodPrefix+"*")...) {
		rules = append(rules, "iifname "+quote(name)+" goto "+dropChain(ReasonGroup))
	}
	return rules
}

// transaction returns the transaction that replaces the table.
func (h *hostTable) transaction(rules []string) *knftables.Transaction {
	tx := h.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: packets to this host that passed no bridge")})
	dropped := dropChain(ReasonGroup)
	tx.Add(&knftables.Counter{Name: dropped})
	tx.Add(newChain(dropped, ""))
	tx.Add(&knftables.Rule{Chain: dropped, Rule: knftables.Concat("counter name", quote(dropped))})
	tx.Add(&knftables.Rule{Chain: dropped, Rule: "drop"})
	tx.Add(newChain("input", knftables.InputHook))
	for _, rule := range rules {
		tx.Add(&knftables.Rule{Chain: "input", Rule: rule})
	}
	return tx
}

// apply replaces the table, unless it has these rules already.
func (h *hostTable) apply(ctx context.Context, r Ruleset) error {
	rules := hostRules(r)
	if h.applied != nil && slices.Equal(h.applied, rules) {
		return nil
	}
	h.applied = nil
	if err := h.nft.Run(ctx, h.transaction(rules)); err != nil {
		return fmt.Errorf("guard: set rules: %w", err)
	}
	var err error
	if h.set, err = h.sum(); err == nil {
		h.applied = rules
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
