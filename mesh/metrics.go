package mesh

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metricdef"
)

// metrics declares all metrics of the package.
var metrics metricdef.Table

var (
	membersMetric = metrics.Gauge("mesh_members", "Members known, this node among them, by state.", "state").Values("state", "alive",
		"dead", "left")
	healthMetric = metrics.Gauge("mesh_health_score",
		"This node's own health as gossip sees it: 0 is well, higher is worse, -1 is not running.")
	queuedBroadcastsMetric = metrics.Gauge("mesh_queued_broadcasts", "Broadcasts that wait to be sent.")
	queuedMessagesMetric   = metrics.Gauge("mesh_queued_messages", "Messages to one member each that wait to be sent.")
	dropsMetric            = metrics.Counter("mesh_drops_total", "Gossip messages that were dropped, by reason.", "reason").
				Values("reason", "busy", "malformed", "misdirected", "no_key", "not_admitted", "queue_full", "refused", "rejected",
			"replayed", "unauthenticated", "unknown_kind", "unproven", "unsent", "version")
)

// Metrics returns the metrics of this package, for documentation.
func Metrics() *metricdef.Table { return &metrics }

// drops counts gossip that was dropped, by reason.
type drops struct {
	malformed, unknownKind, misdirected, rejected, refused, unsent, queueFull atomic.Uint64
	busy, noKey, notAdmitted, replayed, unauthenticated, unproven, version    atomic.Uint64
}

// byReason returns the counters by the value of the label.
func (d *drops) byReason() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		"malformed":       &d.malformed,       // cannot be read
		"unknown_kind":    &d.unknownKind,     // of a kind or channel that this version does not have
		"misdirected":     &d.misdirected,     // for another node or run, as at an address that this node has taken over
		"no_key":          &d.noKey,           // sealed under a secret that this node or a member has not
		"version":         &d.version,         // of another version, or not weft's
		"replayed":        &d.replayed,        // received before, or too old to know
		"unproven":        &d.unproven,        // its sender has not proven that it is there
		"unauthenticated": &d.unauthenticated, // a stream that has not become authenticated, or has ended early
		"busy":            &d.busy,            // more streams or bytes of messages than there is room for
		"not_admitted":    &d.notAdmitted,     // credentials refused
		"rejected":        &d.rejected,        // refused by the engine that it was for
		"refused":         &d.refused,         // from a node that cannot be a member
		"unsent":          &d.unsent,          // a unicast that could not be sent
		"queue_full":      &d.queueFull,       // no room in a queue
	}
}

// collector reads a Mesh's counters when it is scraped.
type collector struct{ mesh *Mesh }

// Collector returns the metrics of the mesh.
func (m *Mesh) Collector() prometheus.Collector { return collector{m} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	byState := map[State]int{StateAlive: 0, StateDead: 0, StateLeft: 0}
	for _, m := range c.mesh.roster.snapshot(time.Now()) {
		byState[m.State]++
	}
	for state, n := range byState {
		membersMetric.Send(ch, float64(n), state.String())
	}
	healthMetric.Send(ch, float64(c.mesh.HealthScore()))
	queuedBroadcastsMetric.Send(ch, float64(c.mesh.queue.Len()))
	queuedMessagesMetric.Send(ch, float64(len(c.mesh.unicasts)))
	for reason, n := range c.mesh.drops.byReason() {
		dropsMetric.Send(ch, float64(n.Load()), reason)
	}
}
