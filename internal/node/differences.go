package node

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/internal/health"
	"weft/internal/settings"
	"weft/ipam/ring"
	"weft/mesh"
)

// mismatchFindings reports nodes of another cluster.
func (c clusterFindings) mismatchFindings() []health.Finding {
	mismatches := c.mesh.ClusterMismatches()
	if len(mismatches) == 0 {
		return nil
	}
	var names []string
	for _, m := range mismatches {
		names = append(names, fmt.Sprintf("%s (%s at %s)", m.Name, m.ID, m.Addr))
	}
	return []health.Finding{{
		Code: health.ClusterMismatch,
		Text: fmt.Sprintf("Another cluster was found. Its %s was divided independently of that of this cluster (%s): %s. Neither "+
			"accepts the other, "+
			"because pods of both may have the same addresses.", joinPrefixes(c.cfg.Ranges), c.cfg.Name, health.List(names)),
		Remedy: "To merge them, stop the nodes of one, move their ipam.db away and start them again. To keep them apart, run \"weft " +
			"forget\" for " +
			"the target or use different secrets.",
	}}
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, " and ")
}

// rangeFindings reports nodes that were started with other address ranges: they and this node do not share addresses.
func (c clusterFindings) rangeFindings(members []mesh.Member) []health.Finding {
	var findings []health.Finding
	for _, m := range members {
		if !isLivePeer(m) || len(m.Ranges) == 0 || slices.Equal(sortedPrefixes(m.Ranges), sortedPrefixes(c.cfg.Ranges)) {
			continue
		}
		findings = append(findings, health.Finding{
			Code: health.RangeMismatch, Key: m.ID.String(),
			Text: fmt.Sprintf("Node %s (%s at %s) has --range %s, and this node %s: they do not share addresses, and their pods do not reach each "+
				"other.", m.Name, m.ID, m.Addr, joinPrefixes(m.Ranges), joinPrefixes(c.cfg.Ranges)),
			Remedy: "Start the one that is wrong with the --range of the other nodes; if it has leased addresses of its own range, move its " +
				"ipam.db away before.",
		})
	}
	return findings
}

func sortedPrefixes(list []netip.Prefix) []netip.Prefix {
	masked := make([]netip.Prefix, len(list))
	for i, p := range list {
		masked[i] = p.Masked()
	}
	slices.SortFunc(masked, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return masked
}

// versionFindings reports nodes with another version of weft than this one.
func (c clusterFindings) versionFindings(members []mesh.Member) []health.Finding {
	var others []string
	for _, m := range members {
		if isLivePeer(m) && m.Version != "" && m.Version != c.cfg.Version {
			others = append(others, fmt.Sprintf("%s has %s", m.Name, m.Version))
		}
	}
	if len(others) == 0 {
		return nil
	}
	return []health.Finding{{
		Code:   health.VersionMismatch,
		Text:   fmt.Sprintf("Nodes run different versions of weft: this one has %s, %s.", c.cfg.Version, health.List(others)),
		Remedy: "Finish the upgrade; versions that follow one another work together meanwhile.",
	}}
}

// publishedDomain is a domain as nodes publish it: nothing for the default, the domain of all nodes before it could be chosen.
func publishedDomain(domain string) string {
	if domain == settings.DefaultDNSDomain {
		return ""
	}
	return domain
}

// domainFindings reports nodes that answer the names of pods below another domain.
func (c clusterFindings) domainFindings(members []mesh.Member) []health.Finding {
	var findings []health.Finding
	for _, m := range members {
		theirs := cmp.Or(m.DNSDomain, settings.DefaultDNSDomain)
		if !isLivePeer(m) || theirs == c.cfg.Domain() {
			continue
		}
		findings = append(findings, health.Finding{
			Code: health.DNSDomainMismatch, Key: m.ID.String(),
			Text: fmt.Sprintf("Node %s (%s at %s) has --dns-domain %s, and this node %s: pods on one do not find the names that pods on the "+
				"other use.", m.Name, m.ID, m.Addr, theirs, c.cfg.Domain()),
			Remedy: "Start the one that is wrong with the --dns-domain of the other nodes.",
		})
	}
	return findings
}

// nodeAt names the node at an address for people, as far as it is known.
func (c clusterFindings) nodeAt(addr netip.Addr) string {
	for _, id := range c.mesh.Known() {
		if at, name := c.mesh.LastSeen(id); at.Addr() == addr && name != "" {
			return fmt.Sprintf("The node at %s, which was %s,", addr, name)
		}
	}
	return fmt.Sprintf("A node at %s", addr)
}

// rejectedFor is how long after the last message gossip that could not be used remains a condition: longer than the pause between two
// exchanges of states.
const rejectedFor = 2 * time.Minute

// rejectedFindings reports gossip that this node cannot use, unless its sender is gone or is known to have another range.
func (c clusterFindings) rejectedFindings(members []mesh.Member) []health.Finding {
	r := c.mesh.Rejected()
	if r.Count == 0 || time.Since(r.Last) > rejectedFor {
		return nil
	}
	untold := func(m mesh.Member) bool { return isLivePeer(m) && len(m.Ranges) == 0 } // of an earlier build
	if errors.Is(r.Err, ring.ErrRange) && !slices.ContainsFunc(members, untold) {
		return nil
	}
	if !r.From.IsZero() && !c.members.Alive(r.From) {
		return nil
	}
	from := "a member"
	if !r.From.IsZero() {
		from = fmt.Sprintf("node %s (%s)", c.members.NodeName(r.From), r.From)
	}
	return []health.Finding{{
		Code: health.GossipRejected, Text: fmt.Sprintf("Gossip was ignored: %d messages since the start, the last from %s: %v.", r.Count,
			from, r.Err),
		Remedy: "Run one version of weft on all nodes; if they do, check that node.",
	}}
}
