package policy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// liveSet is a set of addresses that follows the pods, nodes and domains which its terms select.
type liveSet struct {
	terms  []term
	blocks []netip.Prefix // of its terms
	hosts  multiset       // addresses of pods, nodes and domains
	// interval is true for a set with blocks; elements are its elements at the last flush.
	interval bool
	elements []netip.Prefix
	fresh    bool // it was not flushed yet
}

// newSet returns the set of all addresses that the terms select.
func (s *State) newSet(terms []term) *liveSet {
	set := &liveSet{terms: terms, fresh: true}
	for _, t := range terms {
		switch {
		case t.pods != nil:
			for _, p := range s.podsOf(t.pods) {
				set.hosts.add(p.addresses(), 1)
			}
		case t.domain != "":
			set.hosts.add(s.domains[t.domain], 1)
		case t.block != nil:
			set.interval = true
			set.blocks = append(set.blocks, t.block.prefixes()...)
		}
	}
	for _, node := range s.nodes {
		set.addNode(node, 1)
	}
	return set
}

// addNode adds what its terms select of a node n times: all addresses of a node by its labels, and the aliases of one with an address in a
// block.
func (s *liveSet) addNode(node Node, n int) {
	for _, t := range s.terms {
		switch {
		case t.nodes != nil && t.nodes.Matches(labels.Set(node.Labels)):
			s.hosts.add(node.IPs, n)
			s.hosts.add(node.Aliases, n)
		case t.block != nil && len(node.Aliases) > 0 && slices.ContainsFunc(node.IPs, t.block.contains):
			s.hosts.add(node.Aliases, n)
		}
	}
}

// hasNodes reports whether nodes may contribute.
func (s *liveSet) hasNodes() bool {
	return slices.ContainsFunc(s.terms, func(t term) bool { return t.nodes != nil || t.block != nil })
}

// spaces returns the namespaces that its pods are in; all is true if they may be in any.
func (s *liveSet) spaces() (names []string, all bool) {
	for _, t := range s.terms {
		switch {
		case t.pods == nil:
		case t.pods.spaces != nil:
			return nil, true
		case !slices.Contains(names, t.pods.namespace):
			names = append(names, t.pods.namespace)
		}
	}
	return names, false
}

// flush returns the changes since the last flush.
func (s *liveSet) flush() (out Elements) {
	s.fresh = false
	added, removed := s.hosts.flush()
	if !s.interval {
		return Elements{Added: appendHosts(nil, added), Removed: appendHosts(nil, removed)}
	}
	before := s.elements
	s.elements = sortPrefixes(appendHosts(slices.Clone(s.blocks), s.hosts.sorted))
	out.Removed, out.Added = differences(before, s.elements)
	return out
}

// changed reports whether flush would return changes.
func (s *liveSet) changed() bool { return s.fresh || !s.hosts.settled() }

// set returns the set as it was at the last flush.
func (s *liveSet) set() Set {
	if s.interval {
		return Set{Prefixes: slices.Clone(s.elements), Blocks: true}
	}
	return Set{Prefixes: appendHosts(nil, s.hosts.sorted)}
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

// portUse counts which numbers the pods of a term use for a port name.
type portUse struct {
	term     podTerm
	name     string
	protocol string
	counts   map[uint16]int
	seen     []uint16 // the numbers when chains were last built
	used     bool     // by the chains
	changed  bool     // counts may have other numbers than when this was last asked
}

// add counts the ports of a pod n times.
func (u *portUse) add(p *Pod, n int) {
	for _, port := range p.Ports {
		if port.Name == u.name && string(port.Protocol) == u.protocol {
			u.changed = true
			if u.counts[port.Number] += n; u.counts[port.Number] == 0 {
				delete(u.counts, port.Number)
			}
		}
	}
}

// numbers returns the numbers in use, sorted.
func (u *portUse) numbers() []uint16 {
	out := make([]uint16, 0, len(u.counts))
	for n := range u.counts {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
