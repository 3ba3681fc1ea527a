package daemon

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router"
	"weft/router/underlay"
	"weft/tap/virtio"
)

// offloadOff is the value of --offload that turns all offloads off.
const offloadOff = "off"

func (d *Daemon) status() api.Status {
	s := api.Status{
		Version: d.cfg.Version, ID: d.identity.ID, Name: d.cfg.Name, Ready: d.ready(),
		Range: d.cfg.Ranges, Bridge: d.cfg.Bridge, Tap: d.cfg.Tap, MTU: d.mtu, Queues: d.cfg.Queues,
		Advertise: netip.AddrPortFrom(d.advertise, uint16(d.cfg.Port)),
		Datapath:  d.datapath(), Offload: []string{}, Since: d.started,
		Peers: map[api.PeerState]int{}, Targets: []api.Target{}, Exposed: []netip.Prefix{}, Drops: map[string]uint64{},
		IPAM: api.IPAMState(d.ipam.Status().State), Warnings: d.warnings(),
	}
	members := d.mesh.Members()
	s.GarbageFreed = d.garbageFreed.Load()
	s.Secrets = len(d.secretList())
	s.Encrypted = s.Secrets > 0
	_, s.Droppable = rotation(d.secretList(), members)
	for _, m := range members {
		s.Peers[api.PeerState(m.State.String())]++
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
func (d *Daemon) datapathTo(id peer.ID) api.Datapath {
	if p := d.plane.Load(); p != nil && p.kernel.carries(id) {
		return api.DatapathKernel
	}
	return api.DatapathUserspace
}

// datapath returns who carries frames to all peers alive; userspace where there are none.
func (d *Daemon) datapath() api.Datapath {
	found := map[api.Datapath]bool{}
	for _, m := range d.mesh.Members() {
		if isLivePeer(m) {
			found[d.datapathTo(m.ID)] = true
		}
	}
	switch {
	case len(found) == 2:
		return api.DatapathMixed
	case found[api.DatapathKernel]:
		return api.DatapathKernel
	default:
		return api.DatapathUserspace
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
			ID: m.ID, Name: m.Name, Addr: m.DataAddr(), State: api.PeerState(m.State.String()), Self: m.Self, Link: api.LinkNone, MTU: d.mtu,
			RTT:     float64(m.RTT) / float64(time.Millisecond),
			TxBytes: s.TxBytes, RxBytes: s.RxBytes, TxFrames: s.TxFrames, RxFrames: s.RxFrames, Drops: dropDocs(s.Drops),
		}
		if isLivePeer(m) {
			doc.Link, doc.Via = linkOf(m)
			doc.Datapath = d.datapathTo(m.ID)
			doc.Encrypted, doc.Cipher = d.encryption(m, s)
		}
		if doc.Datapath == api.DatapathUserspace { // the kernel's path is not measured
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
	doc := api.IPAM{State: api.IPAMState(s.State), WaitingFor: s.WaitingFor, Ranges: []api.IPAMRange{}}
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
func linkOf(m mesh.Member) (link api.Link, via peer.ID) {
	switch m.Route.Hops {
	case 0:
		return api.LinkNone, peer.ID{}
	case 1:
		return api.LinkDirect, peer.ID{}
	default:
		return api.LinkRelay, m.Route.Via
	}
}

func dropDocs(drops map[router.Drop]uint64) map[string]uint64 {
	docs := make(map[string]uint64, len(drops))
	for reason, n := range drops {
		docs[reason.String()] = n
	}
	return docs
}
