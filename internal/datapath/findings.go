package datapath

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/internal/health"
	"weft/internal/hostnet"
	"weft/internal/settings"
	"weft/router"
	"weft/router/carrier"
	"weft/router/drop"
	"weft/router/session"
)

// Thresholds of conditions.
const (
	// manyHandshakes is how many handshakes in a row remain unanswered before a condition: they take some seconds.
	manyHandshakes = 5
	// manyUnauthenticated is how many handshakes without a common secret lead to a condition: some always arrive while nodes
	// start or change their secret.
	manyUnauthenticated = 100
	// maxDuplicates bounds how many duplicate addresses are reported.
	maxDuplicates = 5
)

// Findings implements health.Source.
func (d *Datapath) Findings() []health.Finding {
	findings := d.memberFindings()
	e := d.current.Load()
	if e == nil {
		return findings
	}
	stats := e.router.Stats()
	findings = append(findings, d.ruleFindings()...)
	findings = append(findings, d.guardFindings()...)
	findings = append(findings, d.ports.findings()...)
	findings = append(findings, d.inward.Findings()...)
	findings = append(findings, d.kernelFindings(e.kernel)...)
	findings = append(findings, d.handshakeFindings(stats)...)
	findings = append(findings, d.pathFindings(e, stats)...)
	findings = append(findings, d.sourceFindings(stats, time.Now())...)
	findings = append(findings, d.mtuFindings()...)
	findings = append(findings, d.repairs.Findings(d.settings.Bridge, d.settings.Tap, time.Now())...)
	findings = append(findings, d.offloadFindings()...)
	findings = append(findings, d.busyPollFindings()...)
	return append(findings, duplicateFindings(e.router.Duplicates())...)
}

// memberFindings reports live peers that are not reached directly, and those with which no session is possible.
func (d *Datapath) memberFindings() []health.Finding {
	var findings []health.Finding
	dialOut := d.reach.DialOut()
	if dialOut {
		findings = append(findings, health.Finding{
			Code: health.DialOutOnly,
			Text: "This node can only dial out: other nodes reach it over links that it opened, some of them over relays.",
			Remedy: fmt.Sprintf("For direct links allow UDP port %d from outside and set --advertise to the outside address.",
				d.settings.DataPort()),
		})
	}
	for _, m := range d.cfg.Membership.Members() {
		if _, err := session.Choose(d.settings.Offer(), m.Offer); err != nil {
			findings = append(findings, health.Finding{
				Code: health.CipherMismatch, Key: m.ID.String(), Remedy: "Use the same --cipher on both, or auto.",
				Text: fmt.Sprintf("No frames pass between this node and %s (%s): each requires another --cipher.", m.Name, m.Addr.Addr()),
			})
		}
		if m.DialOut || dialOut || m.Hops == 1 {
			continue
		}
		f := health.Finding{
			Code: health.PeerUnreachable, Key: m.ID.String(),
			Text:   fmt.Sprintf("Node %s (%s at %s) is alive but cannot be reached, and no relay reaches it.", m.Name, m.ID, m.Addr.Addr()),
			Remedy: fmt.Sprintf("Open UDP port %d between it and this node.", m.Addr.Port()),
		}
		if m.Hops > 1 {
			f.Code = health.PeerRelayed
			f.Text = fmt.Sprintf("Node %s (%s at %s) is reached through %s only: the direct link fails in at least one direction.",
				m.Name, m.ID, m.Addr.Addr(), d.cfg.Membership.NodeName(m.Via))
			f.Remedy = fmt.Sprintf("Open UDP port %d in both directions.", m.Addr.Port())
		}
		findings = append(findings, f)
	}
	return findings
}

func (d *Datapath) ruleFindings() []health.Finding {
	err := d.rulesErr.Load()
	if err == nil || *err == nil {
		return nil
	}
	return []health.Finding{{
		Code: health.MasqueradeFailed, Text: fmt.Sprintf("Pods cannot reach addresses outside the overlay: %v.", *err),
		Remedy: "Install the nftables package or start with --no-masquerade.",
	}}
}

// kernelFindings reports a missing kernel path, and peers to which it is not proven.
func (d *Datapath) kernelFindings(paths kernelPaths) (findings []health.Finding) {
	for _, k := range paths {
		findings = append(findings, d.carrierFindings(k)...)
	}
	return findings
}

// carrierFindings is kernelFindings for one carrier.
func (d *Datapath) carrierFindings(k *kernelPath) []health.Finding {
	info := infoOf(k.kind)
	cause := k.obstacle()
	if err := k.err.Load(); err != nil && *err != nil {
		cause = (*err).Error()
	}
	if cause != "" {
		return []health.Finding{{
			Code: health.KernelPathDown, Key: string(k.kind),
			Text:   fmt.Sprintf("%s: %s.", info.missing, cause),
			Remedy: fmt.Sprintf("Fix the error, or start with %s.", info.without),
		}}
	}
	var names []string
	for _, id := range unproven(k.peers(), time.Now()) {
		if m, known := d.cfg.Membership.Member(id); known {
			names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Addr.Addr()))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []health.Finding{{
		Code: health.KernelPathBlocked, Key: string(k.kind),
		Text:   fmt.Sprintf("%s %s is not confirmed; %s.", info.blocked, health.List(names), info.instead),
		Remedy: fmt.Sprintf("%s, or start this node with %s.", info.open(d.settings), info.without),
	}}
}

// handshakeFindings reports peers that do not answer, and handshakes without a common secret.
func (d *Datapath) handshakeFindings(stats router.Stats) []health.Finding {
	var findings []health.Finding
	for _, s := range stats.Peers {
		if m, known := d.cfg.Membership.Member(s.ID); known && s.Handshakes >= manyHandshakes && m.Hops == 1 {
			findings = append(findings, health.Finding{
				Code: health.HandshakeUnanswered, Key: s.ID.String(),
				Text:   fmt.Sprintf("Node %s (%s) does not answer handshakes at %s.", m.Name, s.ID, s.Addr.Addr()),
				Remedy: fmt.Sprintf("Open UDP port %d in the firewalls between the nodes.", s.Addr.Port()),
			})
		}
	}
	if n := d.unauthenticated.Growth(stats.Drops[drop.Secret], time.Now()); n > manyUnauthenticated {
		findings = append(findings, health.Finding{
			Code: health.UnauthenticatedHandshakes,
			Text: fmt.Sprintf("%d handshakes of the last minutes came from nodes without a common secret or from unauthenticated senders.",
				n),
			Remedy: fmt.Sprintf("Close UDP port %d to them, or give those nodes a common secret.", d.settings.DataPort()),
		})
	}
	return findings
}

// pathFindings reports paths that carry less than pods send.
func (d *Datapath) pathFindings(e *engines, stats router.Stats) []health.Finding {
	var findings []health.Finding
	for _, s := range stats.Peers {
		m, known := d.cfg.Membership.Member(s.ID)
		if !known || s.Relayed || s.MTU >= d.MTU() || e.kernel.carrier(s.ID) != carrier.Userspace {
			continue
		}
		findings = append(findings, health.Finding{
			Code: health.PathMTUSmall, Key: s.ID.String(),
			Text: fmt.Sprintf("The path to node %s (%s at %s) carries packets of %d bytes, pods send up to %d: longer packets are refused "+
				"or fragmented.",
				m.Name, m.ID, m.Addr.Addr(), s.MTU, d.MTU()),
			Remedy: fmt.Sprintf("Raise the MTU of the underlay, or start all nodes with --mtu %d.", s.MTU),
		})
	}
	return findings
}

// offloadFindings reports offloads that the kernel lacks, unless the operator has turned them off. It does not report USO: kernels
// before 6.2 have none, and only bulk UDP needs it.
func (d *Datapath) offloadFindings() []health.Finding {
	if d.settings.Offload == settings.OffloadOff {
		return nil
	}
	have := d.Offloads()
	var missing []string
	for _, name := range []string{"tso4", "tso6", "gso", "gro"} {
		if !slices.Contains(have, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []health.Finding{{
		Code: health.OffloadMissing,
		Text: fmt.Sprintf("The kernel (%s) does not provide %s: frames are carried one by one, which is slower.",
			hostnet.KernelRelease(), strings.Join(missing, ", ")),
		Remedy: "Use Linux 5.0 or later, and enable it on the underlay interface with \"ethtool -K\".",
	}}
}

func duplicateFindings(duplicates []router.Duplicate) []health.Finding {
	var findings []health.Finding
	for _, dup := range duplicates[:min(len(duplicates), maxDuplicates)] {
		if dup.Addr.IsValid() {
			findings = append(findings, health.Finding{
				Code: health.DuplicateAddress, Key: dup.Addr.String(),
				Text:   fmt.Sprintf("Duplicate IP address %s: it moves back and forth between MAC addresses (last: %s).", dup.Addr, dup.MAC),
				Remedy: "Remove it from the interface that did not get it from weft (\"weft ip list\" on each node).",
			})
			continue
		}
		findings = append(findings, health.Finding{
			Code: health.DuplicateMAC, Key: dup.MAC.String(),
			Text: fmt.Sprintf("Duplicate MAC address %s: it moves back and forth between nodes, because two pods have it or a bridge "+
				"joins two nodes "+
				"outside the overlay.", dup.MAC),
			Remedy: "Run \"weft fdb\" on each node to see where it is.",
		})
	}
	return findings
}
