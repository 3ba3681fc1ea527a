package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/ether"
	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
)

var equalAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// follower applies the changes of a State to a copy of its rulesets, as a packet filter does.
type follower struct{ rules *policy.Ruleset }

func (f *follower) apply(t *testing.T, c policy.Change) {
	t.Helper()
	if x := c.Extension; x != nil {
		f.extend(c.Rules, x)
	} else if c.Rules != nil {
		sets := map[string]policy.Set{}
		for name, set := range c.Rules.Sets {
			set.Prefixes = f.rules.Sets[name].Prefixes
			sets[name] = set
		}
		f.rules = &policy.Ruleset{
			Sets: sets, Chains: c.Rules.Chains, Pods: c.Rules.Pods, Links: c.Rules.Links, Problems: c.Rules.Problems, Addrs: f.rules.Addrs,
			Askers: c.Rules.Askers, Resolvers: c.Rules.Resolvers,
		}
	}
	for name, e := range c.Sets {
		set, ok := f.rules.Sets[name]
		if !ok {
			t.Fatalf("elements of the unknown set %s", name)
		}
		set.Prefixes = change(t, set.Prefixes, e)
		f.rules.Sets[name] = set
	}
	var addrs []netip.Prefix
	for _, a := range f.rules.Addrs {
		addrs = append(addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	f.rules.Addrs = nil
	for _, p := range change(t, addrs, c.Addrs) {
		f.rules.Addrs = append(f.rules.Addrs, p.Addr())
	}
}

// extend takes over what an extension lists.
func (f *follower) extend(r *policy.Ruleset, x *policy.Extension) {
	next := *f.rules
	next.Pods, next.Links, next.Sets, next.Chains = maps.Clone(next.Pods), maps.Clone(next.Links), maps.Clone(next.Sets), r.Chains
	for _, ip := range x.Pods {
		delete(next.Pods, ip)
		if chains, ok := r.Pods[ip]; ok {
			next.Pods[ip] = chains
		}
	}
	for _, name := range x.Links {
		delete(next.Links, name)
		if link, ok := r.Links[name]; ok {
			next.Links[name] = link
		}
	}
	for _, name := range x.Sets {
		next.Sets[name] = policy.Set{Blocks: r.Sets[name].Blocks}
	}
	f.rules = &next
}

// change returns the elements of a set after a change, which must remove only elements and add none twice.
func change(t *testing.T, elements []netip.Prefix, e policy.Elements) []netip.Prefix {
	t.Helper()
	now := map[netip.Prefix]bool{}
	for _, p := range elements {
		now[p] = true
	}
	for _, p := range e.Removed {
		if !now[p] {
			t.Fatalf("%v is removed, but is no element", p)
		}
		delete(now, p)
	}
	for _, p := range e.Added {
		if now[p] {
			t.Fatalf("%v is added, but is an element", p)
		}
		now[p] = true
	}
	return slices.SortedFunc(maps.Keys(now), netip.Prefix.Compare)
}

// history changes a cluster and a State in the same way at random.
type history struct {
	policytest.Random
	c      *policy.Cluster
	s      *policy.State
	serial int
}

// step makes one change.
func (h *history) step() {
	other := h.ClusterWithPolicies(4) // to take parts from
	switch h.IntN(12) {
	case 0:
		h.c.Policies = other.Policies
		h.s.SetPolicies(h.c.Policies)
	case 1:
		if n := len(h.c.Network); n > 0 {
			h.c.Network = slices.Delete(slices.Clone(h.c.Network), n-1, n)
		}
		h.s.SetPolicies(h.c.Policies)
	case 2:
		h.c.Namespaces = other.Namespaces
		h.s.SetNamespaces(h.c.Namespaces)
	case 3:
		h.c.Nodes = other.Nodes
		h.s.SetNodes(h.c.Nodes)
	case 4, 5:
		if len(h.c.Pods) > 2 {
			i := h.IntN(len(h.c.Pods))
			gone := h.c.Pods[i]
			h.c.Pods = slices.Delete(slices.Clone(h.c.Pods), i, i+1)
			h.s.DeletePod(gone.Namespace, gone.Name)
		}
	case 10, 11:
		h.c.Names = h.Names(h.c)
	case 6:
		h.serial++
		p := other.Pods[0]
		p.Name, p.Link = fmt.Sprint("new", h.serial), fmt.Sprint("vwnew", h.serial)
		p.IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 33, byte(h.serial >> 8), byte(h.serial)})}
		p.LinkLocal = ether.FromIP(p.IPs[0]).LinkLocal()
		h.c.Pods = append(slices.Clone(h.c.Pods), p)
		h.s.SetPod(p)
	default:
		i := h.IntN(len(h.c.Pods))
		p := *h.c.Pods[i]
		from := other.Pods[h.IntN(len(other.Pods))]
		p.Labels, p.Ports, p.Local, p.Link = from.Labels, from.Ports, from.Local, ""
		if p.Local {
			p.Link = "vw" + p.Name
		}
		h.c.Pods = slices.Clone(h.c.Pods)
		h.c.Pods[i] = &p
		h.s.SetPod(&p)
	}
}

// TestHistory: after any history of changes a State has the ruleset of a new one, and its changes lead there.
func TestHistory(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 15
	}
	extended := 0
	for seed := range uint64(seeds) {
		h := history{Random: policytest.NewRandom(seed), c: &policy.Cluster{Namespaces: map[string]policy.Labels{}}, s: policy.NewState()}
		start := h.ClusterWithPolicies(4)
		h.c.Pods, h.c.Namespaces = start.Pods, start.Namespaces
		h.s.SetNamespaces(h.c.Namespaces)
		for _, p := range h.c.Pods {
			h.s.SetPod(p)
		}
		f := follower{policy.Compile(&policy.Cluster{})}
		for i := range 60 {
			for range 1 + h.IntN(3) {
				h.step()
			}
			policytest.Resolve(h.s, h.c)
			want := policy.Compile(h.c)
			if h.IntN(2) == 0 {
				c := h.s.Extend()
				if c.Extension != nil {
					extended++
				}
				f.apply(t, c)
				for _, got := range []*policy.Ruleset{h.s.Ruleset(), f.rules} {
					if diff := cmp.Diff(normal(want), normal(needed(t, want, got)), equalAddrs); diff != "" {
						t.Fatalf("seed %d, step %d: extended: %s", seed, i, diff)
					}
				}
				if diff := cmp.Diff(want.Problems, h.s.Problems()); diff != "" {
					t.Fatalf("seed %d, step %d: extended: problems: %s", seed, i, diff)
				}
				if c := h.s.Extend(); !c.Empty() {
					t.Fatalf("seed %d, step %d: an extension without a change: %+v", seed, i, c)
				}
				if h.IntN(2) == 0 {
					continue
				}
			}
			f.apply(t, h.s.Update())
			if diff := cmp.Diff(want, h.s.Ruleset(), equalAddrs); diff != "" {
				t.Fatalf("seed %d, step %d: %s", seed, i, diff)
			}
			if diff := cmp.Diff(normal(want), normal(f.rules), equalAddrs); diff != "" {
				t.Fatalf("seed %d, step %d: the changes lead to: %s", seed, i, diff)
			}
			if c := h.s.Update(); !c.Empty() {
				t.Fatalf("seed %d, step %d: a change without a change: %+v", seed, i, c)
			}
		}
	}
	if extended < seeds {
		t.Errorf("%d extensions in %d histories", extended, seeds)
	}
}

// needed returns got without the chains and sets that want does not have: those that no pod needs any more.
func needed(t *testing.T, want, got *policy.Ruleset) *policy.Ruleset {
	t.Helper()
	out := *got
	out.Chains, out.Sets = maps.Clone(got.Chains), maps.Clone(got.Sets)
	maps.DeleteFunc(out.Chains, func(name string, _ policy.Chain) bool { _, ok := want.Chains[name]; return !ok })
	maps.DeleteFunc(out.Sets, func(name string, _ policy.Set) bool { _, ok := want.Sets[name]; return !ok })
	return &out
}

// normal returns what a change has of a ruleset, with empty lists in place of nil.
func normal(r *policy.Ruleset) *policy.Ruleset {
	out := *r
	out.Sets = map[string]policy.Set{}
	for name, set := range r.Sets {
		out.Sets[name] = policy.Set{Prefixes: append([]netip.Prefix{}, set.Prefixes...), Blocks: set.Blocks}
	}
	out.Addrs, out.Problems = append([]netip.Addr{}, r.Addrs...), nil
	return &out
}

// TestPodOfAnotherNode: a pod of another node changes no rule, only elements.
func TestPodOfAnotherNode(t *testing.T) {
	c := policytest.Large(2_000, 100, 50)
	s := policy.NewState()
	s.SetNamespaces(c.Namespaces)
	s.SetPolicies(c.Policies)
	for _, p := range c.Pods[:1_999] {
		s.SetPod(p)
	}
	s.Update()
	s.SetPod(c.Pods[1_999])
	change := s.Update()
	if change.Rules != nil || len(change.Addrs.Added) != 1 || len(change.Addrs.Removed) != 0 || len(change.Sets) == 0 {
		t.Errorf("%+v", change)
	}
}
