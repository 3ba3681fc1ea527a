package firewall

import (
	"net/netip"
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// batch adds operations on objects of one family's table to a transaction, which may have batches of both families.
type batch struct {
	*transaction
	family knftables.Family
}

// transaction has all operations for the nft program, and the same for the kernel as long as they change only elements.
type transaction struct {
	*knftables.Transaction
	direct     []element
	structural bool // it changes more than elements that direct can have
}

func (b batch) add(o knftables.Object) {
	b.structural = true
	b.Add(b.within(o))
}

func (b batch) del(o knftables.Object) {
	b.structural = true
	b.Delete(b.within(o))
}

func (b batch) flush(o knftables.Object) {
	b.structural = true
	b.Flush(b.within(o))
}

// element adds or removes an element.
func (b batch) element(e element) {
	e.family = b.family
	b.structural = b.structural || e.prefix.IsValid() && !e.prefix.IsSingleIP()
	b.direct = append(b.direct, e)
	o := &knftables.Element{Family: b.family, Table: Table, Key: e.key()}
	if e.verdict != "" {
		o.Map, o.Value = e.set, []string{e.verdict}
	} else {
		o.Set = e.set
	}
	if e.remove {
		o.Value = nil
		b.Delete(o)
	} else {
		b.Add(o)
	}
}

// within sets the table of an object, and returns it.
func (b batch) within(o knftables.Object) knftables.Object {
	switch o := o.(type) {
	case *knftables.Table:
		o.Family, o.Name = b.family, Table
	case *knftables.Chain:
		o.Family, o.Table = b.family, Table
	case *knftables.Rule:
		o.Family, o.Table = b.family, Table
	case *knftables.Set:
		o.Family, o.Table = b.family, Table
	case *knftables.Map:
		o.Family, o.Table = b.family, Table
	case *knftables.Counter:
		o.Family, o.Table = b.family, Table
	}
	return o
}

// replaceTable adds an empty table in place of the present one, if there is one.
func (b batch) replaceTable(comment string) {
	b.add(&knftables.Table{})
	b.del(&knftables.Table{}) // fails if there is no table
	b.add(&knftables.Table{Comment: &comment})
}

// chain adds a chain with its rules.
func (b batch) chain(name string, rules ...string) {
	b.add(&knftables.Chain{Name: name})
	b.rules(name, rules)
}

// hook adds a base chain with its rules. The chain must not be referred to.
func (b batch) hook(name string, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, rules ...string) {
	filter := knftables.FilterType
	b.add(&knftables.Chain{Name: name, Type: &filter, Hook: &hook, Priority: &priority})
	b.rules(name, rules)
}

func (b batch) rules(chain string, rules []string) {
	for _, r := range rules {
		b.add(&knftables.Rule{Chain: chain, Rule: r})
	}
}

// changeChains adds the chains that only t has. The returned function removes those that only old has: nothing may refer to them
// when it is called.
func (b batch) changeChains(old, t map[string][]string) (remove func()) {
	added := missing(t, old)
	for _, name := range added {
		b.add(&knftables.Chain{Name: name})
	}
	for _, name := range added {
		b.rules(name, t[name])
	}
	return func() {
		removed := missing(old, t)
		for _, name := range removed {
			b.flush(&knftables.Chain{Name: name}) // they may refer to each other
		}
		for _, name := range removed {
			b.del(&knftables.Chain{Name: name})
		}
	}
}

// changeMap changes the elements of a map from keys to verdicts.
func (b batch) changeMap(name string, old, t map[string]string) {
	var removed, added []string
	for key, verdict := range old {
		if verdict != t[key] {
			removed = append(removed, key)
		}
	}
	for key, verdict := range t {
		if verdict != old[key] {
			added = append(added, key)
		}
	}
	slices.Sort(removed)
	slices.Sort(added)
	for _, key := range removed {
		b.element(element{set: name, parts: []string{key}, verdict: old[key], remove: true})
	}
	for _, key := range added {
		b.element(element{set: name, parts: []string{key}, verdict: t[key]})
	}
}

// changeKeys changes the elements of a set. Each key may have several parts.
func (b batch) changeKeys(name string, old, t map[string][]string) {
	for _, key := range missing(old, t) {
		b.element(element{set: name, parts: old[key], remove: true})
	}
	for _, key := range missing(t, old) {
		b.element(element{set: name, parts: t[key]})
	}
}

// changeSet changes the elements of a set of addresses of one family. Intervals are left to the nft program.
func (b batch) changeSet(f family, name string, interval bool, e policy.Elements) {
	b.changePrefixes(f, name, interval, e.Removed, true)
	b.changePrefixes(f, name, interval, e.Added, false)
}

func (b batch) changePrefixes(f family, name string, interval bool, prefixes []netip.Prefix, remove bool) {
	for _, p := range prefixes {
		if f.of(p.Addr()) {
			b.structural = b.structural || interval
			b.element(element{set: name, prefix: p, remove: remove})
		}
	}
}
