package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/labels"
)

// term selects addresses of the other end of a connection. Exactly one of pods, block, nodes and domain is set. The key is equal for
// equal terms.
type term struct {
	key    string
	pods   *podTerm
	block  *block
	nodes  labels.Selector
	domain Domain
}

// podTerm selects pods by labels, in one namespace by name or, where spaces is not nil, in all namespaces that it matches.
type podTerm struct {
	namespace  string
	spaces     labels.Selector
	spacesText string // of spaces
	pods       labels.Selector
	// port, where its name is not empty, selects only pods that use this number for this port name.
	port Port
}

// newSpaces returns a term for the pods that a selector matches, in all namespaces that another one matches.
func newSpaces(spaces, pods labels.Selector) podTerm {
	return podTerm{spaces: spaces, spacesText: spaces.String(), pods: pods}
}

// block is a prefix without some prefixes inside it.
type block struct {
	prefix netip.Prefix
	except []netip.Prefix
}

func newPodTerm(t podTerm) term {
	spaces := "=" + t.namespace
	if t.spaces != nil {
		spaces = "~" + t.spacesText
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

// contains reports whether an address is in the block, and not in an exception.
func (b *block) contains(ip netip.Addr) bool {
	return b.prefix.Contains(ip) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return e.Contains(ip) })
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

// appendHosts appends the prefixes of single addresses.
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
