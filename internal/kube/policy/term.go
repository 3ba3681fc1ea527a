package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term selects addresses of the other end of a connection. Exactly one of pods, block and nodes is set. The key is equal for
// equal terms.
type term struct {
	key   string
	pods  *podTerm
	block *block
	nodes labels.Selector
}

// podTerm selects pods by labels, in one namespace by name or, where spaces is not nil, in all namespaces that it matches.
type podTerm struct {
	namespace string
	spaces    labels.Selector
	pods      labels.Selector
	// port, where its name is not empty, selects only pods that use this number for this port name.
	port Port
}

// block is a prefix without some prefixes inside it.
type block struct {
	prefix netip.Prefix
	except []netip.Prefix
}

func newPodTerm(t podTerm) term {
	spaces := "=" + t.namespace
	if t.spaces != nil {
		spaces = "~" + t.spaces.String()
	}
	key := fmt.Sprintf("pods %s %s", spaces, t.pods)
	if t.port.Name != "" {
		key += fmt.Sprintf(" %s %s %d", t.port.Name, t.port.Protocol, t.port.Number)
	}
	return term{key: key, pods: &t}
}

func newBlock(b block) term {
	b.prefix = b.prefix.Masked()
	return term{key: fmt.Sprintf("block %s %s", b.prefix, b.except), block: &b}
}

func newNodes(s labels.Selector) term { return term{key: "nodes " + s.String(), nodes: s} }

// resolve returns the addresses that t selects, sorted, without overlaps. The caller must not change them.
func (x *index) resolve(t term) []netip.Prefix {
	if found, ok := x.terms[t.key]; ok {
		return found
	}
	var out []netip.Prefix
	switch {
	case t.pods != nil:
		for _, p := range x.pods(*t.pods) {
			if t.pods.port.Name == "" || slices.Contains(p.Ports, t.pods.port) {
				out = appendHosts(out, p.addresses())
			}
		}
	case t.nodes != nil:
		for _, n := range x.Nodes {
			if t.nodes.Matches(labels.Set(n.Labels)) {
				out = appendHosts(out, n.IPs)
			}
		}
	case t.block != nil:
		out = t.block.prefixes()
	}
	out = sortPrefixes(out)
	x.terms[t.key] = out
	return out
}

// prefixes returns the block without its exceptions.
func (b block) prefixes() []netip.Prefix {
	if len(b.except) == 0 {
		return []netip.Prefix{b.prefix}
	}
	var builder netipx.IPSetBuilder
	builder.AddPrefix(b.prefix)
	for _, e := range b.except {
		builder.RemovePrefix(e)
	}
	set, err := builder.IPSet()
	if err != nil { // only for invalid prefixes, which are refused when a policy is read
		return nil
	}
	return set.Prefixes()
}

// union returns the set of all addresses that the terms select.
func (x *index) union(terms []term) Set {
	set := Set{}
	for _, t := range terms {
		set.Blocks = set.Blocks || t.block != nil
	}
	for _, t := range terms {
		set.Prefixes = append(set.Prefixes, x.resolve(t)...)
	}
	set.Prefixes = sortPrefixes(set.Prefixes)
	return set
}

func appendHosts(out []netip.Prefix, ips []netip.Addr) []netip.Prefix {
	for _, ip := range ips {
		out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return out
}

// sortPrefixes sorts p in place and removes prefixes that another one contains.
func sortPrefixes(p []netip.Prefix) []netip.Prefix {
	slices.SortFunc(p, netip.Prefix.Compare) // a prefix sorts before those that it contains
	kept := p[:0]
	for _, q := range p {
		if n := len(kept); n == 0 || !kept[n-1].Contains(q.Addr()) {
			kept = append(kept, q)
		}
	}
	return kept
}

// definition returns a text that is equal for equal sets of terms, and the terms sorted and without duplicates.
func definition(terms []term) (string, []term) {
	terms = slices.Clone(terms)
	slices.SortFunc(terms, func(a, b term) int { return strings.Compare(a.key, b.key) })
	terms = slices.CompactFunc(terms, func(a, b term) bool { return a.key == b.key })
	keys := make([]string, len(terms))
	for i, t := range terms {
		keys[i] = t.key
	}
	return strings.Join(keys, "\n"), terms
}

// numbers returns the numbers that the pods of t use for a port name and protocol, sorted and without duplicates.
func (x *index) numbers(t podTerm, name string, protocol corev1.Protocol) []uint16 {
	var out []uint16
	for _, p := range x.pods(t) {
		out = append(out, p.numbers(name, protocol)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
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

// numbers returns the numbers of the pod's ports of that name and protocol.
func (p *Pod) numbers(name string, protocol corev1.Protocol) (out []uint16) {
	for _, port := range p.Ports {
		if port.Name == name && port.Protocol == protocol {
			out = append(out, port.Number)
		}
	}
	return out
}
