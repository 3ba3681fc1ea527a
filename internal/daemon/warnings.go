package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/podlink"
	"weft/ipam"
	"weft/mesh"
	"weft/router"
	"weft/router/session"
)

// warnings returns what an operator should know, each with its mend.
func (d *Daemon) warnings() []string {
	members := d.mesh.Members()
	warnings := append([]string{}, d.secretWarnings(members)...) // never nil, so that JSON has a list
	for _, t := range d.mesh.TargetStatus() {
		if e, ok := errors.AsType[*mesh.SecretError](t.Err); ok {
			warnings = append(warnings, fmt.Sprintf("Target %s is not joined: the node there %s: %s.", t.Target, e.Reason, e.Reason.Remedy()))
		} else if isForeign(t.Err) {
			warnings = append(warnings, fmt.Sprintf("Target %s is not joined: it belongs to another network.", t.Target))
		} else if t.Err != nil {
			warnings = append(warnings, fmt.Sprintf("Target %s is not reached: check that weft runs there and that TCP and UDP "+
				"port %d and UDP port %d are open, or \"weft forget\" it.", t.Target, t.Target.Port, t.Target.Port+1))
		}
	}
	addresses := d.ipam.Status()
	if addresses.WaitingFor != "" {
		warnings = append(warnings, "No addresses yet: waiting for "+addresses.WaitingFor+".")
	}
	warnings = append(warnings, addresses.Warnings...)
	warnings = append(warnings, spaceWarnings(addresses)...)
	warnings = append(warnings, d.orphanWarnings()...)
	if p := d.plane.Load(); p != nil {
		warnings = append(warnings, p.warnings()...)
	}
	if d.dns != nil {
		for _, p := range d.dns.Problems() {
			warnings = append(warnings, "Some "+p+", or start with --no-dns.")
		}
	}
	warnings = append(warnings, d.foreignWarnings()...)
	warnings = append(warnings, d.rejectedWarnings()...)
	warnings = append(warnings, d.linkWarnings(members)...)
	warnings = append(warnings, clockWarnings(members)...)
	warnings = append(warnings, d.strangerWarnings(members)...)
	for _, m := range members {
		if _, err := session.Choose(d.cfg.offer(), session.Offer(m.Capabilities)); err != nil && isLivePeer(m) {
			warnings = append(warnings, fmt.Sprintf("No frames pass between this node and %s (%s): each insists on another --cipher. "+
				"Give both the same, or auto.", m.Name, m.Addr))
		}
		if m.State == mesh.StateDead {
			warnings = append(warnings, d.deadWarning(m, members))
		}
	}
	return warnings
}

// linkWarnings returns what an operator should know of peers that are alive and not reached themselves.
func (d *Daemon) linkWarnings(members []mesh.Member) []string {
	var warnings []string
	if d.reach.isDialOut() {
		warnings = append(warnings, fmt.Sprintf("This node can only dial out: the others reach it over links that it has opened, and "+
			"some over relays. For better ways let UDP port %d in from outside, and give the address there as --advertise.", d.cfg.Port+1))
	}
	for _, m := range members {
		if !isLivePeer(m) || m.DialOut || d.reach.isDialOut() {
			continue
		}
		switch link, via := linkOf(m); link {
		case api.LinkNone:
			warnings = append(warnings, fmt.Sprintf("Node %s (%s at %s) is alive and not reached, nor is there a relay: open UDP port %d "+
				"between it and this node.", m.Name, m.ID, m.Addr, m.Data))
		case api.LinkRelay:
			warnings = append(warnings, fmt.Sprintf("Node %s (%s at %s) is reached over %s only: the link to it is broken in one direction at "+
				"least. Open UDP port %d both ways.", m.Name, m.ID, m.Addr, d.nameOf(via), m.Data))
		}
	}
	return warnings
}

// rejectedFor is how long after the last of it gossip that could not be used is worth a warning.
const rejectedFor = 10 * time.Minute

// rejectedWarnings returns what an operator should know of gossip that this node ignores.
func (d *Daemon) rejectedWarnings() []string {
	r := d.mesh.Rejected()
	if r.Count == 0 || time.Since(r.Last) > rejectedFor {
		return nil
	}
	from := "a member"
	if !r.From.IsZero() {
		from = fmt.Sprintf("node %s (%s)", d.nameOf(r.From), r.From)
	}
	return []string{fmt.Sprintf("Gossip was ignored, %d messages since the start, the last from %s: %v. Run one version of weft on all nodes; "+
		"where they do, look at that one.", r.Count, from, r.Err)}
}

// handshakesMany is how many handshakes in a row without an answer are worth a warning: they take some seconds.
const handshakesMany = 5

// strangersMany is how many handshakes of strangers are worth a warning: some always come while nodes start, or take a
// new secret.
const strangersMany = 100

// warnings returns what an operator should know of the data plane.
func (p *plane) warnings() []string {
	var warnings []string
	if err := p.rulesErr.Load(); err != nil && *err != nil {
		warnings = append(warnings, fmt.Sprintf("Pods do not reach beyond the overlay: %v: %s.", *err, masq.Hint))
	}
	warnings = append(warnings, p.kernel.warnings()...)
	stats := p.router.Stats()
	for _, s := range stats.Peers {
		if m, _ := p.d.member(s.ID); s.Handshakes >= handshakesMany && m.Route.Hops == 1 {
			warnings = append(warnings, fmt.Sprintf("Node %s (%s) does not answer at %s: open UDP port %d in the firewalls between.",
				p.d.nameOf(s.ID), s.ID, s.Addr.Addr(), s.Addr.Port()))
		}
	}
	warnings = append(warnings, p.pathWarnings(stats)...)
	warnings = append(warnings, p.bridgeWarnings(time.Now())...)
	warnings = append(warnings, p.offloadWarnings()...)
	warnings = append(warnings, p.duplicateWarnings()...)
	if n := stats.Drops[router.DropSecret]; n > strangersMany {
		warnings = append(warnings, fmt.Sprintf("%d handshakes came from nodes that have no secret in common with this one, or from "+
			"strangers: close the data port to them.", n))
	}
	return warnings
}

// pathWarnings tells of paths that take less than pods send.
func (p *plane) pathWarnings(stats router.Stats) []string {
	var warnings []string
	for _, s := range stats.Peers {
		if m, known := p.d.member(s.ID); known && isLivePeer(m) && !s.Relayed && s.MTU < p.d.mtu && !p.kernel.carries(s.ID) {
			warnings = append(warnings, fmt.Sprintf("The path to node %s (%s at %s) takes packets of %d bytes, pods send up to %d: those that are longer "+
				"cost a refusal, or are cut. Raise the MTU of the underlay there, or start all nodes with --mtu %d.", m.Name, m.ID, m.Addr, s.MTU, p.d.mtu, s.MTU))
		}
	}
	return warnings
}

// mendedFor is how long after the bridge was mended that is worth a warning.
const mendedFor = 10 * time.Minute

// bridgeWarnings tells that somebody takes the bridge, or a port of it, away.
func (p *plane) bridgeWarnings(now time.Time) []string {
	m := p.mended.Load()
	if m == nil || m.err == nil && now.Sub(m.last) > mendedFor {
		return nil
	}
	const mend = "Find out who does that, such as NetworkManager or systemd-networkd, and have it leave %s, %s and " + podlink.HostPrefix + "* alone."
	if m.err != nil {
		return []string{fmt.Sprintf("The bridge %s is gone or has lost a port, and cannot be mended: %v. "+mend, p.d.cfg.Bridge, m.err, p.d.cfg.Bridge, p.d.cfg.Tap)}
	}
	return []string{fmt.Sprintf("The bridge %s or a port of it vanished, %d times since the start, last at %s, and was put back. "+mend,
		p.d.cfg.Bridge, m.count, m.last.Format(time.DateTime), p.d.cfg.Bridge, p.d.cfg.Tap)}
}

// offloadWarnings tells what the kernel does not do for the node, where the operator has not turned it off. USO is left out: kernels
// before 6.2 have none, and only UDP in bulk misses it.
func (p *plane) offloadWarnings() []string {
	if p.d.cfg.Offload == offloadOff {
		return nil
	}
	have := p.d.offloads(p)
	var missing []string
	for _, name := range []string{"tso4", "tso6", "gso", "gro"} {
		if !slices.Contains(have, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("The kernel (%s) does not do %s for this node, so that frames are carried one by one and slower. Use Linux 5.0 or later, and "+
		"\"ethtool -K\" to turn it on at the interface of the underlay.", kernelRelease(), strings.Join(missing, ", "))}
}

// kernelRelease returns the version of the running kernel.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// duplicatesTold bounds how many duplicates are told of.
const duplicatesTold = 5

func (p *plane) duplicateWarnings() []string {
	var warnings []string
	for _, dup := range p.router.Duplicates() {
		if len(warnings) == duplicatesTold {
			break
		}
		if dup.Addr.IsValid() {
			warnings = append(warnings, fmt.Sprintf("Two have the address %s: it goes to and fro between hardware addresses, of which %s was the last. Take it away "+
				"from the one that did not get it from weft (\"weft ip list\" on each node).", dup.Addr, dup.MAC))
			continue
		}
		warnings = append(warnings, fmt.Sprintf("The hardware address %s goes to and fro between nodes: two pods have the same, or a bridge joins two nodes "+
			"beside the overlay. \"weft fdb\" on each node shows where it is.", dup.MAC))
	}
	return warnings
}

// spaceLow is the share of a range, in percent, below which free addresses are worth a warning.
const spaceLow = 10

// spaceWarnings tells of ranges of which little is left.
func spaceWarnings(s ipam.Status) []string {
	var warnings []string
	for _, r := range s.Ranges {
		var all, free uint64
		for _, o := range r.Owners {
			all += o.Addresses
			if o.Reachable {
				free += o.Free
			}
		}
		if all == 0 || free > all/100*spaceLow+all%100*spaceLow/100 {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("The range %s is nearly full: %d of %d addresses are free on nodes that are reached. Release what is unused "+
			"(\"weft ip list\" shows it on each node), reclaim nodes that are gone for good, or plan for a larger range.", r.CIDR, free, all))
	}
	return warnings
}

// skewMany is how far clocks may be apart without a warning.
const skewMany = 10 * time.Second

// clockWarnings tells of clocks that are wrong. Where those of all others are wrong by as much, it is this node's.
func clockWarnings(members []mesh.Member) []string {
	var wrong []mesh.Member
	others := 0
	for _, m := range members {
		if !isLivePeer(m) || m.RTT == 0 {
			continue
		}
		others++
		if m.Skew.Abs() > skewMany {
			wrong = append(wrong, m)
		}
	}
	const mend = "Have it set by NTP (chronyd, systemd-timesyncd): logs cannot be compared, and where a clock was set back, sessions take longer to make " +
		"until it has caught up."
	if len(wrong) == 0 {
		return nil
	}
	if first := wrong[0].Skew; len(wrong) == others && others > 1 && !slices.ContainsFunc(wrong, func(m mesh.Member) bool { return (m.Skew - first).Abs() > skewMany }) {
		return []string{fmt.Sprintf("The clock of this node is %s those of all others. %s", apart(-first), mend)}
	}
	var warnings []string
	for _, m := range wrong {
		warnings = append(warnings, fmt.Sprintf("The clock of node %s (%s) is %s this node's. %s", m.Name, m.ID, apart(m.Skew), mend))
	}
	return warnings
}

// apart writes how far a clock is before or behind.
func apart(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%s behind", -d.Round(time.Second))
	}
	return fmt.Sprintf("%s before", d.Round(time.Second))
}
