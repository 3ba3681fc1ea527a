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

// transaction has its operations in two forms: for the nft program, and, unless only the program can make one of them, for the kernel.
type transaction struct {
	*knftables.Transaction
	direct  []step
	size    int  // of direct, in elements and objects
	program bool // it has operations that only the nft program makes
}

// add, del and flush add operations that only the nft program makes.
func (b batch) add(o knftables.Object)   { b.program = true; b.Add(b.within(o)) }
func (b batch) del(o knftables.Object)   { b.program = true; b.Delete(b.within(o)) }
func (b batch) flush(o knftables.Object) { b.program = true; b.Flush(b.within(o)) }

// step adds the form for the kernel of an operation.
func (b batch) step(size int, s step) {
	if b.size += size; !b.program {
		b.direct = append(b.direct, s)
	}
}

// addSet adds an empty set of addresses.
func (b batch) addSet(name string, s set) {
	add := &knftables.Set{Name: name, Type: s.addr}
	if s.interval {
		add.Flags = []knftables.SetFlag{knftables.IntervalFlag}
	}
	b.Add(b.within(add))
	b.step(1, func(k *sender) error { return k.addSet(b.family, name, s) })
}

// delSet removes a set.
func (b batch) delSet(name string) {
	b.Delete(b.within(&knftables.Set{Name: name}))
	b.step(1, func(k *sender) error { k.DelSet(setOf(b.family, name)); return nil })
}

// change adds or removes elements of a set or map. interval is true for a set with blocks of addresses.
func (b batch) change(set string, interval bool, list []element, remove bool) {
	for _, e := range list {
		o := &knftables.Element{Family: b.family, Table: Table, Key: e.key.text()}
		switch {
		case e.verdict == (verdict{}):
			o.Set = set
		case remove:
			o.Map = set
		default:
			o.Map, o.Value = set, []string{e.verdict.text()}
		}
		if remove {
			b.Delete(o)
		} else {
			b.Add(o)
		}
	}
	for part := range slices.Chunk(list, maxElements) {
		b.step(len(part), func(k *sender) error { return k.change(b.family, set, interval, part, remove) })
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
func (b batch) changeChains(old, t map[string][]rule) (remove func()) {
	b.addChains(t, missing(t, old))
	return func() {
		removed := missing(old, t)
		for _, name := range removed { // they may refer to each other
			b.Flush(b.within(&knftables.Chain{Name: name}))
			b.step(1, func(k *sender) error { k.FlushChain(chainOf(b.family, name)); return nil })
		}
		for _, name := range removed {
			b.Delete(b.within(&knftables.Chain{Name: name}))
			b.step(1, func(k *sender) error { k.DelChain(chainOf(b.family, name)); return nil })
		}
	}
}

// addChains adds some of the chains of t, which may refer to each other.
func (b batch) addChains(t map[string][]rule, names []string) {
	for _, name := range names {
		b.Add(b.within(&knftables.Chain{Name: name}))
		b.step(1, func(k *sender) error { k.AddChain(chainOf(b.family, name)); return nil })
	}
	for _, name := range names {
		for _, r := range t[name] {
			b.Add(b.within(&knftables.Rule{Chain: name, Rule: r.text()}))
			b.step(1+len(r.ports), func(k *sender) error { return k.addRule(b.family, name, r) })
			b.program = b.program || len(r.ports) > maxElements
		}
	}
}

// changeElements changes the elements of sets and maps, all of which t has.
func (b batch) changeElements(old, t map[string]elements) {
	for _, name := range sortedKeys(t) {
		b.change(name, false, without(old[name], t[name]), true)
		b.change(name, false, without(t[name], old[name]), false)
	}
}

// without returns the elements of a that b lacks, sorted.
func without(a, b elements) (out []element) {
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out = append(out, element{k, v})
		}
	}
	slices.SortFunc(out, element.compare)
	return out
}

// changeSet changes the elements of a set of addresses of one family.
func (b batch) changeSet(f family, name string, interval bool, e policy.Elements) {
	b.change(name, interval, f.elements(e.Removed), true)
	b.change(name, interval, f.elements(e.Added), false)
}

// elements returns the addresses of the family as elements of a set.
func (f family) elements(prefixes []netip.Prefix) (out []element) {
	for _, p := range prefixes {
		if f.of(p.Addr()) {
			out = append(out, element{key: key{addr: p}})
		}
	}
	return out
}
