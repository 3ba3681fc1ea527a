package datapath

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/direct"
)

// directState is what direct routing knows. Its fields are atomic.
type directState struct {
	own     atomic.Pointer[direct.Node]        // nil: not known yet
	members atomic.Pointer[map[peer.ID]Member] // nil: none
}

// wantsDirect reports whether packets of pods may be routed to any peer: this node has addresses for probes.
func (d *Datapath) wantsDirect() bool {
	return d.settings.WantsDirect(d.sealed(), *d.trusted.Load()) && len(d.cfg.Addresses.ProbeAddresses()) > 0
}

// openDirect makes the carrier, and publishes what the other nodes need to know for it.
func (d *Datapath) openDirect(ctx context.Context) (kernelDevice, error) {
	s, local := d.settings, d.underlay.Load().Addr
	own := direct.NodeOf(d.cfg.Addresses.ProbeAddresses(), nil)
	link, err := direct.OwnLink(local)
	if err != nil {
		return kernelDevice{}, err
	}
	own.Link = link
	c := direct.Config{
		Name: s.DirectPort(), Bridge: s.Bridge, Uplinks: d.uplinks(), Table: s.DirectTable(),
		Group: s.DirectGroup(), MTU: d.linkMTU(), Local: local, Ranges: s.Ranges, Self: d.cfg.Self, Nodes: directNodes{d},
	}
	d.direct.own.Store(&own)
	device, err := direct.Open(ctx, c)
	if err != nil {
		d.publishDirect(nil)
		return kernelDevice{}, err
	}
	d.publishDirect(own.Addrs())
	return kernelDevice{carrier: device, rules: device, fixedMTU: c.MTU}, nil
}

// uplinks returns patterns of the names of the ports that lead to other nodes, as few as possible: each is compared with each frame.
func (d *Datapath) uplinks() []string {
	const own = "weft" // begins the names of all devices but a TAP that has another one
	if strings.HasPrefix(d.settings.Tap, own) {
		return []string{own + "*"}
	}
	return []string{own + "*", d.settings.Tap}
}

// publishDirect makes the addresses of this node for direct routing known; none: it takes no part.
func (d *Datapath) publishDirect(addrs []netip.Addr) { d.cfg.Gossip.SetDirect(addrs) }

// mayUseDirect reports whether packets to a member may be routed where it is on the same link, beside the carrier of all other frames.
func (d *Datapath) mayUseDirect(m Member) bool {
	return len(m.Direct) > 0 && !m.DialOut && !d.reach.isDialOut() && d.underlay.Load().Local && d.unsealed(m)
}

// directNodes is what this node knows about the nodes, for direct routing.
type directNodes struct{ d *Datapath }

var _ direct.Nodes = directNodes{}

// Node implements direct.Nodes.
func (n directNodes) Node(id peer.ID) direct.Node {
	share := n.d.cfg.Shares.Shares()[id]
	if id == n.d.cfg.Self {
		own := direct.Node{}
		if stored := n.d.direct.own.Load(); stored != nil {
			own = *stored
		}
		own.Share = share
		return own
	}
	members := n.d.direct.members.Load()
	if members == nil {
		return direct.Node{}
	}
	return direct.NodeOf((*members)[id].Direct, share)
}

// noteDirect notes the members to which packets may be routed, before the carrier gets them. syncMu is held.
func (d *Datapath) noteDirect(k *kernelPath) {
	if k.kind == carrier.Direct {
		members := d.kernelMembers[k.kind] // which is not changed any more
		d.direct.members.Store(&members)
	}
}

// besideOthers is the router as direct routing sees it: broadcasts and all other frames that it does not carry go on as before.
type besideOthers struct {
	carrier.Router
	others func() kernelPaths
}

// SetKernel implements carrier.Router.
func (besideOthers) SetKernel(peer.ID, bool) {}

// ReleaseMACs implements carrier.Router.
func (besideOthers) ReleaseMACs(peer.ID) []ether.Addr { return nil }

// LastHeard implements carrier.Router: a peer that another carrier of the kernel carries can be left to that. A peer with a stopped daemon
// answers no probe, and takes packets without a header no more, but its kernel goes on with that other carrier.
func (b besideOthers) LastHeard(id peer.ID) time.Time {
	if slices.ContainsFunc(b.others(), func(k *kernelPath) bool { return k.kind != carrier.Direct && k.carries(id) }) {
		return time.Now()
	}
	return b.Router.LastHeard(id)
}
