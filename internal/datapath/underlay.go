package datapath

import (
	"context"
	"net/netip"

	"weft/router/carrier"
)

// Underlay is what a node uses of the network of its host.
type Underlay struct {
	// Addr is the address at which other nodes reach this one. Local reports whether it is an address of this host; otherwise it
	// is that of an address translator.
	Addr  netip.Addr
	Local bool
	// MTU is that of pods, in bytes: what the underlay carries less all headers.
	MTU int
}

// source returns the source address of datagrams: not valid where the routes choose it.
func (u *Underlay) source() netip.Addr {
	if u.Local {
		return u.Addr // the others know this node by it, whatever route a datagram takes
	}
	return netip.Addr{}
}

// MTU returns the MTU of pods in bytes.
func (d *Datapath) MTU() int { return d.underlay.Load().MTU }

// SetUnderlay follows a change of the host's network: datagrams leave from the new address, the kernel path is made again with it,
// and pods get the new MTU. It may be called before Run, from one goroutine at a time.
func (d *Datapath) SetUnderlay(next Underlay) {
	before := d.underlay.Load()
	if next.MTU < before.MTU {
		d.mtus.links.Store(int64(d.linkMTU())) // until the pods have followed
	}
	d.underlay.Store(&next)
	if before.source() != next.source() {
		for _, c := range d.Sockets() {
			c.SetSource(next.source())
		}
	}
	if before.Addr != next.Addr {
		d.reach.Recheck()
		if e := d.current.Load(); e != nil {
			e.kernel.path(carrier.VXLAN).renew()
			e.kernel.path(carrier.Direct).renew()
		}
		d.SyncPeers()
	}
	if before.MTU != next.MTU {
		d.resize.Set()
	}
}

// ownAddr returns the address by which other nodes know this one.
func (d *Datapath) ownAddr() netip.Addr { return d.underlay.Load().Addr }

// sameFamily reports whether a VXLAN device of this node reaches an address.
func (d *Datapath) sameFamily(a netip.Addr) bool { return a.Is4() == d.underlay.Load().Addr.Is4() }

// renew ends the run of the kernel path, which is then made again.
func (k *kernelPath) renew() {
	if run := k.current.Load(); run != nil {
		run.renewed.Store(true)
		run.stop()
	}
}

// newKernelRun returns a run that has not started.
func newKernelRun(device kernelDevice, controller *carrier.Controller) *kernelRun {
	r := &kernelRun{kernelDevice: device, controller: controller}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// run moves peers to the kernel and back until ctx ends, the device fails, or renew is called. At the end of ctx, the device stays on the
// host if keep returns true.
func (r *kernelRun) run(ctx context.Context, keep func() bool) error {
	defer context.AfterFunc(ctx, func() {
		if keep() {
			r.controller.Keep()
		}
		r.stop()
	})()
	return r.controller.Run(r.ctx)
}
