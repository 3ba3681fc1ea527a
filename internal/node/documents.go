package node

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"weft/internal/api"
	"weft/internal/apiserver"
	"weft/internal/datapath"
	"weft/internal/doctor"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/internal/statuspage"
	"weft/ipam"
	"weft/mesh"
	"weft/router"
	"weft/router/drop"
)

// pageParts bounds the number of parts of a range in the picture of the status page.
const pageParts = 720

// documents makes what the read commands and the status page show. It implements apiserver.Documents.
type documents struct{ n *node }

// Status implements apiserver.Documents.
func (d documents) Status() api.Status {
	n := d.n
	inUse, members := n.reloader.inUse(), n.mesh.Members()
	s := api.Status{
		Version: n.cfg.Version, ID: n.identity.ID, Name: n.cfg.Name, Ready: n.health.Ready(),
		Range: n.cfg.Ranges, Bridge: n.cfg.Bridge, Tap: n.cfg.Tap, MTU: n.datapath.MTU(), Queues: n.cfg.Queues,
		Advertise: netip.AddrPortFrom(n.underlay.addr(), uint16(n.cfg.Port)),
		DNSDomain: n.cfg.Domain(), DNS: n.dns != nil,
		Datapath: d.datapath(members), Offload: n.datapath.Offloads(), Since: n.started,
		Peers: map[api.PeerState]int{}, Targets: []api.Target{}, Exposed: []netip.Prefix{}, Inward: n.exposure.Inward(),
		Drops: map[string]uint64{},
		IPAM:  api.IPAMState(n.ipam.Status().State), GarbageFreed: n.leases.Freed(),
		Secrets: len(inUse.secrets), Encrypted: inUse.sealed(), Network: inUse.network(), Identity: identityDoc(n.mesh.IdentityStatus()),
	}
	s.Conditions, s.Warnings = conditionDocs(n.health.Conditions())
	s.Droppable = rotation(inUse.secrets, members).droppable
	for _, m := range members {
		s.Peers[api.PeerState(m.State.String())]++
	}
	for _, t := range n.mesh.TargetStatus() {
		doc := api.Target{Addr: t.Target.String()}
		if t.Err != nil {
			doc.Error = hint.Plain(t.Err.Error())
		}
		s.Targets = append(s.Targets, doc)
	}
	if exposed, err := n.datapath.BridgeAddresses(); err == nil && exposed != nil {
		s.Exposed = exposed
	}
	g := n.datapath.GuardStatus()
	s.Guard = api.GuardStatus{Mode: cmp.Or(n.cfg.Guard, api.GuardHost), Bound: g.Bound, Open: g.Open, Dropped: map[string]uint64{}}
	for reason, count := range g.Dropped {
		if count > 0 {
			s.Guard.Dropped[string(reason)] = count
		}
	}
	if stats, up := n.datapath.Stats(); up {
		s.FDB = len(n.datapath.FDB())
		s.Drops = dropDocs(stats.Drops)
		s.Relayed = stats.Relayed
		s.Neighbors = api.Neighbors(stats.Neighbors)
	}
	return s
}

// conditionDocs returns conditions as documents, and in the form of warnings; never nil.
func conditionDocs(conditions []health.Condition) (docs []api.Condition, warnings []string) {
	docs, warnings = []api.Condition{}, []string{}
	for _, c := range conditions {
		c.Text = hint.Plain(c.Text)
		docs = append(docs, api.Condition{
			Code: string(c.Code), Severity: api.Severity(c.Severity), Title: c.Title, Text: c.Text, Remedy: c.Remedy, Since: c.Since,
		})
		warnings = append(warnings, c.Sentences())
	}
	return docs, warnings
}

// carrierTo returns what carries frames to a peer.
func (d documents) carrierTo(id peer.ID) api.Carrier { return api.Carrier(d.n.datapath.Carrier(id)) }

// datapath returns what carries frames to all live peers; userspace where there are none.
func (d documents) datapath(members []mesh.Member) api.Datapath {
	found := map[api.Datapath]bool{}
	for _, m := range members {
		if isLivePeer(m) {
			found[d.carrierTo(m.ID).Datapath()] = true
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

// Peers implements apiserver.Documents.
func (d documents) Peers() []api.Peer {
	n := d.n
	stats := make(map[peer.ID]router.PeerStats)
	if all, up := n.datapath.Stats(); up {
		for _, s := range all.Peers {
			stats[s.ID] = s
		}
	}
	kernel := n.datapath.KernelCounts()
	docs := []api.Peer{}
	for _, m := range n.mesh.Members() {
		s, k := stats[m.ID], kernel[m.ID]
		doc := api.Peer{
			ID: m.ID, Name: m.Name, Addr: m.DataAddr(), State: api.PeerState(m.State.String()), Self: m.Self, Link: api.LinkNone,
			MTU:     n.datapath.MTU(),
			TxBytes: s.TxBytes + k.TxBytes, RxBytes: s.RxBytes + k.RxBytes,
			TxFrames: s.TxFrames + k.TxFrames, RxFrames: s.RxFrames + k.RxFrames, Drops: dropDocs(s.Drops),
			Kernel: api.PeerCounts(k),
		}
		if c := m.Certificate; !c.IsZero() {
			doc.Certificate, doc.CertificateExpires = true, c.NotAfter
		}
		if m.Refused != 0 {
			doc.Refused = m.Refused.Code()
		}
		if isLivePeer(m) {
			doc.Link, doc.Via = linkOf(m)
			doc.RTT = milliseconds(m.RTT)
			doc.Carrier = d.carrierTo(m.ID)
			doc.Datapath = doc.Carrier.Datapath()
			var cipher string
			doc.Encrypted, cipher = n.datapath.Encryption(datapathMember(m), s)
			doc.Cipher = api.Cipher(cipher)
		}
		if doc.Datapath == api.DatapathUserspace { // the kernel path is not measured
			if s.MTU > 0 {
				doc.MTU = min(s.MTU, doc.MTU)
			}
			if s.RTT > 0 {
				doc.RTT = milliseconds(s.RTT)
			}
		}
		docs = append(docs, doc)
	}
	return docs
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// linkOf returns how a peer is reached, and through which node if it is relayed.
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

func dropDocs(drops map[drop.Reason]uint64) map[string]uint64 {
	docs := make(map[string]uint64, len(drops))
	for reason, n := range drops {
		docs[reason.String()] = n
	}
	return docs
}

// IPAM implements apiserver.Documents.
func (d documents) IPAM() api.IPAM {
	s := d.n.ipam.Status()
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

// FDB implements apiserver.Documents.
func (d documents) FDB() []api.FDBEntry {
	docs := []api.FDBEntry{}
	for _, e := range d.n.datapath.FDB() {
		doc := api.FDBEntry{MAC: e.MAC, Peer: e.Peer, Age: e.Age.Seconds()}
		if !e.Peer.IsZero() {
			doc.Name = d.n.members.NodeName(e.Peer)
		}
		docs = append(docs, doc)
	}
	return docs
}

// Routes implements apiserver.Documents.
func (d documents) Routes() []api.Route {
	docs := []api.Route{}
	for _, m := range d.n.mesh.Members() {
		if isLivePeer(m) && m.Route.Hops > 0 {
			docs = append(docs, api.Route{Peer: m.ID, Name: m.Name, Via: m.Route.Via, Addr: m.DataAddr(), Hops: m.Route.Hops})
		}
	}
	return docs
}

// Snapshot implements statuspage.Source.
func (d documents) Snapshot() statuspage.Snapshot {
	n := d.n
	s := statuspage.Snapshot{
		Status: d.Status(), Peers: d.Peers(), Broken: n.mesh.Broken(), Missing: n.health.Missing(),
		Leases: n.leases.Leases(""), Names: names{n.registry, n.cfg, n.members}.AllNames(),
	}
	addresses := d.IPAM()
	s.Waiting = addresses.WaitingFor
	for _, r := range addresses.Ranges {
		shown := statuspage.Range{CIDR: r.CIDR, Owners: r.Owners}
		for _, p := range n.ipam.Parts(r.CIDR, pageParts) {
			shown.Parts = append(shown.Parts, statuspage.Part(p))
		}
		s.Ranges = append(s.Ranges, shown)
	}
	return s
}

// readiness answers whether a pod could join. It implements apiserver.Health.
type readiness struct {
	health *health.Registry
	ipam   *ipam.Allocator
}

// Missing implements apiserver.Health.
func (r readiness) Missing() string { return r.health.Missing() }

// MissingAddresses implements apiserver.Health.
func (r readiness) MissingAddresses() string { return addressRequirement{r.ipam, false}.Missing() }

// addressRequirement is that addresses can be leased. It implements health.Requirement.
type addressRequirement struct {
	ipam *ipam.Allocator
	lazy bool // a node that divides its range for the first pod is ready before that
}

// Missing implements health.Requirement.
func (r addressRequirement) Missing() string {
	if r.lazy || r.ipam.Ready() {
		return ""
	}
	if waiting := r.ipam.Status().WaitingFor; waiting != "" {
		return "waiting for " + waiting
	}
	return "the address range is not divided yet"
}

// captures implements apiserver.Captures.
type captures struct{ datapath *datapath.Datapath }

// StartCapture implements apiserver.Captures.
func (c captures) StartCapture(in api.CaptureRequest) (apiserver.Capture, error) {
	capture, err := c.datapath.StartCapture(in)
	if err != nil {
		return nil, err // a nil *datapath.Capture is not a nil apiserver.Capture
	}
	return capture, nil
}

// diagnostics implements apiserver.Diagnostics.
type diagnostics struct {
	cfg  settings.Config
	mesh *mesh.Mesh
	ring *logRing
}

// Checks implements apiserver.Diagnostics. It does not dial the targets for it: the node does so all the time.
func (d diagnostics) Checks(ctx context.Context) []api.Check {
	cfg := d.cfg
	cfg.Peers = nil
	found := doctor.Run(ctx, cfg)
	var targets []doctor.Target
	for _, t := range d.mesh.TargetStatus() {
		targets = append(targets, doctor.Target{Addr: t.Target.String(), Err: t.Err})
	}
	doctor.ReplacePeers(found, targets, cfg.Port)
	return found
}

// Flags implements apiserver.Diagnostics.
func (d diagnostics) Flags() map[string]string {
	flags := map[string]string{}
	for _, s := range allSettings() {
		flags[s.flag] = settingText(s.value(&d.cfg))
	}
	return flags
}

// Log implements apiserver.Diagnostics.
func (d diagnostics) Log() []string { return d.ring.all() }
