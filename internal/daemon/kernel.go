package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router/vxlan"
	"weft/tap/bridge"
)

// Values of --datapath.
const (
	datapathAuto      = "auto"
	datapathUserspace = string(api.DatapathUserspace)
	datapathKernel    = string(api.DatapathKernel)
)

// kernelRetry is how long the node waits before it makes the kernel path again that somebody has taken away.
const kernelRetry = 10 * time.Second

// kernelPath is the part of the data plane that the kernel carries by itself. Without a device all is in userspace.
type kernelPath struct {
	plane *plane

	// atomic
	current atomic.Pointer[kernelRun]
	err     atomic.Pointer[error] // why there is none; nil or nil inside where there is one, or shall be none
}

// kernelRun is the kernel path while there is one.
type kernelRun struct {
	device *vxlan.Device
	engine kernelController
}

// kernelController moves peers to the kernel; it is a *vxlan.Controller except in tests.
type kernelController interface {
	Run(ctx context.Context) error
	SetPeers(peers []vxlan.Peer)
	Carries(id peer.ID) bool
	Peers() []vxlan.PeerStatus
}

// kernelName returns the name of the VXLAN device: one a port, as only one can have a port.
func (c *Config) kernelName() string { return fmt.Sprintf("weftvx%d", c.kernelPort()) }

func (c *Config) kernelPort() uint16 { return uint16(c.Port + 2) }

// open makes the kernel path where it is wanted. That there can be none is an error only where it was asked for.
func (k *kernelPath) open(ctx context.Context, br *bridge.Bridge) error {
	d := k.plane.d
	if !d.wantsKernelPath() {
		return d.removeKernelPath(ctx)
	}
	err := k.make(ctx, br)
	if err != nil && d.cfg.Datapath == datapathKernel {
		return refuse("--datapath", "Use auto or userspace, or mend what is said.", "%w", err)
	}
	if err != nil {
		d.log.Warn("no kernel path: all peers are carried in userspace", "err", err)
		return d.removeKernelPath(ctx)
	}
	return nil
}

// wantsKernelPath reports whether there is anybody whom the kernel could carry: what is encrypted it does not.
func (d *Daemon) wantsKernelPath() bool {
	return d.cfg.Datapath != datapathUserspace && (!d.sealed() || len(*d.trusted.Load()) > 0)
}

// removeKernelPath takes away what crashed runs have left behind on the bridge: it would go on to carry frames, and nobody
// would know. That it cannot is an error only where nothing may leave as it is.
func (d *Daemon) removeKernelPath(ctx context.Context) error {
	_, err := vxlan.Remove(ctx, d.cfg.kernelName())
	if errors.Is(err, vxlan.ErrNotOurs) {
		err = nil
	}
	if err = errors.Join(err, vxlan.RemoveFrom(ctx, d.cfg.Bridge)); err == nil {
		return nil
	}
	if d.sealed() {
		return fmt.Errorf("daemon: the kernel path of an earlier run would carry frames unsealed: remove it with \"ip link del\": %w", err)
	}
	d.log.Warn("removing the kernel path of an earlier run", "err", err)
	return nil
}

// make makes the device and the engine that moves peers to it.
func (k *kernelPath) make(ctx context.Context, br *bridge.Bridge) (err error) {
	defer func() { k.err.Store(&err) }()
	d := k.plane.d
	device, err := vxlan.Open(ctx, vxlan.Config{
		Name: d.cfg.kernelName(), Bridge: d.cfg.Bridge, Tap: d.cfg.Tap, Port: d.cfg.kernelPort(), MTU: d.mtu,
		Local: d.advertise, Self: d.identity.ID,
	})
	if err != nil {
		return err
	}
	engine, err := vxlan.New(vxlan.ControllerConfig{
		Device: device, Self: d.identity.ID, Router: k.plane.router, Logger: d.log,
	})
	if err == nil {
		err = br.AddPort(device.Name())
	}
	if err != nil {
		return errors.Join(err, device.Close())
	}
	k.current.Store(&kernelRun{device, engine})
	return nil
}

// run moves peers to the kernel and back until ctx ends, and makes the device again where somebody has deleted it.
func (k *kernelPath) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, k.close()) }()
	for ctx.Err() == nil {
		if run := k.current.Load(); run != nil {
			err := run.engine.Run(ctx)
			k.current.Store(nil)
			if ctx.Err() != nil {
				return nil // whatever closing it for the end has made of it
			}
			k.plane.d.log.Warn("the kernel path has ended: all peers are carried in userspace", "err", err)
			k.err.Store(&err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(kernelRetry):
			if k.plane.d.wantsKernelPath() {
				k.again(ctx)
			}
		}
	}
	return nil
}

// again tries to make the kernel path once more.
func (k *kernelPath) again(ctx context.Context) {
	k.plane.mu.Lock()
	defer k.plane.mu.Unlock()
	if k.plane.cleared {
		return
	}
	br, err := bridge.Ensure(k.plane.d.bridgeConfig())
	if err == nil {
		defer br.Close()
		err = k.make(ctx, br)
	}
	if err != nil {
		k.plane.d.log.Debug("still no kernel path", "err", err)
		return
	}
	k.plane.d.syncPeers()
}

// close takes away a device whose engine, which would do so, was never run.
func (k *kernelPath) close() error {
	if run := k.current.Swap(nil); run != nil {
		return run.device.Close()
	}
	return nil
}

// port returns the name of the device, or nothing.
func (k *kernelPath) port() string {
	if run := k.current.Load(); run != nil {
		return run.device.Name()
	}
	return ""
}

// carries reports whether the kernel carries frames to a peer.
func (k *kernelPath) carries(id peer.ID) bool {
	run := k.current.Load()
	return run != nil && run.engine.Carries(id)
}

// setPeers tells the engine who may be carried by the kernel: who is reached directly, and unsealed.
func (k *kernelPath) setPeers(members []mesh.Member) {
	run := k.current.Load()
	if run == nil {
		return
	}
	var peers []vxlan.Peer
	for _, m := range members {
		addr := m.DataAddr().Addr()
		if isLivePeer(m) && addr.Is4() == k.plane.d.advertise.Is4() && k.plane.d.unsealed(m) && k.plane.d.isDirect(m) {
			peers = append(peers, vxlan.Peer{ID: m.ID, Addr: addr})
		}
	}
	run.engine.SetPeers(peers)
}

// kernelPatience is how long the kernel's path to a peer may take to be proven without a warning: it mostly takes half a second.
const kernelPatience = time.Minute

// unproven returns the peers that the kernel may carry and has not carried for kernelPatience.
func (k *kernelPath) unproven(now time.Time) []peer.ID {
	run := k.current.Load()
	if run == nil {
		return nil
	}
	return unprovenAmong(run.engine.Peers(), now)
}

// unprovenAmong returns those of peers that the kernel has not carried for kernelPatience.
func unprovenAmong(peers []vxlan.PeerStatus, now time.Time) (ids []peer.ID) {
	for _, p := range peers {
		if p.State != vxlan.Kernel && now.Sub(p.Since) >= kernelPatience {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// isDirect reports whether a peer and this node reach each other without a relay or a translator between.
func (d *Daemon) isDirect(m mesh.Member) bool {
	return m.Route.Hops == 1 && !m.DialOut && !d.reach.isDialOut()
}

// entries returns the addresses that the kernel has learned.
func (k *kernelPath) entries() []vxlan.Entry {
	run := k.current.Load()
	if run == nil {
		return nil
	}
	entries, err := run.device.Entries()
	if err != nil {
		k.plane.d.log.Debug("reading what the kernel has learned", "err", err)
	}
	return entries
}

// kernelSample returns what the kernel has carried by itself; false where there is no kernel path.
func (d *Daemon) kernelSample() (vxlan.Sample, bool) {
	p := d.plane.Load()
	if p == nil {
		return vxlan.Sample{}, false
	}
	run := p.kernel.current.Load()
	if run == nil {
		return vxlan.Sample{}, false
	}
	s, err := run.device.Sample()
	if err != nil {
		d.log.Debug("reading what the kernel has carried", "err", err) // it has just gone
	}
	return s, err == nil
}

// watch calls f for all frames that the kernel carries until ctx ends. Where there is no kernel path it is waited for.
func (k *kernelPath) watch(ctx context.Context, f func(vxlan.Watched)) error {
	for {
		if run := k.current.Load(); run != nil {
			if err := run.device.Watch(ctx, f); err != nil && k.current.Load() == run {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// warnings returns what an operator should know of the kernel path.
func (k *kernelPath) warnings() []string {
	if err := k.err.Load(); err != nil && *err != nil {
		return []string{fmt.Sprintf("There is no kernel path, all peers are carried in userspace: %v.", *err)}
	}
	var names []string
	for _, id := range k.unproven(time.Now()) {
		m, _ := k.plane.d.member(id)
		names = append(names, fmt.Sprintf("%s (%s)", m.Name, m.Addr))
	}
	if len(names) > 0 {
		return []string{fmt.Sprintf("The kernel's path does not lead to %s, whose frames go through userspace: open UDP port %d both ways, or, where these nodes "+
			"have no such path or shall have none, start this one with --datapath userspace.", shortList(names), k.plane.d.cfg.kernelPort())}
	}
	return nil
}
