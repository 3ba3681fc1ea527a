package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"weft/internal/cpulatency"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router"
	"weft/router/underlay"
	"weft/tap"
	"weft/tap/bridge"
)

// open makes bridge, TAP, router and kernel path; repair sets the rules later, while frames flow already. It undoes what it
// did if it fails.
func (d *Datapath) open(ctx context.Context) (_ *engines, err error) {
	var undo undoList
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	if err := bridge.Rename(d.settings.Bridge, bridgeMAC(d.cfg.Self)); err != nil {
		d.log.Warn("cannot rename the bridge of an earlier run", "err", err)
	}
	before, err := bridge.Inspect(d.settings.Bridge)
	if err != nil {
		return nil, err
	}
	if err := d.prepareMTU(before); err != nil {
		return nil, err
	}
	br, err := bridge.Ensure(d.bridgeConfig())
	if err != nil {
		return nil, hint.Refuse("--bridge", "Choose another name, or fix the error.", "%w", err)
	}
	defer br.Close()
	undo.add(func() error {
		if before.State != bridge.Absent {
			return nil
		}
		return bridge.Remove(d.settings.Bridge)
	})
	device, err := tap.Open(tap.Config{
		Name: d.settings.Tap, MTU: d.linkMTU(), Queues: d.settings.Queues, Plain: d.settings.Offload == settings.OffloadOff,
	})
	if err != nil {
		return nil, hint.Refuse("--tap", "Choose another name, or fix the error.", "%w", err)
	}
	undo.add(device.Close)
	if err := br.AddPort(d.settings.Tap); err != nil {
		return nil, err
	}
	keeper, keeperErr := d.openKeeper()
	if keeper != nil {
		undo.add(keeper.Close)
	}
	engine, err := router.New(d.routerConfig(device, keeper))
	if err != nil {
		return nil, err
	}
	if err := d.removeKernelPath(ctx, true); err != nil {
		return nil, err
	}
	kernel := d.newKernelPaths(engine)
	for _, k := range kernel {
		undo.add(k.close)
		if err := d.openKernelPath(ctx, k, br); err != nil {
			return nil, err
		}
	}
	e := &engines{router: engine, features: device.Features(), kernel: kernel, bridgeMade: before.State == bridge.Absent, keeper: keeper}
	if keeperErr != nil {
		e.keeperErr.Store(&keeperErr)
	}
	return e, nil
}

// routerConfig describes the router.
func (d *Datapath) routerConfig(device tap.Device, keeper *cpulatency.Keeper) router.Config {
	cfg := router.Config{
		Private: d.cfg.Private, Cluster: d.cfg.Cluster, Offer: d.settings.Offer(), Secrets: *d.secrets.Load(), Trusted: *d.trusted.Load(),
		Owners: d.cfg.Owners, Sources: d.cfg.Sources, SourceCheck: sourceChecks[d.settings.SourceCheck],
		StandardAES: d.settings.AES == settings.AESStandard, CopyDSCP: d.settings.DSCP == settings.DSCPCopy, Events: routerEvents{d},
		Device: device, Conns: asConns(d.conns), EntropyPorts: asConns(d.entropyPorts), Logger: d.log,
	}
	if keeper != nil {
		cfg.Activity = keeper
	}
	return cfg
}

// asConns returns sockets in the form of the router.
func asConns(sockets []*underlay.UDP) (conns []underlay.Conn) {
	for _, u := range sockets {
		conns = append(conns, u)
	}
	return conns
}

// sourceChecks are the modes of --source-check.
var sourceChecks = map[string]router.SourceCheck{
	"":                          router.SourceLog,
	settings.SourceCheckLog:     router.SourceLog,
	settings.SourceCheckEnforce: router.SourceEnforce,
	settings.SourceCheckOff:     router.SourceOff,
}

// routerEvents receives what the router reports. It implements router.Events.
type routerEvents struct{ d *Datapath }

// PlainAgreed moves a peer to or from the kernel path, as frames to it may now leave unsealed, or no longer.
func (r routerEvents) PlainAgreed(peer.ID) { r.d.SyncPeers() }

// LinksChanged publishes the state of direct links.
func (r routerEvents) LinksChanged(l router.Links) { r.d.reach.LinksChanged(l.Broken, l.Open) }

// ControlReceived delivers the control messages of other nodes.
func (r routerEvents) ControlReceived(from peer.ID, channel uint8, message []byte) {
	switch channel {
	case controlMesh:
		r.d.cfg.Gossip.FromTunnel(from, message)
	case controlPair:
		r.d.pairs.Received(from, message)
	case controlTunnel:
		r.d.tunnels.Received(from, message)
	}
}

// DialBack sends a datagram from a port from which nothing was sent before, so that a peer learns whether others reach it.
func (r routerEvents) DialBack(to netip.AddrPort, datagram []byte) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err == nil {
		_, err = conn.Write(datagram)
		_ = conn.Close()
	}
	if err != nil {
		r.d.log.Debug("dial-back failed", "addr", to, "err", err)
	}
}

// bridgeConfig describes the node's bridge.
func (d *Datapath) bridgeConfig() bridge.Config {
	return bridge.Config{Name: d.settings.Bridge, MTU: d.linkMTU(), MAC: bridgeMAC(d.cfg.Self)}
}

// bridgeMAC returns the MAC of the bridge. It is the same at every start of a node, since pods keep it in their neighbor tables.
func bridgeMAC(id peer.ID) ether.Addr { return ether.Addr{0x06, 0x57, id[0], id[1], id[2], id[3]} }

// undoList collects functions that undo the steps done so far.
type undoList []func() error

func (u *undoList) add(f func() error) { *u = append(*u, f) }

// run undoes the steps, the last first.
func (u *undoList) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	return errors.Join(errs...)
}
