package firewall

import "sigs.k8s.io/knftables"

// batch adds operations on objects of one family's table to a transaction, which may have batches of both families.
type batch struct {
	tx     *knftables.Transaction
	family knftables.Family
}

func (b batch) add(o knftables.Object)   { b.tx.Add(b.within(o)) }
func (b batch) del(o knftables.Object)   { b.tx.Delete(b.within(o)) }
func (b batch) flush(o knftables.Object) { b.tx.Flush(b.within(o)) }

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
	case *knftables.Element:
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

// changeMap changes the elements of a map.
func (b batch) changeMap(name string, old, t map[string]string) {
	for _, key := range sortedKeys(old) {
		if old[key] != t[key] {
			b.del(&knftables.Element{Map: name, Key: []string{key}})
		}
	}
	for _, key := range sortedKeys(t) {
		if old[key] != t[key] {
			b.add(&knftables.Element{Map: name, Key: []string{key}, Value: []string{t[key]}})
		}
	}
}

// changeKeys changes the elements of a set. Each key may have several parts.
func (b batch) changeKeys(name string, old, t map[string][]string) {
	for _, key := range missing(old, t) {
		b.del(&knftables.Element{Set: name, Key: old[key]})
	}
	for _, key := range missing(t, old) {
		b.add(&knftables.Element{Set: name, Key: t[key]})
	}
}

// changeSet changes the elements of a set of addresses.
func (b batch) changeSet(name string, old, t set) {
	removed, added := differences(old.keys, t.keys)
	for _, p := range removed {
		b.del(&knftables.Element{Set: name, Key: []string{keyOf(p)}})
	}
	for _, p := range added {
		b.add(&knftables.Element{Set: name, Key: []string{keyOf(p)}})
	}
}
