package datapath

import (
	"sync"

	"weft/internal/peer"
	"weft/router/carrier"
)

// kernelCounts counts what the kernel carries from and to each peer, over all devices of a run of the node. Its methods may be called
// from any goroutine.
type kernelCounts struct {
	mu    sync.Mutex
	peers map[peer.ID]*growing // guarded by mu
}

// growing is the sum of counts that begin again when a device or its rules are made again.
type growing struct {
	ended carrier.Counts // the sum of those that have begun again
	last  carrier.Counts
}

// next returns the sum, which includes counts.
func (g *growing) next(counts carrier.Counts) carrier.Counts {
	for _, c := range []struct{ ended, last, now *uint64 }{
		{&g.ended.RxFrames, &g.last.RxFrames, &counts.RxFrames}, {&g.ended.RxBytes, &g.last.RxBytes, &counts.RxBytes},
		{&g.ended.TxFrames, &g.last.TxFrames, &counts.TxFrames}, {&g.ended.TxBytes, &g.last.TxBytes, &counts.TxBytes},
	} {
		if *c.now < *c.last {
			*c.ended += *c.last
		}
		*c.last = *c.now
	}
	return sum(g.ended, g.last)
}

func sum(a, b carrier.Counts) carrier.Counts {
	return carrier.Counts{
		RxFrames: a.RxFrames + b.RxFrames, RxBytes: a.RxBytes + b.RxBytes, TxFrames: a.TxFrames + b.TxFrames, TxBytes: a.TxBytes + b.TxBytes,
	}
}

// update takes the counts of now and returns the sums, also of peers that the kernel does not carry at present.
func (k *kernelCounts) update(now map[peer.ID]carrier.Counts) map[peer.ID]carrier.Counts {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range now {
		if k.peers[id] == nil {
			if k.peers == nil {
				k.peers = map[peer.ID]*growing{}
			}
			k.peers[id] = &growing{}
		}
	}
	sums := make(map[peer.ID]carrier.Counts, len(k.peers))
	for id, g := range k.peers {
		sums[id] = g.next(now[id])
	}
	return sums
}

// keepOnly forgets all peers but those for which known returns true.
func (k *kernelCounts) keepOnly(known func(peer.ID) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.peers {
		if !known(id) {
			delete(k.peers, id)
		}
	}
}

// KernelCounts returns what the kernel has carried from and to each peer.
func (d *Datapath) KernelCounts() map[peer.ID]carrier.Counts {
	var now map[peer.ID]carrier.Counts
	if run := d.kernelRun(); run != nil {
		var err error
		if now, err = run.device.Counts(); err != nil {
			d.log.Debug("cannot read the counts of the kernel path", "err", err) // it has just been removed
		}
	}
	return d.kernelCounts.update(now)
}
