package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"weft/internal/hint"
	"weft/internal/hoststate"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// How long the node waits before it makes the kernel path again.
const (
	kernelRetry = 10 * time.Second       // while there is none
	kernelFirst = 100 * time.Millisecond // after another program has removed it
)

// kernelPatience is how long it may take to prove the kernel path to a peer without a condition: usually it takes half a second.
const kernelPatience = time.Minute

// kernelPath is the part of the datapath that the kernel carries by itself. Without a device everything is in userspace.
type kernelPath struct {
	// constant
	router *router.Engine
	log    *slog.Logger

	// atomic
	current atomic.Pointer[kernelRun] // nil: there is no device
	err     atomic.Pointer[error]     // why there is none; nil or pointer to nil: there is one, or none is wanted
}

// kernelRun is a device and the controller that moves peers to it.
type kernelRun struct {
	device     *vxlan.Device
	controller *carrier.Controller
	ctx        context.Context // ends with stop
	stop       context.CancelFunc
	renewed    atomic.Bool // stop was called for a run with another address or VNI
	refused    refused
}

// openKernelPath makes the kernel path where it is wanted. A host that cannot have one is an error only where it was requested.
func (d *Datapath) openKernelPath(ctx context.Context, k *kernelPath, br *bridge.Bridge) error {
	if !d.wantsKernelPath() {
		return d.removeKernelPath(ctx)
	}
	err := d.makeKernelPath(ctx, k, br)
	if err != nil && d.settings.Datapath == settings.DatapathKernel {
		return hint.Refuse("--datapath", "Use auto or userspace, or fix the error.", "%w", err)
	}
	if err != nil {
		d.log.Warn("no kernel path: all peers are carried in userspace", "err", err)
		return d.removeKernelPath(ctx)
	}
	return nil
}

// wantsKernelPath reports whether the kernel could carry frames of any peer.
func (d *Datapath) wantsKernelPath() bool {
	return d.settings.WantsKernelPath(d.sealed(), *d.trusted.Load())
}

// removeKernelPath removes what crashed runs have left on the bridge: it would carry frames without control. A failure is an
// error only where frames must be sealed.
func (d *Datapath) removeKernelPath(ctx context.Context) error {
	_, err := vxlan.Remove(ctx, d.settings.KernelDevice())
	if errors.Is(err, vxlan.ErrNotOurs) {
		err = nil
	}
	if err = errors.Join(err, vxlan.RemoveFrom(ctx, d.settings.Bridge, "")); err == nil {
		return nil
	}
	if d.sealed() {
		return fmt.Errorf("datapath: the kernel path of an earlier run would carry frames unsealed: remove it with \"ip link del\": %w", err)
	}
	d.log.Warn("cannot remove the kernel path of an earlier run", "err", err)
	return nil
}

// makeKernelPath makes the device and the controller that moves peers to it.
func (d *Datapath) makeKernelPath(ctx context.Context, k *kernelPath, br *bridge.Bridge) (err error) {
	vni := d.agreedVNI(d.cfg.Membership.Members())
	defer func() {
		if err != nil {
			vni = 0
		}
		d.publishVNI(vni)
		k.err.Store(&err)
	}()
	// A device of an earlier run with another port would carry each frame a second time.
	if err := vxlan.RemoveFrom(ctx, d.settings.Bridge, d.settings.KernelDevice()); err != nil {
		return err
	}
	device, err := vxlan.Open(ctx, vxlan.Config{
		Name: d.settings.KernelDevice(), Bridge: d.settings.Bridge, Tap: d.settings.Tap, Port: d.settings.KernelPort(), VNI: vni,
		MTU: d.linkMTU(), Local: d.underlay.Load().Addr, Self: d.cfg.Self, CopyDSCP: d.settings.DSCP == settings.DSCPCopy,
	})
	if err != nil {
		return err
	}
	controller, err := carrier.New(carrier.ControllerConfig{
		Carrier: device, Kind: carrier.VXLAN, Self: d.cfg.Self, Router: k.router, Logger: d.log,
	})
	if err == nil {
		err = br.AddPort(device.Name())
	}
	if err != nil {
		return errors.Join(err, device.Close())
	}
	if err := device.Gate(); err != nil {
		d.log.Info("nftables alone filters the senders to the kernel path", "err", err)
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
		run := k.current.Load()
		if run != nil {
			err := run.run(ctx, d.keepsKernelPath)
			k.current.Store(nil)
			if ctx.Err() != nil {
				return nil // errors of a device that was closed for the end
			}
			if run.renewed.Load() && d.wantsKernelPath() && d.remakeKernelPath(ctx, k) {
				continue
			}
			d.log.Warn("the kernel path has ended: all peers are carried in userspace", "err", err)
			k.err.Store(&err)
			pause = max(kernelFirst, pace.Wait(key, time.Now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if !d.wantsKernelPath() {
			continue
		}
		pace.Repaired(key, time.Now())
		if d.remakeKernelPath(ctx, k) && run != nil {
			d.repairs.add(repairKernelPath, "the device of the kernel path was deleted", time.Now())
			d.log.Warn("restored the kernel path, which another program deleted", "device", d.settings.KernelDevice())
		}
	}
	return nil
}

// keepsKernelPath reports whether the kernel goes on carrying frames when the daemon ends: not after the node has left, nor where frames
// must be sealed by now.
func (d *Datapath) keepsKernelPath() bool {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	return !d.cleared && d.wantsKernelPath()
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
		d.log.Debug("still no kernel path", "err", err)
		return false
	}
	d.SyncPeers()
	return true
}

// kernelPort returns the name of the kernel path's port of the bridge, or an empty string.
func (d *Datapath) kernelPort() string {
	if run := d.kernelRun(); run != nil {
		return run.device.Name()
	}
	return ""
}

// kernelPeers returns the members that the kernel may carry: those that are reached directly and without a seal.
//
// A peer with a stopped daemon seems to be unreachable first, and dead after some seconds, although its kernel still carries frames.
// So a member that the kernel carries remains one of them, also when it is dead: its path is left when another carrier works.
// syncMu is held.
func (d *Datapath) kernelPeers(members []Member, carries func(peer.ID) bool) (peers []carrier.Peer) {
	before := d.kernelMembers
	d.kernelMembers = make(map[peer.ID]Member, len(members))
	add := func(m Member) {
		peers = append(peers, carrier.Peer{ID: m.ID, Addr: m.Addr.Addr()})
		d.kernelMembers[m.ID] = m
	}
	for _, m := range members {
		delete(before, m.ID)
		if d.mayUseKernel(m) && (m.Hops == 1 || carries(m.ID)) {
			add(m)
		}
	}
	for id, m := range before {
		if d.cfg.Membership.Dead(id) && carries(id) && d.mayUseKernel(m) {
			add(m)
		}
	}
	return peers
}

// mayUseKernel reports whether frames to a member may use the kernel path where it is reached directly: without an address
// translator, without a seal, and with the VNI of this node.
func (d *Datapath) mayUseKernel(m Member) bool {
	return m.VNI != 0 && m.VNI == d.vni.Load() && d.sameFamily(m.Addr.Addr()) && !m.DialOut && !d.reach.isDialOut() && d.unsealed(m)
}

// close removes a device that no controller has run on; a controller removes its own.
func (k *kernelPath) close() error {
	if run := k.current.Swap(nil); run != nil {
		return run.device.Close()
	}
	return nil
}

// carries reports whether the kernel carries frames to a peer.
func (k *kernelPath) carries(id peer.ID) bool {
	run := k.current.Load()
	return run != nil && run.controller.Carries(id)
}

// setPeers replaces the peers that the kernel may carry.
func (k *kernelPath) setPeers(peers []carrier.Peer) {
	if run := k.current.Load(); run != nil {
		run.controller.SetPeers(peers)
	}
}

// peers returns the peers that the kernel may carry, with their state.
func (k *kernelPath) peers() []carrier.PeerStatus {
	run := k.current.Load()
	if run == nil {
		return nil
	}
	return run.controller.Peers()
}

// unproven returns the peers that the kernel may carry and has not carried for long.
func unproven(peers []carrier.PeerStatus, now time.Time) (ids []peer.ID) {
	for _, p := range peers {
		if p.State != carrier.Carrying && now.Sub(p.Since) >= kernelPatience {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// entries returns the addresses that the kernel has learned.
func (k *kernelPath) entries() []vxlan.Entry {
	run := k.current.Load()
	if run == nil {
		return nil
	}
	entries, err := run.device.Entries()
	if err != nil {
		k.log.Debug("cannot read the kernel's forwarding database", "err", err)
	}
	return entries
}

// sample returns what the kernel has carried; false where there is no device.
func (k *kernelPath) sample() (carrier.Sample, bool) {
	run := k.current.Load()
	if run == nil {
		return carrier.Sample{}, false
	}
	s, err := run.device.Sample()
	if err != nil {
		k.log.Debug("cannot read the counters of the kernel path", "err", err) // it has just been removed
	}
	return s, err == nil
}

// watchPause is how often watch looks for a kernel path while there is none.
const watchPause = time.Second

// watch calls f for the device of the kernel path, and again for the next one, until ctx ends. f reads frames of the device as
// long as it exists. While there is no kernel path, watch waits for one.
func (k *kernelPath) watch(ctx context.Context, f func(*vxlan.Device) error) error {
	for {
		if run := k.current.Load(); run != nil {
			if err := f(run.device); err != nil && k.current.Load() == run {
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
