package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/health"
	"weft/internal/peer"
	"weft/internal/plural"
	"weft/ipam"
	"weft/mesh"
)

// deadFindings reports dead nodes: what they own, and how to get it back.
func deadFindings(members []mesh.Member, status ipam.Status, keptOut map[netip.Addr]bool) []health.Finding {
	var findings []health.Finding
	for _, m := range members {
		if m.State != mesh.StateDead {
			continue
		}
		var owned uint64
		for _, r := range status.Ranges {
			for _, o := range r.Owners {
				if o.ID == m.ID {
					owned += o.Addresses
				}
			}
		}
		text := fmt.Sprintf("Node %s (%s at %s) is dead", m.Name, m.ID, m.Addr)
		remedy := "Start it again"
		if m.Refused != 0 {
			text = fmt.Sprintf("Node %s (%s at %s) is shut out: it %s", m.Name, m.ID, m.Addr, m.Refused)
			remedy = sentenceStart(identityRemedy(m.Refused, "that node"))
		}
		for _, other := range members {
			if other.State == mesh.StateAlive && other.ID != m.ID && (other.Name == m.Name || other.GossipAddr() == m.GossipAddr()) {
				text += fmt.Sprintf(", and %s (%s) has replaced it", other.Name, other.ID)
				remedy = ""
			}
		}
		if remedy == "" && owned == 0 {
			continue // it was replaced, and nothing is left of it
		}
		if keptOut[m.Addr] && m.Refused == 0 {
			text = fmt.Sprintf("Node %s (%s at %s) is not heard: a node at its address is kept out", m.Name, m.ID, m.Addr)
			remedy = "Let it in again, as the condition about that address says"
			if owned > 0 {
				text += "; it owns " + plural.Count(owned, "address")
			}
		} else if owned > 0 {
			text += "; it owns " + plural.Count(owned, "address")
			reclaim := fmt.Sprintf("un \"weft reclaim %s\"", m.ID)
			if remedy == "" {
				remedy = "R" + reclaim
			} else {
				remedy += ", or if it will not return r" + reclaim
			}
		}
		if remedy != "" {
			remedy += "."
		}
		findings = append(findings, health.Finding{Code: health.PeerDead, Key: m.ID.String(), Text: text + ".", Remedy: remedy})
	}
	return findings
}

// unseenGrace is how long after its start a node waits for the owners of addresses before it reports that it has not seen them.
const unseenGrace = 30 * time.Second

// unseenOwnerFindings reports owners of addresses that are not members: they were not seen since this node started. An owner that another
// condition reports, because it is kept out, is left out: it lives.
func (c clusterFindings) unseenOwnerFindings(
	members []mesh.Member, status ipam.Status, keptOut map[netip.Addr]bool, now time.Time,
) []health.Finding {
	if now.Sub(c.started) < unseenGrace {
		return nil
	}
	return unseenOwnerFindings(members, status, keptOut, c.mesh.LastSeen)
}

// keptOut returns the addresses of nodes that are not members because of their secret or their cluster.
func (c clusterFindings) keptOut() map[netip.Addr]bool {
	keptOut := map[netip.Addr]bool{}
	for _, k := range c.mesh.KeyMismatches() {
		keptOut[k.Addr] = true
	}
	for _, m := range c.mesh.ClusterMismatches() {
		keptOut[m.Addr.Addr()] = true
	}
	return keptOut
}

// unseenOwnerFindings is the rest of the method, with what it asks for.
func unseenOwnerFindings(members []mesh.Member, status ipam.Status, keptOut map[netip.Addr]bool,
	lastSeen func(peer.ID) (netip.AddrPort, string)) []health.Finding {
	var findings []health.Finding
	for _, r := range status.Ranges {
		for _, o := range r.Owners {
			if o.Reachable || slices.ContainsFunc(members, func(m mesh.Member) bool { return m.ID == o.ID }) {
				continue
			}
			at, name := lastSeen(o.ID)
			if keptOut[at.Addr()] {
				continue
			}
			findings = append(findings, health.Finding{
				Code: health.OwnerUnseen, Key: r.CIDR.String() + " " + o.ID.String(),
				Text: fmt.Sprintf("Node %s owns %s of %s and was not seen since this node started.", lastSeenText(o.ID, name, at),
					plural.Count(o.Addresses, "address"), r.CIDR),
				Remedy: fmt.Sprintf("Start it again, or if it will not return run \"weft reclaim %s\".", o.ID),
			})
		}
	}
	return findings
}

// lastSeenText names a node that is no member: by its nickname and its last address, as far as they are known.
func lastSeenText(id peer.ID, name string, at netip.AddrPort) string {
	switch {
	case name != "" && at.IsValid():
		return fmt.Sprintf("%s (%s, last at %s)", name, id, at.Addr())
	case at.IsValid():
		return fmt.Sprintf("%s (last at %s)", id, at.Addr())
	default:
		return id.String()
	}
}
