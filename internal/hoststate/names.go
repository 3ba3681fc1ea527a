package hoststate

import (
	"maps"
	"slices"
)

// Names remembers links by their names and indices, so that those that another program renames get their names back. The zero Names
// knows none. It is not safe for concurrent use.
type Names struct{ links map[string]namedLink }

// namedLink is a link as it was seen with its name.
type namedLink struct {
	index int
	kind  string
}

// Observe returns the actions that rename links back. Another link that has such a name now keeps it.
func (n *Names) Observe(o Observed) (list []Action) {
	renamed := make(map[int]string)
	for name, l := range n.links {
		if _, taken := o.Links[name]; !taken {
			renamed[l.index] = name
		}
	}
	for _, present := range slices.Sorted(maps.Keys(o.Links)) {
		l := o.Links[present]
		if name, ok := renamed[l.Index]; ok && n.links[name].kind == l.Kind {
			list = append(list, Action{Kind: Rename, Link: present, Text: name, Have: present})
		}
	}
	return list
}

// Remember replaces the links that Observe compares by those with the names that d mentions, as far as they are there.
func (n *Names) Remember(d Desired, o Observed) {
	n.links = make(map[string]namedLink)
	names := append([]string{d.Bridge.Name}, slices.Collect(maps.Keys(d.Pods))...)
	for _, t := range d.Tunnels {
		names = append(names, t.Name)
	}
	for _, name := range names {
		if l, found := o.Links[name]; found {
			n.links[name] = namedLink{l.Index, l.Kind}
		}
	}
}
