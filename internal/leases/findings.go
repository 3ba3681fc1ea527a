package leases

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/health"
)

// maxAddressFindings bounds how many addresses are reported one by one.
const maxAddressFindings = 8

// Findings implements health.Source: it reports pods without a lease, without their gateway, and without a guard.
func (m *Manager) Findings() []health.Finding {
	return slices.Concat(m.lostFindings(), m.orphanFindings(), m.gatewayFindings(), m.unguardedFindings())
}

// orphanFindings reports pods without a lease.
func (m *Manager) orphanFindings() []health.Finding {
	s := m.survey.Load()
	if s.err != nil {
		return []health.Finding{{
			Code: health.PodScanFailed, Text: fmt.Sprintf("The pods without a lease cannot be listed: %v. New pods may get addresses that "+
				"are in use.", s.err),
			Remedy: "Fix the error before new pods start here.",
		}}
	}
	var findings []health.Finding
	var lost, unread []string // host ends, as the kernel lists them
	var why error
	for _, p := range s.ports {
		switch {
		case p.Delegated:
		case p.Err != nil:
			unread, why = append(unread, p.Name), p.Err
		default:
			lost = append(lost, fmt.Sprintf("%s (%s)", p.Name, joinAddrs(p.Addrs)))
		}
	}
	if len(lost) > 0 {
		findings = append(findings, health.Finding{
			Code: health.PodsWithoutLease,
			Text: fmt.Sprintf("%s without a known lease, because ipam.db was moved away or lost, or the addresses were reclaimed: "+
				"%s. The addresses stay reserved.", running(len(lost)), health.List(lost)),
			Remedy: "Start these containers again; for a namespace that was attached with --owner, run that \"weft attach\" again.",
		})
	}
	if len(unread) > 0 {
		findings = append(findings, health.Finding{
			Code: health.PodAddressesUnknown,
			Text: fmt.Sprintf("%s without a lease, and with addresses that cannot be read (%v): %s. New pods may get the same addresses.",
				running(len(unread)), why, health.List(unread)),
			Remedy: "Delete these pods before new ones start here.",
		})
	}
	return append(findings, m.addressFindings(s)...)
}

// running says how many pods run on this node.
func running(pods int) string {
	if pods == 1 {
		return "1 pod runs here"
	}
	return fmt.Sprintf("%d pods run here", pods)
}

// addressFindings reports addresses in use here that another node allocates.
func (m *Manager) addressFindings(s *survey) []health.Finding {
	var findings []health.Finding
	for _, p := range s.ports {
		for _, a := range p.Addrs {
			err := s.refused[a]
			if err == nil || len(findings) == maxAddressFindings {
				continue
			}
			f := health.Finding{
				Code: health.PodAddressNotOwned, Key: a.String(), Remedy: "Delete that pod and start it again.",
				Text: fmt.Sprintf("The pod behind %s uses address %s, which node %s allocates and may assign to another pod: %v.", p.Name, a,
					m.ownerName(a), err),
			}
			if p.Delegated {
				f.Code, f.Remedy = health.DelegatedAddressInRange,
					"Configure its IPAM plugin to assign addresses outside "+joinPrefixes(m.cfg.Ranges)+"."
			}
			findings = append(findings, f)
		}
	}
	for _, a := range s.bridge {
		if id, known := m.cfg.Allocator.OwnerOf(a); known && id != m.cfg.Self {
			findings = append(findings, health.Finding{
				Code: health.GatewayAddressNotOwned, Key: a.String(),
				Text:   fmt.Sprintf("The bridge %s has address %s, which node %s allocates and may assign to a pod.", m.cfg.Bridge, a, m.ownerName(a)),
				Remedy: "Run \"weft hide\", then \"weft expose\": pods get the new address as their gateway.",
			})
		}
	}
	return findings
}

// ownerName returns the name of the node that allocates an address.
func (m *Manager) ownerName(a netip.Addr) string {
	id, known := m.cfg.Allocator.OwnerOf(a)
	if !known {
		return "(unknown)"
	}
	if name := m.cfg.Nodes.NodeName(id); name != "" {
		return name
	}
	return id.String()
}

func joinAddrs(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, " and ")
}
