package statuspage

import (
	"time"

	"weft/internal/peer"
)

// rate is in bytes a second.
type rate struct{ tx, rx float64 }

// rates computes rates from the counters of two snapshots.
type rates struct {
	at     time.Time
	counts map[peer.ID][2]uint64
}

// maxRateInterval is the longest time between two snapshots from which a rate is computed.
const maxRateInterval = 10 * time.Second

// update returns the rates since the snapshot before; none when that is longer ago than maxRateInterval.
func (r *rates) update(s Snapshot, now time.Time) map[peer.ID]rate {
	elapsed := now.Sub(r.at)
	before := r.counts
	r.at, r.counts = now, make(map[peer.ID][2]uint64, len(s.Peers))
	found := map[peer.ID]rate{}
	usable := elapsed > 0 && elapsed <= maxRateInterval
	for _, p := range s.Peers {
		r.counts[p.ID] = [2]uint64{p.TxBytes, p.RxBytes}
		b, known := before[p.ID]
		if known && usable && b[0] <= p.TxBytes && b[1] <= p.RxBytes {
			found[p.ID] = rate{float64(p.TxBytes-b[0]) / elapsed.Seconds(), float64(p.RxBytes-b[1]) / elapsed.Seconds()}
		}
	}
	return found
}
