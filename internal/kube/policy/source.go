package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// everything matches all labels.
var everything = labels.Everything()

// nothing matches no labels.
var nothing = labels.Nothing()

// source is a policy in the common form: the pods that it selects, and its rules.
type source struct {
	kind     string
	meta     *metav1.ObjectMeta
	tier     verdict // that applies where no rule of its tier matches
	priority int32

	subject podTerm
	rules   map[Direction][]rule // a NetworkPolicy isolates pods in the directions that are present, even without rules
	keys    map[Direction]string // equal for equal rules
	named   map[Direction]bool   // the rules have ports by name

	problems []Problem
}

func newSource(kind string, meta *metav1.ObjectMeta, tier verdict, priority int32) *source {
	return &source{
		kind: kind, meta: meta, tier: tier, priority: priority,
		rules: map[Direction][]rule{}, keys: map[Direction]string{}, named: map[Direction]bool{},
	}
}

// problem adds a problem.
func (s *source) problem(format string, args ...any) {
	s.problems = append(s.problems, s.newProblem(format, args...))
}

func (s *source) newProblem(format string, args ...any) Problem {
	return Problem{
		Kind: s.kind, Namespace: s.meta.Namespace, Name: s.meta.Name, UID: string(s.meta.UID), Message: fmt.Sprintf(format, args...),
	}
}

// seal computes what follows from the rules, once they are complete.
func (s *source) seal() *source {
	for d, rules := range s.rules {
		h := sha256.New()
		for _, r := range rules {
			h.Write([]byte(r.key() + "\n"))
		}
		s.keys[d] = hex.EncodeToString(h.Sum(nil))
		s.named[d] = slices.ContainsFunc(rules, rule.named)
	}
	return s
}

// compare orders the sources of a tier by precedence.
func (s *source) compare(t *source) int {
	return cmp.Or(cmp.Compare(s.priority, t.priority), strings.Compare(s.kind, t.kind), strings.Compare(s.meta.Name, t.meta.Name))
}

// sources are the policies of a cluster in the common form, in their order of precedence.
type sources struct {
	admin, baseline []*source
	policies        map[string][]*source // by namespace
	known           map[any]*source      // by object, to read each once
	extra           []Problem            // of the policies as they are, whatever pods there are
}

func newSources() sources { return sources{policies: map[string][]*source{}, known: map[any]*source{}} }

// any reports whether there are policies.
func (x *sources) any() bool { return len(x.known) > 0 }

// baselinePriority is that of a BaselineAdminNetworkPolicy: it applies behind the policies of the baseline tier.
const baselinePriority = 1001

// set replaces the policies, and reports whether any of them has changed.
func (x *sources) set(p Policies) (changed bool) {
	before := x.known
	next := newSources()
	read := func(object any, convert func() *source) *source {
		s := before[object]
		if s == nil {
			s, changed = convert(), true
		}
		next.known[object] = s
		return s
	}
	for _, np := range p.Network {
		s := read(np, func() *source { return readPolicy(np) })
		next.policies[np.Namespace] = append(next.policies[np.Namespace], s)
	}
	for _, a := range p.Admin {
		next.admin = append(next.admin, read(a, func() *source { return readAdmin(a) }))
	}
	for _, c := range p.Cluster {
		s := read(c, func() *source { return readCluster(c) })
		if s.tier == allow {
			next.baseline = append(next.baseline, s)
		} else {
			next.admin = append(next.admin, s)
		}
	}
	var first *source // the BaselineAdminNetworkPolicy in force
	var others []*source
	for _, b := range p.Baseline {
		s := read(b, func() *source { return readBaseline(b) })
		if first != nil && s.compare(first) > 0 {
			others = append(others, s)
			continue
		}
		if first != nil {
			others = append(others, first)
		}
		first = s
	}
	if first != nil {
		next.baseline = append(next.baseline, first)
	}
	for _, s := range others {
		next.extra = append(next.extra, s.newProblem("only one can be in force, and that is %s", first.meta.Name))
	}
	if !changed && len(next.known) == len(before) {
		return false
	}
	for _, s := range next.known {
		next.extra = append(next.extra, s.problems...)
	}
	slices.SortFunc(next.admin, (*source).compare)
	slices.SortFunc(next.baseline, (*source).compare)
	for _, list := range next.policies {
		slices.SortFunc(list, (*source).compare)
	}
	*x = next
	return true
}

// problems returns all problems of the policies.
func (s *State) problems() []Problem {
	out := slices.Clone(s.extra)
	done := map[*source]bool{}
	for _, named := range s.named {
		for from := range named {
			if !done[from] {
				done[from] = true
				out = append(out, s.portNames(from)...)
			}
		}
	}
	slices.SortFunc(out, Problem.compare)
	return slices.Compact(out)
}

// compare orders problems by kind, namespace and name.
func (p Problem) compare(q Problem) int {
	return cmp.Or(strings.Compare(p.Kind, q.Kind), strings.Compare(p.Namespace, q.Namespace),
		strings.Compare(p.Name, q.Name), strings.Compare(p.Message, q.Message))
}

// portNames returns the problems of port names that none of the pods in question has.
func (s *State) portNames(from *source) (out []Problem) {
	for i, r := range from.rules[Ingress] {
		for _, p := range r.ports {
			if p.name != "" && len(s.use(&from.subject, p.name, string(p.protocol)).counts) == 0 {
				out = append(out, from.newProblem("spec.ingress[%d]: no pod that the policy selects has a port named %q (%s); it allows nothing",
					i, p.name, p.protocol))
			}
		}
	}
	for i, r := range from.rules[Egress] {
		for _, p := range r.ports {
			if p.name != "" && len(s.byNumber(r, p)) == 0 {
				out = append(out, from.newProblem("spec.egress[%d]: no pod that the rule allows has a port named %q (%s); it allows nothing",
					i, p.name, p.protocol))
			}
		}
	}
	return out
}
