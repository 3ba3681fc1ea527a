package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/masq"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap/virtio"
)

// Values of the documents.
const (
	offloadOff = "off"
	linkDirect = "direct"
	linkRelay  = "relay"
	linkNone   = "none"
)

func (d *Daemon) status() api.Status {
	s := api.Status{
		Version: d.cfg.Version, ID: d.identity.ID, Name: d.cfg.Name, Ready: d.ready(),
		Range: d.cfg.Ranges, Bridge: d.cfg.Bridge, Tap: d.cfg.Tap, MTU: d.mtu, Queues: d.cfg.Queues,
		Advertise: netip.AddrPortFrom(d.advertise, uint16(d.cfg.Port)),
		Datapath:  d.datapath(), Offload: []string{}, Since: d.started,
		Peers: map[string]int{}, Targets: []api.Target{}, Exposed: []netip.Prefix{}, Drops: map[string]uint64{},
		IPAM: string(d.ipam.Status().State), Warnings: d.warnings(),
	}
	members := d.mesh.Members()
	s.GarbageFreed = d.garbageFreed.Load()
	s.Secrets = len(d.secretList())
	s.Encrypted = s.Secrets > 0
	_, s.Droppable = rotation(d.secretList(), members)
	for _, m := range members {
		s.Peers[m.State.String()]++
	}
	for _, t := range d.mesh.TargetStatus() {
		doc := api.Target{Addr: t.Target.String()}
		if t.Err != nil {
			doc.Error = t.Err.Error()
		}
		s.Targets = append(s.Targets, doc)
	}
	if exposed, err := d.exposed(); err == nil && exposed != nil {
		s.Exposed = exposed
	}
	if p := d.plane.Load(); p != nil {
		stats := p.router.Stats()
		s.FDB = len(d.fdb())
		s.Drops = dropDocs(stats.Drops)
		s.Relayed = stats.Relayed
		s.Neighbors = api.Neighbors(stats.Neighbors)
		s.Offload = d.offloads(p)
	}
	return s
}

// datapathTo returns who carries frames to a peer.
func (d *Daemon) datapathTo(id peer.ID) string {
	if p := d.plane.Load(); p != nil && p.kernel.carries(id) {
		return datapathKernel
	}
	return datapathUserspace
}

// datapath returns who carries frames to all peers alive; userspace where there are none.
func (d *Daemon) datapath() string {
	found := map[string]bool{}
	for _, m := range d.mesh.Members() {
		if isLivePeer(m) {
			found[d.datapathTo(m.ID)] = true
		}
	}
	switch {
	case len(found) == 2:
		return datapathMixed
	case found[datapathKernel]:
		return datapathKernel
	default:
		return datapathUserspace
	}
}

// offloads returns what host and underlay take in one piece, as both were found to be able to.
func (d *Daemon) offloads(p *plane) []string {
	names := []string{}
	for _, f := range []struct {
		feature virtio.Features
		name    string
	}{{virtio.FeatureTSO4, "tso4"}, {virtio.FeatureTSO6, "tso6"}, {virtio.FeatureUSO, "uso"}} {
		if p.features.Has(f.feature) {
			names = append(names, f.name)
		}
	}
	all := underlay.GSO | underlay.GRO
	for _, c := range d.conns {
		all &= c.Features()
	}
	return append(names, all.Names()...)
}

// ready reports whether a pod could join now. A lone node that has not founded yet would, for the first pod.
func (d *Daemon) ready() bool {
	p := d.plane.Load()
	return p != nil && p.rulesTried() && (d.ipam.Ready() || d.cfg.lone())
}

// warnings returns what an operator should know, each with its mend.
func (d *Daemon) warnings() []string {
	members := d.mesh.Members()
	warnings := append([]string{}, d.secretWarnings(members)...) // never nil, so that JSON has a list
	for _, t := range d.mesh.TargetStatus() {
		if e, ok := errors.AsType[*mesh.SecretError](t.Err); ok {
			warnings = append(warnings, fmt.Sprintf("Target %s is not joined: the node there %s: %s.", t.Target, e.Why, e.Why.Mend()))
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
	if p := d.plane.Load(); p != nil {
		warnings = append(warnings, p.warnings()...)
	}
	warnings = append(warnings, d.foreignWarnings()...)
	warnings = append(warnings, d.rejectedWarnings()...)
	warnings = append(warnings, d.linkWarnings(members)...)
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
		case linkNone:
			warnings = append(warnings, fmt.Sprintf("Node %s (%s at %s) is alive and not reached, nor is there a relay: open UDP port %d "+
				"between it and this node.", m.Name, m.ID, m.Addr, m.Data))
		case linkRelay:
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
	for _, s := range p.router.Stats().Peers {
		if m, _ := p.d.member(s.ID); s.Handshakes >= handshakesMany && m.Route.Hops == 1 {
			warnings = append(warnings, fmt.Sprintf("Node %s (%s) does not answer at %s: open UDP port %d in the firewalls between.",
				p.d.nameOf(s.ID), s.ID, s.Addr.Addr(), s.Addr.Port()))
		}
	}
	if n := p.router.Stats().Drops[router.DropSecret]; n > strangersMany {
		warnings = append(warnings, fmt.Sprintf("%d handshakes came from nodes that have no secret in common with this one, or from "+
			"strangers: close the data port to them.", n))
	}
	return warnings
}

func (d *Daemon) peers() []api.Peer {
	stats := make(map[peer.ID]router.PeerStats)
	if p := d.plane.Load(); p != nil {
		for _, s := range p.router.Stats().Peers {
			stats[s.ID] = s
		}
	}
	docs := []api.Peer{}
	for _, m := range d.mesh.Members() {
		s := stats[m.ID]
		doc := api.Peer{
			ID: m.ID, Name: m.Name, Addr: m.DataAddr(), State: m.State.String(), Self: m.Self, Link: linkNone, MTU: d.mtu,
			RTT:     float64(m.RTT) / float64(time.Millisecond),
			TxBytes: s.TxBytes, RxBytes: s.RxBytes, TxFrames: s.TxFrames, RxFrames: s.RxFrames, Drops: dropDocs(s.Drops),
		}
		if isLivePeer(m) {
			doc.Link, doc.Via = linkOf(m)
			doc.Datapath = d.datapathTo(m.ID)
			doc.Encrypted, doc.Cipher = d.encryption(m, s)
		}
		if doc.Datapath == datapathUserspace { // the kernel's path is not measured
			if s.MTU > 0 {
				doc.MTU = min(s.MTU, d.mtu)
			}
			if s.RTT > 0 {
				doc.RTT = float64(s.RTT) / float64(time.Millisecond)
			}
		}
		docs = append(docs, doc)
	}
	return docs
}

func (d *Daemon) ipamStatus() api.IPAM {
	s := d.ipam.Status()
	doc := api.IPAM{State: string(s.State), WaitingFor: s.WaitingFor, Ranges: []api.IPAMRange{}}
	for _, r := range s.Ranges {
		owners := []api.IPAMOwner{}
		for _, o := range r.Owners {
			owners = append(owners, api.IPAMOwner{ID: o.ID, Name: o.Name, Addresses: o.Addresses, Free: o.Free, Reachable: o.Reachable})
		}
		doc.Ranges = append(doc.Ranges, api.IPAMRange{CIDR: r.CIDR, Owners: owners})
	}
	return doc
}

func (d *Daemon) fdb() []api.FDBEntry {
	docs := []api.FDBEntry{}
	if p := d.plane.Load(); p != nil {
		for _, e := range p.router.FDB() {
			docs = append(docs, api.FDBEntry{MAC: e.MAC, Peer: e.Peer, Name: d.nameOf(e.Peer), Age: e.Age.Seconds()})
		}
		for _, e := range p.kernel.entries() {
			if e.Peer.IsZero() {
				continue // of a peer that has just gone
			}
			docs = append(docs, api.FDBEntry{MAC: e.MAC, Peer: e.Peer, Name: d.nameOf(e.Peer), Age: e.Age.Seconds()})
		}
	}
	slices.SortStableFunc(docs, func(a, b api.FDBEntry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return docs
}

func (d *Daemon) routes() []api.Route {
	docs := []api.Route{}
	for _, m := range d.mesh.Members() {
		if isLivePeer(m) && m.Route.Hops > 0 {
			docs = append(docs, api.Route{Peer: m.ID, Name: m.Name, Via: m.Route.Via, Addr: m.DataAddr(), Hops: m.Route.Hops})
		}
	}
	return docs
}

// linkOf returns how a peer is reached, and over whom where it is not reached itself.
func linkOf(m mesh.Member) (link string, via peer.ID) {
	switch m.Route.Hops {
	case 0:
		return linkNone, peer.ID{}
	case 1:
		return linkDirect, peer.ID{}
	default:
		return linkRelay, m.Route.Via
	}
}

func dropDocs(drops map[router.Drop]uint64) map[string]uint64 {
	docs := make(map[string]uint64, len(drops))
	for reason, n := range drops {
		docs[reason.String()] = n
	}
	return docs
}
