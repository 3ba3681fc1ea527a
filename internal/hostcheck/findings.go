package hostcheck

import (
	"fmt"
	"slices"
	"strings"

	"weft/internal/health"
	"weft/internal/hostfilter"
	"weft/internal/hostports"
	"weft/internal/plural"
	"weft/internal/podprobe"
)

// Missing implements health.Requirement: a node is not ready while the bridge or the host's filters drop the frames of its pods.
func (c *Checker) Missing() string { return c.state.Load().missing(c.cfg.Settings.Bridge) }

func (s *state) missing(bridge string) string {
	switch {
	case s.waits:
		return fmt.Sprintf("the bridge %s does not forward frames of new ports yet, as it runs STP", bridge)
	case slices.ContainsFunc(s.probes, dropped):
		return "the packet filters of the host drop frames between pods"
	}
	return ""
}

// Findings implements health.Source.
func (c *Checker) Findings() []health.Finding {
	return c.state.Load().findings(c.cfg.Settings.Bridge)
}

func (s *state) findings(bridge string) (findings []health.Finding) {
	findings = append(findings, s.podFindings(bridge)...)
	for _, l := range s.losses {
		if l.Result.Verdict != hostfilter.Drops {
			continue
		}
		switch l.Traffic {
		case hostfilter.PodsToOutside:
			findings = append(findings, health.Finding{
				Code: health.OutsideTrafficFiltered, Text: fmt.Sprintf("The packet filters of this host drop %s.", l), Remedy: l.Remedy,
			})
		case hostfilter.HostToPods:
			findings = append(findings, health.Finding{
				Code: health.HostTrafficFiltered, Text: fmt.Sprintf("The packet filters of this host drop %s.", l), Remedy: l.Remedy,
			})
		case hostfilter.ClientsToPods:
			findings = append(findings, health.Finding{
				Code: health.ClientTrafficFiltered, Text: fmt.Sprintf("The packet filters of this host drop %s.", l), Remedy: l.Remedy,
			})
		case hostfilter.NodesToNode:
			findings = append(findings, health.Finding{
				Code: health.NodePortFiltered, Text: fmt.Sprintf("The packet filters of this host drop %s.", l), Remedy: l.Remedy,
			})
		case hostfilter.PodsToPods:
		}
	}
	findings = append(findings, s.routeFindings()...)
	findings = append(findings, s.neighborFindings()...)
	return append(findings, s.portFindings()...)
}

// neighborFindings reports tables of neighbors that are too small for this host and its pods.
func (s *state) neighborFindings() (findings []health.Finding) {
	for _, t := range s.full {
		limit := max(4*t.Limit, recommendedNeighbors)
		findings = append(findings, health.Finding{
			Code: health.NeighborTableFull, Key: t.Family,
			Text: fmt.Sprintf("The kernel had no room for %s in the last minutes: it keeps at most %d of %s for the host and all its pods "+
				"together, and has %d now. Pods do not reach new addresses.", plural.Count(t.Overflows, "neighbor"), t.Limit,
				familyName(t.Family), t.Entries),
			Remedy: fmt.Sprintf("Run \"sysctl -w %[1]s=%[2]d %[3]s=%[4]d\", and write both to /etc/sysctl.d. If no pod talks to so many others, "+
				"look for one that scans the range.", t.Setting(), limit, strings.Replace(t.Setting(), "thresh3", "thresh2", 1), limit/2),
		})
	}
	return findings
}

// recommendedNeighbors is the least limit that a remedy names.
const recommendedNeighbors = 16384

func familyName(family string) string {
	if family == "ipv6" {
		return "IPv6"
	}
	return "IPv4"
}

// podFindings reports frames between pods that are dropped: as a probe has found, or, without probes, as the rules say.
func (s *state) podFindings(bridge string) []health.Finding {
	i := slices.IndexFunc(s.losses, func(l hostfilter.Loss) bool { return l.Traffic == hostfilter.PodsToPods })
	text, remedy := "the rule is not known", fmt.Sprintf("Look for it with \"nft list ruleset\" and \"iptables-legacy-save\", and accept "+
		"packets that arrive by %s and leave by it.", bridge)
	if i >= 0 {
		text, remedy = s.losses[i].Result.String(), s.losses[i].Remedy
	}
	drops := slices.ContainsFunc(s.probes, dropped)
	if s.probes == nil {
		drops = i >= 0 && s.losses[i].Result.Verdict == hostfilter.Drops
	}
	if !drops {
		return nil
	}
	families := "IPv4 and IPv6"
	switch lost := slices.DeleteFunc(slices.Clone(s.probes), func(r podprobe.Result) bool { return r.Passed }); {
	case len(lost) == 1 && lost[0].Range.Addr().Is4():
		families = "IPv4"
	case len(lost) == 1:
		families = "IPv6"
	}
	return []health.Finding{{
		Code: health.PodTrafficFiltered, Remedy: remedy,
		Text: fmt.Sprintf("Pods of this host do not reach other pods by %s: a packet filter of the host drops their frames: %s.", families, text),
	}}
}

// routeFindings reports routes that keep the host from its pods, and hosts that the range hides.
func (s *state) routeFindings() (findings []health.Finding) {
	if len(s.conflicts) > 0 {
		var texts []string
		for _, conflict := range s.conflicts {
			texts = append(texts, conflict.String())
		}
		findings = append(findings, health.Finding{
			Code: health.RangeRoutedElsewhere, Text: fmt.Sprintf("This host does not reach its pods: %s.", health.List(texts)),
			Remedy: "Exclude the range in the program that added the route, or remove what it added with \"ip route del\" or \"ip rule del\".",
		})
	}
	if len(s.hidden) > 0 {
		var texts []string
		for _, a := range s.hidden {
			texts = append(texts, a.String())
		}
		findings = append(findings, health.Finding{
			Code: health.RangeHidesHosts, Text: fmt.Sprintf("This host looks for %s among the pods: the range contains them.", health.List(texts)),
			Remedy: "Add routes to these hosts with a longer prefix, or use a range without them.",
		})
	}
	return findings
}

// portFindings reports published ports of containers that another program has removed.
func (s *state) portFindings() []health.Finding {
	if len(s.flushed) == 0 {
		return nil
	}
	f := health.Finding{
		Code: health.HostPortsFlushed,
		Text: fmt.Sprintf("Another program removed the rules for ports of containers, and weft published them again: %s.",
			health.List(hostports.Names(s.flushed))),
		Remedy: "Restart these containers to get the original rules, and use no command that flushes the rules of other programs.",
	}
	if s.portsErr != nil {
		f.Text = fmt.Sprintf("Another program removed the rules for ports of containers, and they cannot be published again (%v): %s.",
			s.portsErr, health.List(hostports.Names(s.flushed)))
		f.Remedy = "Restart these containers."
	}
	return []health.Finding{f}
}
