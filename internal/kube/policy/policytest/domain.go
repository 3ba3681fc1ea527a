package policytest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"weft/internal/kube/policy"
)

// names are DNS names that resolve, domains are patterns as policies write them, of which some stand for them.
var (
	names = []string{"example.com", "www.example.com", "a.b.example.com", "myexample.com", "api.test", "x.api.test", "a.org.example"}

	domains = []string{
		"example.com", "*.example.com", "www.Example.com.", "*.b.example.com", "*.API.test", "api.test.", "*.example.org", "myexample.com",
		"*.Org.example.", "a.b.example.com", "*.www.example.com", "x.api.test",
	}
)

// external are addresses outside of the cluster that names resolve to.
var external = []netip.Addr{
	netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"),
}

// Names returns the addresses of some names: most are outside of the cluster, some of pods.
func (r Random) Names(c *policy.Cluster) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, name := range names {
		out[name] = several(r, 3, func() netip.Addr {
			if r.chance(2) {
				return pick(r, external)
			}
			return pick(r, pick(r, c.Pods).IPs)
		})
	}
	return out
}

// domainNames returns domain names for a rule: sometimes so many that they share a set.
func (r Random) domainNames() []string {
	if r.chance(4) {
		return slices.Clone(domains)
	}
	return append(several(r, 3, func() string { return pick(r, domains) }), pick(r, domains))
}

// as returns texts as another type of strings.
func as[T, F ~string](texts []F) (out []T) {
	for _, t := range texts {
		out = append(out, T(t))
	}
	return out
}

// resolves reports whether a name that one of the domains stands for has resolved to an address.
func resolves[T ~string](c *policy.Cluster, domains []T, ip netip.Addr) bool {
	for _, d := range domains {
		for name, addrs := range c.Names {
			if stands(string(d), name) && slices.Contains(addrs, ip) {
				return true
			}
		}
	}
	return false
}

// stands reports whether a domain of a policy stands for a name. It compares label by label, from the last one on.
func stands(domain, name string) bool {
	want := strings.Split(strings.ToLower(strings.Trim(domain, ".")), ".")
	got := strings.Split(name, ".")
	for i := 1; i <= len(want); i++ {
		label := want[len(want)-i]
		if label == "*" {
			return len(got) >= i
		}
		if i > len(got) || got[len(got)-i] != label {
			return false
		}
	}
	return len(got) == len(want)
}

// Resolve sets the addresses of all domains in the policies of a cluster.
func Resolve(s *policy.State, c *policy.Cluster) {
	all := map[string]bool{}
	for _, a := range c.Admin {
		for _, r := range a.Spec.Egress {
			for _, t := range r.To {
				for _, d := range t.DomainNames {
					all[string(d)] = true
				}
			}
		}
	}
	for _, k := range c.Cluster {
		for _, r := range k.Spec.Egress {
			for _, t := range r.To {
				for _, d := range t.DomainNames {
					all[string(d)] = true
				}
			}
		}
	}
	for _, text := range slices.Sorted(maps.Keys(all)) {
		d, err := policy.ParseDomain(text)
		if err != nil {
			panic(fmt.Sprintf("policytest: %v", err))
		}
		var addrs []netip.Addr
		for name, resolved := range c.Names {
			if stands(text, name) {
				addrs = append(addrs, resolved...)
			}
		}
		s.SetDomain(d, addrs)
	}
}

// byDomain reports whether a peer of a rule is one by domain name.
func byDomain(p v1alpha1.AdminNetworkPolicyEgressPeer) bool { return len(p.DomainNames) > 0 }
