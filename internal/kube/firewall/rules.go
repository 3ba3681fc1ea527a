package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

var directions = [...]policy.Direction{policy.Ingress, policy.Egress}

// counterOf and dropOf return the names of the counter and of the chain for packets that are dropped in a direction.
func counterOf(d policy.Direction) string { return "dropped-" + d.String() }
func dropOf(d policy.Direction) string    { return "drop-" + d.String() }

// neighbors accepts the ICMPv6 types that neighbor discovery needs. Connection tracking ignores them, so the rule for replies
// does not match them.
const neighbors = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, " +
	"mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"

// whole returns the transaction that replaces the table by t.
func (n *NFT) whole(t *table) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: network policies; written by weft-kube, which undoes other changes")})
	for _, d := range directions {
		tx.Add(&knftables.Counter{Name: counterOf(d)})
		tx.Add(&knftables.Chain{Name: dropOf(d)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: knftables.Concat("counter name", `"`+counterOf(d)+`"`)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: fmt.Sprintf(`limit rate 10/second log prefix "%s" group %d snaplen 128`, d, LogGroup)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: "drop"})
		for _, f := range families {
			tx.Add(&knftables.Map{Name: f.podsOf(d), Type: f.addr + " : verdict"})
		}
	}
	for _, f := range families {
		tx.Add(&knftables.Set{Name: f.self(), Type: f.addr + " . " + f.addr})
	}
	tx.Add(&knftables.Chain{
		Name: "forward", Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook),
		Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	for _, rule := range []string{"ct direction reply accept", "ct state related accept", neighbors} {
		tx.Add(&knftables.Rule{Chain: "forward", Rule: rule})
	}
	for _, f := range families {
		for _, rule := range []string{
			knftables.Concat(f.word, "saddr .", f.word, "daddr @", f.self(), "accept"),
			knftables.Concat(f.word, "saddr vmap @", f.podsOf(policy.Egress)),
			knftables.Concat(f.word, "daddr vmap @", f.podsOf(policy.Ingress)),
		} {
			tx.Add(&knftables.Rule{Chain: "forward", Rule: rule})
		}
	}
	addChange(tx, &table{}, t)
	return tx
}

// change returns the transaction that changes the table from old to t.
func (n *NFT) change(old, t *table) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	addChange(tx, old, t)
	return tx
}

// addChange adds new sets and chains, then points pods to them, and last removes unreferenced chains and sets.
func addChange(tx *knftables.Transaction, old, t *table) {
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		changeSet(tx, name, old.sets, t.sets[name])
	}
	added := missing(t.chains, old.chains)
	for _, name := range added {
		tx.Add(&knftables.Chain{Name: name})
	}
	for _, name := range added {
		for _, rule := range t.chains[name] {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
	for _, f := range families {
		for _, d := range directions {
			changePods(tx, f.podsOf(d), old.pods[f.podsOf(d)], t.pods[f.podsOf(d)])
		}
		changeSelf(tx, f, old, t)
	}
	removed := missing(old.chains, t.chains)
	for _, name := range removed {
		tx.Flush(&knftables.Chain{Name: name}) // they may refer to each other
	}
	for _, name := range removed {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range missing(old.sets, t.sets) {
		tx.Delete(&knftables.Set{Name: name})
	}
}

// missing returns the keys of a that b lacks, sorted.
func missing[A, B any](a map[string]A, b map[string]B) (out []string) {
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// changeSet adds a set, or changes the elements of an existing one.
func changeSet(tx *knftables.Transaction, name string, old map[string]set, s set) {
	before, known := old[name]
	if !known {
		add := &knftables.Set{Name: name, Type: s.addr}
		if s.interval {
			add.Flags = []knftables.SetFlag{knftables.IntervalFlag}
		}
		tx.Add(add)
	}
	removed, added := differences(before.keys, s.keys)
	for _, p := range removed {
		tx.Delete(&knftables.Element{Set: name, Key: []string{keyOf(p)}})
	}
	for _, p := range added {
		tx.Add(&knftables.Element{Set: name, Key: []string{keyOf(p)}})
	}
}

func keyOf(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// differences returns the elements that only one of two sorted lists contains.
func differences(a, b []netip.Prefix) (onlyA, onlyB []netip.Prefix) {
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].Compare(b[0]); {
		case c == 0:
			a, b = a[1:], b[1:]
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		default:
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// changePods changes one map from pods to chains.
func changePods(tx *knftables.Transaction, m string, old, pods map[string]string) {
	for _, ip := range slices.Sorted(maps.Keys(old)) {
		if old[ip] != pods[ip] {
			tx.Delete(&knftables.Element{Map: m, Key: []string{ip}})
		}
	}
	for _, ip := range slices.Sorted(maps.Keys(pods)) {
		if old[ip] != pods[ip] {
			tx.Add(&knftables.Element{Map: m, Key: []string{ip}, Value: []string{"jump " + pods[ip]}})
		}
	}
}

// changeSelf allows connections of a pod to itself, for the pods in any map of a family.
func changeSelf(tx *knftables.Transaction, f family, old, t *table) {
	before, after := f.selected(old), f.selected(t)
	for _, ip := range missing(before, after) {
		tx.Delete(&knftables.Element{Set: f.self(), Key: []string{ip, ip}})
	}
	for _, ip := range missing(after, before) {
		tx.Add(&knftables.Element{Set: f.self(), Key: []string{ip, ip}})
	}
}

// selected returns the pods of a family that policies restrict.
func (f family) selected(t *table) map[string]string {
	all := map[string]string{}
	for _, d := range directions {
		maps.Copy(all, t.pods[f.podsOf(d)])
	}
	return all
}
