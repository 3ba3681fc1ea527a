package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/hint"
	"weft/internal/hoststate"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router"
	"weft/router/carrier"
	"weft/router/carrier/framewatch"
	"weft/router/carrier/vxlan"
	"weft/router/carrier/wireguard"
	"weft/tap/bridge"
)

// How long the node waits before it makes the kernel path again.
const (
	kernelRetry = 10 * time.Second       // while there is none
	kernelLook  = time.Second            // while none is wanted
	kernelFirst = 100 * time.Millisecond // after another program has removed it
)

// kernelPatience is how long it may take to prove the kernel path to a peer without a condition: usually it takes half a second.
const kernelPatience = time.Minute

// kernelPath is a carrier of the kernel. Without a device its peers are carried in userspace.
type kernelPath struct {
	// constant
	kind   carrier.Kind
	wanted func() bool                       // whether it could carry frames of any peer
	peer   func(Member) (carrier.Peer, bool) // a member that is reached directly, if it may carry frames to that
	open   func(ctx context.Context) (kernelDevice, error)
	device string // name of the device that is a port of the bridge
	router carrier.Router
	log    *slog.Logger

	totals carrier.Totals // has a lock of its own

	// atomic
	current atomic.Pointer[kernelRun] // nil: there is no device
	err     atomic.Pointer[error]     // why there is none; nil or pointer to nil: there is one, or none is wanted
}

// kernelPaths are the carriers of the kernel.
type kernelPaths []*kernelPath

// kernelDevice is the device of a carrier: the port of the bridge, perhaps with a tunnel below it, to which carrier belongs then.
type kernelDevice struct {
	carrier  carrier.Carrier
	rules    carrierRules
	frames   carrierFrames
	port     *vxlan.Device // nil: the carrier has none
	fixedMTU int           // in bytes; 0: it follows that of the overlay
}

// carrierRules are the rules of nftables of a carrier. Methods may be called from any goroutine.
type carrierRules interface {
	// FilterIntact reports whether the rules are as they were set last. It must not start a program.
	FilterIntact() (bool, error)
	// RestoreFilter sets the rules again.
	RestoreFilter(context.Context) error
	// FilterDrops returns how many packets the rules have dropped, by reason.
	FilterDrops(context.Context) (map[string]uint64, error)
}

// carrierFrames are the frames that a carrier carries. Methods may be called from any goroutine.
type carrierFrames interface {
	// Watch calls f for each frame until ctx ends.
	Watch(ctx context.Context, f func(framewatch.Watched)) error
	// SampleFrames calls f for one of every() frames until ctx ends.
	SampleFrames(ctx context.Context, every func() int, f func(framewatch.Sampled)) error
}

// kernelRun is a device and the controller that moves peers to it.
type kernelRun struct {
	kernelDevice
	controller *carrier.Controller
	ctx        context.Context // ends with stop
	stop       context.CancelFunc
	renewed    atomic.Bool // stop was called for a run with another address, VNI or MTU
	refused    refused
}

// newKernelPaths returns the carriers of the kernel, without devices.
func (d *Datapath) newKernelPaths(engine *router.Engine) kernelPaths {
	carried := &carried{Router: engine, by: map[peer.ID][]carrier.Kind{}}
	paths := kernelPaths{{
		kind: carrier.Direct, wanted: d.wantsDirect, peer: announced(d.mayUseDirect), open: d.openDirect, device: d.settings.DirectPort(),
	}, {
		kind: carrier.VXLAN, wanted: d.wantsKernelPath, peer: d.vxlanPeer, open: d.openVXLAN, device: d.settings.KernelDevice(),
	}, {
		kind: carrier.WireGuard, wanted: d.wantsTunnels, peer: announced(d.mayUseTunnel), open: d.openTunnels,
		device: d.settings.TunneledDevice(),
	}}
	for _, k := range paths {
		k.router, k.log = carriedBy{carried, k.kind}, d.log
	}
	paths.path(carrier.Direct).router = besideOthers{engine, paths}
	return paths
}

// carried is which carriers of the kernel carry a peer: while it changes from one to the other, perhaps both.
type carried struct {
	carrier.Router
	mu sync.Mutex
	by map[peer.ID][]carrier.Kind // guarded by mu
}

// carriedBy is the router as one carrier sees it.
type carriedBy struct {
	*carried
	kind carrier.Kind
}

// SetKernel implements carrier.Router: the kernel carries a peer while any carrier does.
func (c carriedBy) SetKernel(id peer.ID, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kinds := slices.DeleteFunc(c.by[id], func(k carrier.Kind) bool { return k == c.kind })
	if on {
		kinds = append(kinds, c.kind)
	}
	if c.by[id] = kinds; len(kinds) == 0 {
		delete(c.by, id)
	}
	c.Router.SetKernel(id, len(kinds) > 0)
}

// openKernelPath makes the kernel path where it is wanted. A host that cannot have one is an error only where it was requested.
func (d *Datapath) openKernelPath(ctx context.Context, k *kernelPath, br *bridge.Bridge) error {
	if !k.wanted() {
		return nil
	}
	err := d.makeKernelPath(ctx, k, br)
	if err != nil && d.settings.Datapath == settings.DatapathKernel && k.kind != carrier.Direct {
		return hint.Refuse("--datapath", "Use auto or userspace, or fix the error.", "%w", err)
	}
	if err != nil {
		d.log.Warn(infoOf(k.kind).missing, "carrier", k.kind, "err", err)
		err = infoOf(k.kind).remove(ctx, d.settings)
		if k.kind == carrier.Direct && err != nil {
			d.log.Warn("cannot remove what is left of direct routing", "err", err)
			err = nil
		}
		return err
	}
	return nil
}

// wantsKernelPath reports whether the kernel could carry unsealed frames of any peer.
func (d *Datapath) wantsKernelPath() bool {
	return d.settings.WantsKernelPath(d.sealed(), *d.trusted.Load())
}

// removeKernelPath removes what earlier runs have left on the bridge: it would carry frames without control. What carries sealed frames
// stays if this run replaces it, and with keepPlain what carries others. A failure is an error only where frames must be sealed.
func (d *Datapath) removeKernelPath(ctx context.Context, keepPlain bool) error {
	var kept []string
	err := infoOf(carrier.Direct).remove(ctx, d.settings)
	if keepPlain && d.wantsKernelPath() {
		kept = append(kept, d.settings.KernelDevice())
	} else {
		err = errors.Join(err, infoOf(carrier.VXLAN).remove(ctx, d.settings))
	}
	if d.wantsTunnels() {
		kept = append(kept, d.settings.TunneledDevice())
		err = errors.Join(err, wireguard.RemoveOthers(d.settings.TunnelDevice()))
	} else {
		err = errors.Join(err, infoOf(carrier.WireGuard).remove(ctx, d.settings))
	}
	if err = errors.Join(err, vxlan.RemoveFrom(ctx, d.settings.Bridge, kept...)); err == nil {
		return nil
	}
	if d.sealed() {
		return fmt.Errorf("datapath: the kernel path of an earlier run would carry frames unsealed: remove it with \"ip link del\": %w", err)
	}
	d.log.Warn("cannot remove the kernel path of an earlier run", "err", err)
	return nil
}

// openVXLAN makes the device for frames that need no seal, and publishes its VNI.
func (d *Datapath) openVXLAN(ctx context.Context) (_ kernelDevice, err error) {
	vni := d.agreedVNI(d.cfg.Membership.Members())
	defer func() {
		if err != nil {
			vni = 0
		}
		d.publishVNI(vni)
	}()
	// A device of an earlier run with another port would carry each frame a second time.
	if err := vxlan.RemoveFrom(ctx, d.settings.Bridge, d.settings.KernelDevice(), d.settings.TunneledDevice()); err != nil {
		return kernelDevice{}, err
	}
	c := d.portConfig()
	c.Name, c.Port, c.VNI, c.Local = d.settings.KernelDevice(), d.settings.KernelPort(), vni, d.underlay.Load().Addr
	c.Translated, c.Ports, c.Group, c.Logger = !d.underlay.Load().Local, pairPorts{d}, d.settings.PairGroup(), d.log
	device, err := vxlan.Open(ctx, c)
	return kernelDevice{carrier: device, rules: device, frames: device, port: device}, err
}

// portConfig describes what all devices of the kernel path have in common.
func (d *Datapath) portConfig() vxlan.Config {
	return vxlan.Config{
		Bridge: d.settings.Bridge, Tap: d.settings.Tap, MTU: d.linkMTU(), Self: d.cfg.Self, CopyDSCP: d.settings.DSCP == settings.DSCPCopy,
	}
}

// makeKernelPath makes the device and the controller that moves peers to it.
func (d *Datapath) makeKernelPath(ctx context.Context, k *kernelPath, br *bridge.Bridge) (err error) {
	defer func() { k.err.Store(&err) }()
	device, err := k.open(ctx)
	if err != nil {
		return err
	}
	controller, err := carrier.New(carrier.ControllerConfig{
		Carrier: device.carrier, Kind: k.kind, Self: d.cfg.Self, Router: k.router, Logger: d.log,
	})
	if err == nil && device.port != nil {
		err = br.AddPort(device.port.Name())
	}
	if err != nil {
		return errors.Join(err, device.carrier.Close())
	}
	if device.port != nil && device.port.Gate() != nil {
		d.log.Info("nftables alone filters the senders to the kernel path", "carrier", k.kind, "err", device.port.Gate())
	}
	k.current.Store(newKernelRun(device, controller))
	return nil
}

// runKernelPath moves peers to the kernel and back until ctx ends, and makes the device again if another program deletes it.
func (d *Datapath) runKernelPath(ctx context.Context, k *kernelPath) (err error) {
	defer func() { err = errors.Join(err, k.close()) }()
	var pace hoststate.Pace // grows the pauses while another program deletes each new device
	key := hoststate.Key{Kind: repairKernelPath}
	for ctx.Err() == nil {
		pause := kernelRetry
		if !k.wanted() {
			pause = kernelLook
		}
		run := k.current.Load()
		if run != nil {
			err := run.run(ctx, func() bool { return d.keepsKernelPath(k) })
			k.current.Store(nil)
			if ctx.Err() != nil {
				return nil // errors of a device that was closed for the end
			}
			if run.renewed.Load() && k.wanted() && d.remakeKernelPath(ctx, k) {
				continue
			}
			d.log.Warn("the kernel path has ended: its peers are carried in another way", "carrier", k.kind, "err", err)
			if k.kind == carrier.Direct {
				d.cfg.Gossip.SetDirect(nil)
			}
			k.err.Store(&err)
			pause = max(kernelFirst, pace.Wait(key, time.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if !k.wanted() {
			continue
		}
		pace.Repaired(key, time.Now())
		if d.remakeKernelPath(ctx, k) && run != nil {
			d.repairs.Add(repairKernelPath, "the device of the kernel path was deleted", time.Now())
			d.log.Warn("restored the kernel path, which another program deleted", "carrier", k.kind, "device", k.device)
		}
	}
	return nil
}

// keepsKernelPath reports whether the kernel goes on carrying frames when the daemon ends: not after the node has left, nor where frames
// must be sealed by now, nor without a header, as another carrier goes on.
func (d *Datapath) keepsKernelPath(k *kernelPath) bool {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	return !d.cleared && k.wanted() && k.kind != carrier.Direct
}

// remakeKernelPath tries once to make the kernel path again, and reports whether there is one now.
func (d *Datapath) remakeKernelPath(ctx context.Context, k *kernelPath) bool {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	if d.cleared {
		return false
	}
	br, err := bridge.Ensure(d.bridgeConfig())
	if err == nil {
		defer br.Close()
		err = d.makeKernelPath(ctx, k, br)
	}
	if err != nil {
		d.log.Debug("still no kernel path", "carrier", k.kind, "err", err)
		return false
	}
	d.SyncPeers()
	return true
}

// kernelRuns returns the devices of the kernel path and their controllers, as they are now.
func (d *Datapath) kernelRuns() []*kernelRun {
	if e := d.current.Load(); e != nil {
		return e.kernel.runs()
	}
	return nil
}

// kernelPeers returns the members that a carrier of the kernel may carry: those that are reached directly, and with a seal or without as
// the carrier has it.
//
// A peer with a stopped daemon seems to be unreachable first, and dead after some seconds, although its kernel still carries frames.
// So a member that the kernel carries remains one of them, also when it is dead: its path is left when another carrier works. A member to
// which packets were routed may go on routing them here, whether this node does so or not.
// syncMu is held.
func (d *Datapath) kernelPeers(k *kernelPath, members []Member) (peers []carrier.Peer) {
	before := d.kernelMembers[k.kind]
	now := make(map[peer.ID]Member, len(members))
	add := func(m Member, p carrier.Peer) {
		peers = append(peers, p)
		now[m.ID] = m
	}
	stays := func(id peer.ID) bool {
		_, was := before[id]
		return k.carries(id) || was && k.kind == carrier.Direct
	}
	for _, m := range members {
		if p, may := k.peer(m); may && (m.Hops == 1 || stays(m.ID)) {
			add(m, p)
		}
		delete(before, m.ID)
	}
	for id, m := range before {
		// A node that was installed anew has another ID and may have the address of the dead one.
		taken := slices.ContainsFunc(peers, func(p carrier.Peer) bool { return p.Addr == m.Addr.Addr() })
		if p, may := k.peer(m); may && d.cfg.Membership.Dead(id) && stays(id) && !taken {
			add(m, p)
		}
	}
	d.kernelMembers[k.kind] = now
	return peers
}

// announced returns members at the addresses that they announce.
func announced(may func(Member) bool) func(Member) (carrier.Peer, bool) {
	return func(m Member) (carrier.Peer, bool) { return carrier.Peer{ID: m.ID, Addr: m.Addr.Addr()}, may(m) }
}

// close removes a device that no controller has run on; a controller removes its own.
func (k *kernelPath) close() error {
	if run := k.current.Swap(nil); run != nil {
		return run.carrier.Close()
	}
	return nil
}

// carries reports whether the carrier carries frames to a peer.
func (k *kernelPath) carries(id peer.ID) bool {
	run := k.current.Load()
	return run != nil && run.controller.Carries(id)
}

// setPeers replaces the peers that the carrier may carry.
func (k *kernelPath) setPeers(peers []carrier.Peer) {
	if run := k.current.Load(); run != nil {
		run.controller.SetPeers(peers)
	}
}

// peers returns the peers that the carrier may carry, with their state. Peers on other links are none of direct routing.
func (k *kernelPath) peers() []carrier.PeerStatus {
	run := k.current.Load()
	if run == nil {
		return nil
	}
	return slices.DeleteFunc(run.controller.Peers(), func(p carrier.PeerStatus) bool { return k.kind == carrier.Direct && !p.Reached })
}

// obstacle returns why the carrier cannot be used, as far as it knows; empty otherwise.
func (k *kernelPath) obstacle() string {
	if run := k.current.Load(); run != nil {
		return run.controller.Obstacle()
	}
	return ""
}

// unproven returns the peers that a carrier may carry and has not carried for long.
func unproven(peers []carrier.PeerStatus, now time.Time) (ids []peer.ID) {
	for _, p := range peers {
		if p.State != carrier.Carrying && now.Sub(p.Since) >= kernelPatience {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// watchPause is how often watch looks for a kernel path while there is none.
const watchPause = time.Second

// watch calls f for the device of the carrier, and again for the next one, until ctx ends. f reads frames of the device as
// long as it exists. While there is none, watch waits for one.
func (k *kernelPath) watch(ctx context.Context, f func(carrierFrames) error) error {
	for {
		if run := k.current.Load(); run != nil {
			if err := f(run.frames); err != nil && k.current.Load() == run {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
	}
}
