package datapath

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

// runs returns the devices and their controllers.
func (p kernelPaths) runs() (runs []*kernelRun) {
	for _, k := range p {
		if run := k.current.Load(); run != nil {
			runs = append(runs, run)
		}
	}
	return runs
}

// path returns the carrier of a kind.
func (p kernelPaths) path(kind carrier.Kind) *kernelPath {
	for _, k := range p {
		if k.kind == kind {
			return k
		}
	}
	return nil
}

// carrier returns what carries frames to a peer.
func (p kernelPaths) carrier(id peer.ID) carrier.Kind {
	for _, k := range p {
		if k.carries(id) {
			return k.kind
		}
	}
	return carrier.Userspace
}

// entries returns the addresses that the kernel has learned.
func (p kernelPaths) entries() (all []vxlan.Entry) {
	for _, k := range p {
		if run := k.current.Load(); run != nil && run.port != nil {
			entries, err := run.port.Entries()
			if err != nil {
				k.log.Debug("cannot read the kernel's forwarding database", "carrier", k.kind, "err", err)
			}
			all = append(all, entries...)
		}
	}
	return all
}

// sample returns what the kernel has carried by all devices; false where there is none.
func (p kernelPaths) sample() (sum carrier.Sample, ok bool) {
	for _, k := range p {
		run := k.current.Load()
		if run == nil {
			continue
		}
		s, err := run.carrier.Sample()
		if err != nil {
			k.log.Debug("cannot read the counters of the kernel path", "carrier", k.kind, "err", err) // it has just been removed
			continue
		}
		ok = true
		sum.TxFrames, sum.TxBytes, sum.TxDropped = sum.TxFrames+s.TxFrames, sum.TxBytes+s.TxBytes, sum.TxDropped+s.TxDropped
		sum.RxFrames, sum.RxBytes = sum.RxFrames+s.RxFrames, sum.RxBytes+s.RxBytes
	}
	return sum, ok
}

// watch calls f for the devices of all carriers, as kernelPath.watch does, until ctx ends.
func (p kernelPaths) watch(ctx context.Context, f func(carrierFrames) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, k := range p {
		group.Go(func() error { return k.watch(ctx, f) })
	}
	return group.Wait()
}

// ports returns those of the runs that are ports of the bridge.
func ports(runs []*kernelRun) []*kernelRun {
	return slices.DeleteFunc(runs, func(r *kernelRun) bool { return r.port == nil })
}
