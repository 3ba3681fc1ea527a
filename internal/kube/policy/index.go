package policy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// index finds pods by labels without a search of all pods. It belongs to one call of Compile.
type index struct {
	*Cluster
	byNamespace map[string][]*Pod
	byLabel     map[[2]string][]*Pod
	spaces      map[string]map[string]bool // namespaces by selector
	terms       map[string][]netip.Prefix  // the addresses of a term, by its key
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

// selected returns the namespaces that a selector matches. The caller must not change the map.
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

// holds reports whether t selects a pod, apart from t.port.
func (x *index) holds(t podTerm, p *Pod) bool {
	if t.spaces == nil && p.Namespace != t.namespace || t.spaces != nil && !x.selected(t.spaces)[p.Namespace] {
		return false
	}
	return t.pods.Matches(labels.Set(p.Labels))
}

// pods returns the pods that t selects.
func (x *index) pods(t podTerm) []*Pod {
	return slices.DeleteFunc(slices.Clone(x.candidates(t)), func(p *Pod) bool { return !x.holds(t, p) })
}

// candidates returns a superset of the pods that t selects: the smallest that one lookup finds.
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
