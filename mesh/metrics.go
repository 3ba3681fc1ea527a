package mesh

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	membersDesc = prometheus.NewDesc("weft_mesh_members", "Members known, this node among them, by state.", []string{"state"}, nil)
	healthDesc  = prometheus.NewDesc("weft_mesh_health_score", "This node's own health as gossip sees it: 0 is well, higher is worse, -1 is not running.", nil, nil)
	queuedDesc  = prometheus.NewDesc("weft_mesh_queued_broadcasts", "Broadcasts that wait to be sent.", nil, nil)
	unicastDesc = prometheus.NewDesc("weft_mesh_queued_messages", "Messages to one member each that wait to be sent.", nil, nil)
	dropsDesc   = prometheus.NewDesc("weft_mesh_drops_total", "Gossip messages that were thrown away, by reason.", []string{"reason"}, nil)
)

// collector reads a Mesh's counters when it is scraped.
type collector struct{ mesh *Mesh }

// Collector returns the metrics of the mesh.
func (m *Mesh) Collector() prometheus.Collector { return collector{m} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{membersDesc, healthDesc, queuedDesc, unicastDesc, dropsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	byState := map[State]int{StateAlive: 0, StateDead: 0, StateLeft: 0}
	for _, m := range c.mesh.roster.snapshot(time.Now()) {
		byState[m.State]++
	}
	for state, n := range byState {
		ch <- prometheus.MustNewConstMetric(membersDesc, prometheus.GaugeValue, float64(n), state.String())
	}
	ch <- prometheus.MustNewConstMetric(healthDesc, prometheus.GaugeValue, float64(c.mesh.HealthScore()))
	ch <- prometheus.MustNewConstMetric(queuedDesc, prometheus.GaugeValue, float64(c.mesh.queue.NumQueued()))
	ch <- prometheus.MustNewConstMetric(unicastDesc, prometheus.GaugeValue, float64(len(c.mesh.unicasts)))
	for reason, n := range c.mesh.drops.byReason() {
		ch <- prometheus.MustNewConstMetric(dropsDesc, prometheus.CounterValue, float64(n.Load()), reason)
	}
}

// byReason returns the counters under the names that operators see.
func (d *drops) byReason() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		"malformed":    &d.malformed,   // not of the form of its kind
		"unknown_kind": &d.unknownKind, // of a kind or channel that this version does not have
		"misdirected":  &d.misdirected, // for a node that had this address before
		"rejected":     &d.rejected,    // refused by the engine that it was for
		"refused":      &d.refused,     // of a node that cannot be a member
		"unsent":       &d.unsent,      // a unicast whose stream failed
		"queue_full":   &d.queueFull,   // a unicast too many
	}
}
