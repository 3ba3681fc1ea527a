package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// podKey names a pod.
type podKey struct{ namespace, name string }

// compare orders pods by name.
func (k podKey) compare(l podKey) int {
	return cmp.Or(strings.Compare(k.namespace, l.namespace), strings.Compare(k.name, l.name))
}

func (p *Pod) key() podKey { return podKey{p.Namespace, p.Name} }

// label is a label's key and value.
type label struct{ key, value string }

// index finds pods by labels without a search of all pods.
type index struct {
	namespaces  map[string]Labels
	nodes       map[string]Node // by name
	pods        map[podKey]*Pod
	local       map[podKey]*Pod // those of this node
	byNamespace map[string][]*Pod
	byLabel     map[label][]*Pod
	spaces      map[string]map[string]bool // names of the namespaces that a selector matches, by its text
}

func newIndex() index {
	return index{
		namespaces: map[string]Labels{}, nodes: map[string]Node{}, pods: map[podKey]*Pod{}, local: map[podKey]*Pod{},
		byNamespace: map[string][]*Pod{}, byLabel: map[label][]*Pod{}, spaces: map[string]map[string]bool{},
	}
}

// add adds a pod. The index must not have one of that name.
func (x *index) add(p *Pod) {
	x.pods[p.key()] = p
	if p.Local {
		x.local[p.key()] = p
	}
	x.byNamespace[p.Namespace] = append(x.byNamespace[p.Namespace], p)
	for k, v := range p.Labels {
		x.byLabel[label{k, v}] = append(x.byLabel[label{k, v}], p)
	}
}

// remove removes a pod that the index has.
func (x *index) remove(p *Pod) {
	delete(x.pods, p.key())
	delete(x.local, p.key())
	drop(x.byNamespace, p.Namespace, p)
	for k, v := range p.Labels {
		drop(x.byLabel, label{k, v}, p)
	}
}

// drop removes a pod from one of the lists of m. The order of a list does not matter.
func drop[K comparable](m map[K][]*Pod, k K, p *Pod) {
	list := m[k]
	i := slices.Index(list, p)
	if i < 0 {
		return
	}
	last := len(list) - 1
	list[i], list[last] = list[last], nil
	if last == 0 {
		delete(m, k)
		return
	}
	m[k] = list[:last]
}

// selected returns the namespaces that a selector with the given text matches. The caller must not change the map.
func (x *index) selected(s labels.Selector, text string) map[string]bool {
	if found, ok := x.spaces[text]; ok {
		return found
	}
	found := map[string]bool{}
	for name, l := range x.namespaces {
		if s.Matches(labels.Set(l)) {
			found[name] = true
		}
	}
	x.spaces[text] = found
	return found
}

// holds reports whether t selects a pod.
func (x *index) holds(t *podTerm, p *Pod) bool {
	if t.spaces == nil && p.Namespace != t.namespace || t.spaces != nil && !x.selected(t.spaces, t.spacesText)[p.Namespace] {
		return false
	}
	return t.pods.Matches(labels.Set(p.Labels)) && (t.port.Name == "" || slices.Contains(p.Ports, t.port))
}

// podsOf returns the pods that t selects.
func (x *index) podsOf(t *podTerm) []*Pod {
	return slices.DeleteFunc(slices.Clone(x.candidates(t)), func(p *Pod) bool { return !x.holds(t, p) })
}

// candidates returns a superset of the pods that t selects: the smallest that one lookup finds.
func (x *index) candidates(t *podTerm) []*Pod {
	requirements, selectable := t.pods.Requirements()
	if !selectable {
		return nil
	}
	var best []*Pod
	found := false
	if t.spaces == nil {
		best, found = x.byNamespace[t.namespace], true
	}
	for _, r := range requirements {
		op := r.Operator()
		if values := r.ValuesUnsorted(); len(values) == 1 && (op == selection.In || op == selection.Equals || op == selection.DoubleEquals) {
			if list := x.byLabel[label{r.Key(), values[0]}]; !found || len(list) < len(best) {
				best, found = list, true
			}
		}
	}
	if !found {
		return slices.Collect(maps.Values(x.pods))
	}
	return best
}

// addresses returns the addresses that stand for the pod, for its own policies and for those that select it as a peer. They are at
// least its IPs. The link-local address counts for a pod that has IPv6. The caller must not change them.
func (p *Pod) addresses() []netip.Addr {
	if !p.LinkLocal.IsValid() || !p.hasIPv6() {
		return p.IPs
	}
	return append(slices.Clone(p.IPs), p.LinkLocal)
}

// hasIPv6 reports whether the pod has an IPv6 address besides the link-local one.
func (p *Pod) hasIPv6() bool { return slices.ContainsFunc(p.IPs, netip.Addr.Is6) }
