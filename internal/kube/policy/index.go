package policy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// index finds pods by labels without looking at all of them. It belongs to one call of Compile.
type index struct {
	*Cluster
	byNamespace map[string][]*Pod
	byLabel     map[[2]string][]*Pod
	spaces      map[string]map[string]bool // namespaces by the selector that picks them
	terms       map[string][]netip.Prefix  // what a term stands for, by its key
}

func newIndex(c *Cluster) *index {
	x := &index{
		Cluster: c, byNamespace: map[string][]*Pod{}, byLabel: map[[2]string][]*Pod{},
		spaces: map[string]map[string]bool{}, terms: map[string][]netip.Prefix{},
	}
	for _, p := range c.Pods {
		x.byNamespace[p.Namespace] = append(x.byNamespace[p.Namespace], p)
		for k, v := range p.Labels {
			x.byLabel[[2]string{k, v}] = append(x.byLabel[[2]string{k, v}], p)
		}
	}
	return x
}

// selected returns the namespaces that a selector picks. The caller must not change them.
func (x *index) selected(s labels.Selector) map[string]bool {
	key := s.String()
	if found, ok := x.spaces[key]; ok {
		return found
	}
	found := map[string]bool{}
	for name, l := range x.Namespaces {
		if s.Matches(labels.Set(l)) {
			found[name] = true
		}
	}
	x.spaces[key] = found
	return found
}

// holds reports whether a pod is in the namespaces and has the labels that t asks for.
func (x *index) holds(t podTerm, p *Pod) bool {
	if t.spaces == nil && p.Namespace != t.namespace || t.spaces != nil && !x.selected(t.spaces)[p.Namespace] {
		return false
	}
	return t.pods.Matches(labels.Set(p.Labels))
}

// pods returns the pods that t stands for.
func (x *index) pods(t podTerm) []*Pod {
	return slices.DeleteFunc(slices.Clone(x.candidates(t)), func(p *Pod) bool { return !x.holds(t, p) })
}

// candidates returns pods among which are all that t stands for: the fewest that one look-up finds.
func (x *index) candidates(t podTerm) []*Pod {
	best := x.Pods
	if t.spaces == nil {
		best = x.byNamespace[t.namespace]
	}
	requirements, selectable := t.pods.Requirements()
	if !selectable {
		return nil
	}
	for _, r := range requirements {
		op := r.Operator()
		if values := r.ValuesUnsorted(); len(values) == 1 && (op == selection.In || op == selection.Equals || op == selection.DoubleEquals) {
			if found := x.byLabel[[2]string{r.Key(), values[0]}]; len(found) < len(best) {
				best = found
			}
		}
	}
	return best
}
