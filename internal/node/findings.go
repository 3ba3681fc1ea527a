package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/internal/controlplane"
	"weft/internal/dns"
	"weft/internal/health"
	"weft/internal/settings"
	"weft/internal/target"
	"weft/ipam"
	"weft/mesh"
	"weft/mesh/mismatch"
)

// Thresholds of conditions.
const (
	// lowSpace is the share of a range, in percent, below which its free addresses are a condition.
	lowSpace = 10
	// maxSkew is how far clocks may be apart without a condition.
	maxSkew = 10 * time.Second
)

// clusterFindings reports what is wrong with the cluster, as far as this node knows. It implements health.Source.
type clusterFindings struct {
	cfg     settings.Config
	mesh    *mesh.Mesh
	members *controlplane.Members
	ipam    *ipam.Allocator
	dns     *dns.Server // nil: turned off
	inUse   interface{ inUse() credentials }
	started time.Time // of this node
}

func (n *node) clusterFindings() clusterFindings {
	return clusterFindings{n.cfg, n.mesh, n.members, n.ipam, n.dns, n.reloader, n.started}
}

// Findings implements health.Source.
func (c clusterFindings) Findings() []health.Finding {
	members, status := c.mesh.Members(), c.ipam.Status()
	findings := c.secretFindings(members)
	findings = append(findings, c.identityFindings(members, time.Now())...)
	findings = append(findings, targetFindings(c.mesh.TargetStatus())...)
	if status.WaitingFor != "" {
		findings = append(findings, health.Finding{
			Code: health.RangeNotReady, Text: "No addresses can be allocated yet: waiting for " + status.WaitingFor + ".",
			Remedy: "Run \"weft ipam\" to see the nodes, start the missing ones and connect them with \"weft connect\".",
		})
	}
	findings = append(findings, status.Findings...)
	findings = append(findings, spaceFindings(status)...)
	findings = append(findings, c.dnsFindings()...)
	findings = append(findings, c.mismatchFindings()...)
	findings = append(findings, c.rangeFindings(members)...)
	findings = append(findings, c.versionFindings(members)...)
	findings = append(findings, c.domainFindings(members)...)
	findings = append(findings, c.rejectedFindings(members)...)
	findings = append(findings, clockFindings(members)...)
	keptOut := c.keptOut()
	findings = append(findings, deadFindings(members, status, keptOut)...)
	return append(findings, c.unseenOwnerFindings(members, status, keptOut, time.Now())...)
}

// secretFindings reports missing, new and different secrets.
func (c clusterFindings) secretFindings(members []mesh.Member) []health.Finding {
	inUse := c.inUse.inUse()
	var findings []health.Finding
	if !inUse.sealed() {
		findings = append(findings, health.Finding{
			Code:   health.NoSecret,
			Text:   "Traffic is not encrypted: every host on its path can read it, and every host that reaches the gossip port can join.",
			Remedy: "Create a secret with \"weft secret generate\" and start every node with it in a --secret-file.",
		})
	}
	r := rotation(inUse.secrets, members)
	if len(r.behind) > 0 {
		findings = append(findings, health.Finding{
			Code:   health.SecretRotationIncomplete,
			Text:   fmt.Sprintf("The first line of the secret file is not in use yet: %s does not have it.", strings.Join(r.behind, ", ")),
			Remedy: "Add it to the --secret-file there and run \"weft reload\".",
		})
	}
	if len(r.reversed) > 0 {
		findings = append(findings, health.Finding{
			Code: health.SecretRotationIncomplete, Key: "reversed",
			Text: fmt.Sprintf("The secret file of %s has another first line than that of this node: no line may be dropped yet.",
				strings.Join(r.reversed, ", ")),
			Remedy: "Put the same line first in the --secret-file of all nodes, and run \"weft reload\" on each.",
		})
	}
	for _, k := range c.mesh.KeyMismatches() {
		findings = append(findings, health.Finding{
			Code: health.KeyMismatch, Key: k.Addr.String(), Text: fmt.Sprintf("%s %s and is kept out.", c.nodeAt(k.Addr), k.Reason),
			Remedy: sentence(k.Reason.Remedy()),
		})
	}
	return findings
}

// sentence makes a full sentence of a phrase.
func sentence(phrase string) string {
	if phrase == "" {
		return ""
	}
	return strings.ToUpper(phrase[:1]) + phrase[1:] + "."
}

// sentenceStart returns a sentence without the period at its end.
func sentenceStart(s string) string { return strings.TrimSuffix(s, ".") }

// targetFindings reports targets that are not joined.
func targetFindings(targets []mesh.TargetStatus) []health.Finding {
	var findings []health.Finding
	for _, t := range targets {
		if t.Err == nil || errors.Is(t.Err, mesh.ErrNotTried) {
			continue
		}
		f := health.Finding{
			Code: health.TargetUnreachable, Key: t.Target.String(), Text: fmt.Sprintf("Target %s cannot be reached.", t.Target),
			Remedy: fmt.Sprintf("Check that weft runs there and that TCP and UDP port %d and UDP port %d are open, or run \"weft forget %s\".",
				t.Target.Port, t.Target.Port+1, t.Target),
		}
		if e, ok := errors.AsType[*target.NameError](t.Err); ok {
			f.Text = fmt.Sprintf("Target %s cannot be reached: %v.", t.Target, e)
			f.Remedy = fmt.Sprintf("Check the name and the resolver of this host, or run \"weft forget %s\".", t.Target)
		}
		if !t.Moved.ID.IsZero() {
			f.Text = fmt.Sprintf("Target %s cannot be reached: node %s, which was there, is at %s now.", t.Target, t.Moved.Name, t.Moved.Addr)
			f.Remedy = fmt.Sprintf("Give its new address, or a name, as PEER, or run \"weft forget %s\".", t.Target)
		}
		if refusedTarget(&f, t) {
			findings = append(findings, f)
			continue
		}
		if e, ok := errors.AsType[*mismatch.Error](t.Err); ok {
			f.Code = health.TargetKeyMismatch
			f.Text = fmt.Sprintf("Target %s is not joined: the node there %s.", t.Target, e.Reason)
			f.Remedy = sentence(e.Reason.Remedy())
		} else if isClusterMismatch(t.Err) {
			f.Code = health.TargetClusterMismatch
			f.Text = fmt.Sprintf("Target %s is not joined: it belongs to another cluster.", t.Target)
			f.Remedy = fmt.Sprintf("Run \"weft forget %s\", or merge the clusters as docs/OPERATIONS.md describes.", t.Target)
		}
		findings = append(findings, f)
	}
	return findings
}

// isClusterMismatch reports whether a target was not joined because it belongs to another cluster. memberlist keeps only the text
// of errors.
func isClusterMismatch(err error) bool {
	return errors.Is(err, mesh.ErrClusterMismatch) || strings.Contains(err.Error(), mesh.ErrClusterMismatch.Error())
}

// spaceFindings reports ranges with few free addresses.
func spaceFindings(s ipam.Status) []health.Finding {
	var findings []health.Finding
	for _, r := range s.Ranges {
		var all, free uint64
		for _, o := range r.Owners {
			all += o.Addresses
			if o.Reachable {
				free += o.Free
			}
		}
		if all == 0 || free > all/100*lowSpace+all%100*lowSpace/100 {
			continue
		}
		findings = append(findings, health.Finding{
			Code: health.RangeFull, Key: r.CIDR.String(),
			Text: fmt.Sprintf("The range %s is nearly full: %d of %d addresses are free on reachable nodes.", r.CIDR, free, all),
			Remedy: "Release unused addresses (\"weft ip list\" shows them on each node), reclaim nodes that will not return, or plan a larger " +
				"range.",
		})
	}
	return findings
}

// dnsFindings reports addresses at which names are not answered.
func (c clusterFindings) dnsFindings() []health.Finding {
	if c.dns == nil {
		return nil
	}
	var findings []health.Finding
	for _, p := range c.dns.Problems() {
		findings = append(findings, health.Finding{
			Code: health.DNSNotListening, Key: p, Text: sentence("some " + p),
			Remedy: "Free port 53 on that address (\"ss -lnptu\"), or start with --no-dns.",
		})
	}
	return findings
}

// clockFindings reports clocks that are wrong. If the clocks of all other nodes differ by the same amount, this node's is wrong.
func clockFindings(members []mesh.Member) []health.Finding {
	var wrong []mesh.Member
	others := 0
	for _, m := range members {
		if !isLivePeer(m) || m.RTT == 0 {
			continue
		}
		others++
		if m.Skew.Abs() > maxSkew {
			wrong = append(wrong, m)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	const remedy = "Synchronize it with NTP (chronyd, systemd-timesyncd): logs cannot be compared, and after a clock was set back " +
		"new sessions " +
		"take longer until it catches up."
	first := wrong[0].Skew
	differs := func(m mesh.Member) bool { return (m.Skew - first).Abs() > maxSkew }
	if len(wrong) == others && others > 1 && !slices.ContainsFunc(wrong, differs) {
		return []health.Finding{{
			Code: health.ClockSkew, Text: fmt.Sprintf("The clock of this node is %s the clocks of all other nodes.", offset(-first)), Remedy: remedy,
		}}
	}
	var findings []health.Finding
	for _, m := range wrong {
		findings = append(findings, health.Finding{
			Code: health.PeerClockSkew, Key: m.ID.String(), Remedy: remedy,
			Text: fmt.Sprintf("The clock of node %s (%s) is %s the clock of this node.", m.Name, m.ID, offset(m.Skew)),
		})
	}
	return findings
}

// offset writes how far a clock is ahead of or behind another.
func offset(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%s behind", -d.Round(time.Second))
	}
	return fmt.Sprintf("%s ahead of", d.Round(time.Second))
}
