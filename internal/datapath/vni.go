package datapath

import (
	"time"

	"weft/router/carrier/vxlan"
)

// keepVNI publishes the VNI of a device that an earlier run left on the host, before the others hear of this run: they go on sending
// to it.
func (d *Datapath) keepVNI() {
	if d.wantsKernelPath() {
		d.publishVNI(vxlan.KeptVNI(d.settings.KernelDevice()))
	}
}

// publishVNI makes a VNI known to the other nodes; 0: this node accepts no VXLAN.
func (d *Datapath) publishVNI(vni uint32) {
	d.vni.Store(vni)
	d.cfg.Gossip.SetVNI(vni)
}

// agreedVNI returns the VNI for this node's device.
func (d *Datapath) agreedVNI(members []Member) uint32 {
	published := make([]uint32, 0, len(members))
	for _, m := range members {
		published = append(published, m.VNI)
	}
	if vni := vxlan.AgreeVNI(d.vni.Load(), published); vni != 0 {
		return vni
	}
	return vxlan.RandomVNI()
}

// followVNI makes the kernel path again where the nodes have agreed on another VNI: several of them chose one before they met. syncMu is
// held.
func (d *Datapath) followVNI(k *kernelPath, members []Member, now time.Time) {
	d.vniWaits.Store(false)
	run := k.current.Load()
	if run == nil {
		return // the next device gets it
	}
	vni := d.agreedVNI(members)
	if vni == d.vni.Load() {
		return
	}
	if d.vniPace.Wait(now) > 0 {
		d.vniWaits.Store(true) // retryVNI asks again
		return
	}
	d.vniPace.Changed(now)
	d.log.Info("the nodes have agreed on another VNI: making the kernel path again")
	d.publishVNI(vni)
	k.renew()
}

// retryVNI follows the others to another VNI if it had to wait. It is called every second.
func (d *Datapath) retryVNI() {
	if d.vniWaits.Load() {
		d.SyncPeers()
	}
}
