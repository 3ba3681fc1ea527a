package datapath

import (
	"context"
	"maps"
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
	members atomic.Pointer[map[peer.ID]Member] // nil: none; the map is never changed
}

// wantsDirect reports whether packets of pods may be routed to any peer: this node has addresses for probes.
func (d *Datapath) wantsDirect() bool {
	return d.settings.WantsDirect(d.sealed(), *d.trusted.Load()) && len(d.cfg.Addresses.ProbeAddresses()) > 0
}

// openDirect makes the carrier, and publishes what the other nodes need to know for it.
func (d *Datapath) openDirect(ctx context.Context) (kernelDevice, error) {
	s := d.settings
	published, err := d.renewDirect()
	if err != nil {
		return kernelDevice{}, err
	}
	c := direct.Config{
		Bridge: s.Bridge, Uplinks: d.uplinks(), Table: s.DirectTable(), Group: s.DirectGroup(), MTU: d.linkMTU(),
		Local: d.underlay.Load().Addr, Ranges: s.Ranges, Foreign: s.NoMasquerade, Self: d.cfg.Self, Nodes: directNodes{d},
	}
	device, err := direct.Open(ctx, c)
	if err != nil {
		d.cfg.Gossip.SetDirect(nil)
		return kernelDevice{}, err
	}
	d.cfg.Gossip.SetDirect(published)
	return kernelDevice{carrier: device, rules: device, frames: device, fixedMTU: c.MTU}, nil
}

// renewDirect finds out what this node has for direct routing now, and returns what it publishes of that.
func (d *Datapath) renewDirect() ([]byte, error) {
	link, err := direct.OwnLink(d.underlay.Load().Addr)
	if err != nil {
		return nil, err
	}
	own := direct.Node{Link: link}
	for _, a := range d.cfg.Addresses.ProbeAddresses() { // one of each family
		if !slices.ContainsFunc(own.Probes, func(b netip.Addr) bool { return b.Is4() == a.Is4() }) {
			own.Probes = append(own.Probes, a)
		}
	}
	hosts, err := d.BridgeAddresses()
	if err != nil {
		return nil, err
	}
	for _, p := range hosts {
		own.Hosts = append(own.Hosts, p.Addr())
	}
	published, err := own.Encode()
	if err == nil {
		d.direct.own.Store(&own)
	}
	return published, err
}

// followDirect publishes what has changed: addresses of the bridge and of probes, or the interface. It is called every second.
func (d *Datapath) followDirect() {
	e := d.current.Load()
	if e == nil {
		return
	}
	run := e.kernel.path(carrier.Direct).current.Load()
	if run == nil {
		return
	}
	// While the interface is down it has no link-local address, and the carrier is not used.
	if published, err := d.renewDirect(); err == nil && e.kernel.path(carrier.Direct).current.Load() == run {
		d.cfg.Gossip.SetDirect(published)
		if e.kernel.path(carrier.Direct).current.Load() != run { // it has just ended; a next one publishes within a second
			d.cfg.Gossip.SetDirect(nil)
		}
	}
}

// uplinks returns patterns of the names of the ports that lead to other nodes, as few as possible: each is compared with each frame.
func (d *Datapath) uplinks() []string {
	const own = "weft" // begins the names of all devices but a TAP that has another one
	if strings.HasPrefix(d.settings.Tap, own) {
		return []string{own + "*"}
	}
	return []string{own + "*", d.settings.Tap}
}

// mayUseDirect reports whether packets to a member may be routed where it is on the same link, beside the carrier of all other frames.
func (d *Datapath) mayUseDirect(m Member) bool {
	return len(m.Direct) > 0 && !m.DialOut && !d.reach.DialOut() && d.underlay.Load().Local && d.unsealed(m)
}

// directNodes is what this node knows about the nodes, for direct routing.
type directNodes struct{ d *Datapath }

var _ direct.Nodes = directNodes{}

// View implements direct.Nodes.
func (n directNodes) View() func(peer.ID) direct.Node {
	shares, own, members := n.d.cfg.Shares.Shares(), n.d.direct.own.Load(), n.d.direct.members.Load()
	return func(id peer.ID) (node direct.Node) {
		switch {
		case id == n.d.cfg.Self && own != nil:
			node = *own
			node.Share = shares[id]
		case id != n.d.cfg.Self && members != nil:
			node = direct.Decode((*members)[id].Direct, shares[id])
		}
		return node
	}
}

// noteDirect notes the members to which packets may be routed, before the carrier gets them. syncMu is held.
func (d *Datapath) noteDirect(k *kernelPath) {
	if k.kind == carrier.Direct {
		members := maps.Clone(d.kernelMembers[k.kind])
		d.direct.members.Store(&members)
	}
}

// besideOthers is the router as direct routing sees it: broadcasts and all other frames that it does not carry go on as before.
type besideOthers struct {
	carrier.Router
	others kernelPaths
}

// SetKernel implements carrier.Router.
func (besideOthers) SetKernel(peer.ID, bool) {}

// ReleaseMACs implements carrier.Router.
func (besideOthers) ReleaseMACs(peer.ID) []ether.Addr { return nil }

// MovedMACs implements carrier.Router.
func (besideOthers) MovedMACs(peer.ID, []ether.Addr) []ether.Addr { return nil }

// LastHeard implements carrier.Router: a peer that another carrier of the kernel carries can be left to that. A peer with a stopped daemon
// answers no probe, and takes packets without a header no more, but its kernel goes on with that other carrier.
func (b besideOthers) LastHeard(id peer.ID) time.Time {
	if slices.ContainsFunc(b.others, func(k *kernelPath) bool { return k.kind != carrier.Direct && k.carries(id) }) {
		return time.Now()
	}
	return b.Router.LastHeard(id)
}
