package statuspage

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

// view is the data of the templates, formatted.
type view struct {
	Status   api.Status
	At       string
	State    string // "ready" or "not ready"
	Good     bool
	Warnings []string
	Facts    []fact
	Peers    []peerRow
	Mesh     picture
	Ranges   []rangeView
}

// fact is a line of the summary.
type fact struct{ Name, Value string }

// peerRow is a row of the table of peers.
type peerRow struct {
	api.Peer
	Via       string // name of the relay
	RTT       string
	Tx, Rx    string // rates
	TxTotal   string
	RxTotal   string
	DropTotal uint64
	DropsText string // drops by reason
}

func newView(s Snapshot, r map[peer.ID]rate, kernel *rate, now time.Time) view {
	v := view{Status: s.Status, At: now.Format(time.TimeOnly), State: "ready", Good: true, Warnings: s.Status.Warnings}
	if !s.Status.Ready {
		v.State, v.Good = "not ready", false
	}
	v.Facts = facts(s.Status)
	if s.Kernel != nil {
		text := fmt.Sprintf("↑ %s ↓ %s so far", bytesText(s.Kernel.Tx), bytesText(s.Kernel.Rx))
		if kernel != nil {
			text = fmt.Sprintf("↑ %s ↓ %s", rateText(kernel.tx), rateText(kernel.rx))
		}
		v.Facts = append(v.Facts, fact{"By the kernel", text})
	}
	names := map[peer.ID]string{}
	for _, p := range s.Peers {
		names[p.ID] = p.Name
	}
	for _, p := range s.Peers {
		v.Peers = append(v.Peers, newPeerRow(p, names, r))
	}
	v.Mesh = newPicture(s, v.Peers)
	for _, rng := range s.Ranges {
		v.Ranges = append(v.Ranges, newRangeView(rng))
	}
	return v
}

func facts(s api.Status) []fact {
	encryption := "off"
	if s.Encrypted {
		encryption = "on"
	}
	states := make([]string, 0, len(s.Peers))
	for _, state := range slices.Sorted(maps.Keys(s.Peers)) {
		states = append(states, fmt.Sprintf("%d %s", s.Peers[state], state))
	}
	return []fact{
		{"Nodes", strings.Join(states, ", ")},
		{"Datapath", string(s.Datapath)},
		{"Encryption", encryption},
		{"Address", s.Advertise.Addr().String()},
		{"MTU of pods", fmt.Sprintf("%d bytes", s.MTU)},
		{"Bridge", s.Bridge + " with " + s.Tap},
		{"Offloads", strings.Join(s.Offload, " ")},
		{"MACs known", fmt.Sprint(s.FDB)},
		{"Addresses", string(s.IPAM)},
		{"Version", s.Version},
		{"Up since", s.Since.Format(time.DateTime)},
	}
}

func newPeerRow(p api.Peer, names map[peer.ID]string, rates map[peer.ID]rate) peerRow {
	row := peerRow{Peer: p, RTT: "–", Tx: "–", Rx: "–", TxTotal: bytesText(p.TxBytes), RxTotal: bytesText(p.RxBytes)}
	if p.RTT > 0 {
		row.RTT = fmt.Sprintf("%.2f ms", p.RTT)
	}
	if !p.Via.IsZero() {
		row.Via = names[p.Via]
	}
	// Traffic that the kernel carries is not counted by peer.
	if r, known := rates[p.ID]; known && !p.Self && p.Datapath != api.DatapathKernel {
		row.Tx, row.Rx = rateText(r.tx), rateText(r.rx)
	}
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(p.Drops)) {
		row.DropTotal += p.Drops[reason]
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, p.Drops[reason]))
	}
	row.DropsText = strings.Join(reasons, ", ")
	return row
}

// rate is in bytes a second.
type rate struct{ tx, rx float64 }

// rates computes rates from the counters of two snapshots.
type rates struct {
	at     time.Time
	counts map[peer.ID][2]uint64
	before *Traffic // the latest counters of the kernel
	kernel *rate    // computed by the latest call of update; nil when not known
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
	r.kernel = nil
	if b, k := r.before, s.Kernel; usable && b != nil && k != nil && b.Tx <= k.Tx && b.Rx <= k.Rx {
		r.kernel = &rate{float64(k.Tx-b.Tx) / elapsed.Seconds(), float64(k.Rx-b.Rx) / elapsed.Seconds()}
	}
	r.before = s.Kernel
	return found
}

// scaled returns v with its unit and a decimal prefix.
func scaled(v float64, unit string) string {
	for _, prefix := range []string{"", "k", "M", "G", "T", "P"} {
		if v < 999.5 {
			if prefix == "" || v >= 99.5 {
				return fmt.Sprintf("%.0f %s%s", v, prefix, unit)
			}
			return fmt.Sprintf("%.1f %s%s", v, prefix, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.0f E%s", v, unit)
}

func bytesText(n uint64) string     { return scaled(float64(n), "B") }
func rateText(bytes float64) string { return scaled(8*bytes, "bit/s") }
func shareText(part, of uint64) string {
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(max(of, 1)))
}
