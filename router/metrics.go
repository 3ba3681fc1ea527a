package router

import (
	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metricdef"
	"weft/router/counters"
	"weft/router/drop"
)

// metrics declares the metrics of the engine as a whole; those of peers are in package peermetrics. Names and labels are an interface:
// dashboards and alerts depend on them.
var metrics metricdef.Table

var (
	metricDrops = metrics.Counter("drops_total",
		"Frames and datagrams that were dropped, including those of known peers.", "reason").Values("reason", dropNames()...)
	metricFloods = metrics.Counter("floods_total",
		"Frames that were sent to all peers: broadcasts, multicasts, unknown addresses.")
	metricTAPFrames = metrics.Counter("tap_frames_total",
		"Frames read from the TAP (transmit) and written to it (receive), each segment of a superframe counted.",
		"direction").Values("direction", "receive", "transmit")
	metricTAPPieces = metrics.Counter("tap_superframes_total",
		"Reads and writes that carried these frames: superframes and single frames.", "direction").Values("direction", "receive", "transmit")
	metricProbes    = metrics.Counter("path_probes_received_total", "Probes of the path MTU, and replies to them, that were received.")
	metricNeighbors = metrics.Counter("neighbor_requests_total",
		"Address queries and announcements of pods, by result: answered here, directed to one peer, own (not sent), flooded.",
		"result").Values("result", "answered", "directed", "flooded", "own")
	metricRelayed    = metrics.Counter("relayed_datagrams_total", "Datagrams relayed between other nodes.")
	metricFDBEntries = metrics.Gauge("fdb_entries", "MAC addresses in the forwarding database.")
	metricFDBRefused = metrics.Counter("fdb_refused_total",
		"MAC addresses that were not learned, or forgotten for another one, because the forwarding database was full.")
	metricFDBMoves = metrics.Counter("fdb_moves_total", "MAC addresses that were learned behind another node than before.")
	metricBatch    = metrics.Histogram("batch_items",
		"Frames read from the TAP at once (transmit), or datagrams read from a socket at once (receive).", "direction").Values("direction",
		"receive", "transmit")
)

// Metrics returns the table of the metrics that Collector collects.
func Metrics() *metricdef.Table { return &metrics }

// Collector returns a collector of the engine's counters, read at every scrape, to be registered by the caller.
func (e *Engine) Collector() prometheus.Collector { return collector{e} }

type collector struct{ engine *Engine }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.engine.Stats()
	// All reasons, including those at 0: a rate over a series that begins with its first event misses that event.
	for _, reason := range drop.All() {
		metricDrops.Send(ch, float64(s.Drops[reason]), reason.String())
	}
	metricFloods.Send(ch, float64(s.Floods))
	metricTAPFrames.Send(ch, float64(s.FromTAP.Frames), "transmit")
	metricTAPPieces.Send(ch, float64(s.FromTAP.Pieces), "transmit")
	metricTAPFrames.Send(ch, float64(s.ToTAP.Frames), "receive")
	metricTAPPieces.Send(ch, float64(s.ToTAP.Pieces), "receive")
	metricProbes.Send(ch, float64(s.Probes))
	metricNeighbors.Send(ch, float64(s.Neighbors.Answered), "answered")
	metricNeighbors.Send(ch, float64(s.Neighbors.Directed), "directed")
	metricNeighbors.Send(ch, float64(s.Neighbors.Own), "own")
	metricNeighbors.Send(ch, float64(s.Neighbors.Flooded), "flooded")
	metricRelayed.Send(ch, float64(s.Relayed))
	metricFDBEntries.Send(ch, float64(s.FDBEntries))
	metricFDBRefused.Send(ch, float64(s.FDBRefused))
	metricFDBMoves.Send(ch, float64(s.FDBMoves))
	collectBatches(ch, s.Transmit, "transmit")
	collectBatches(ch, s.Receive, "receive")
}

// collectBatches sends the histogram of the batches of a direction.
func collectBatches(ch chan<- prometheus.Metric, b BatchStats, direction string) {
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, n := range b.Sizes[:counters.Buckets-1] {
		below += n
		buckets[float64(int(1)<<i)] = below
	}
	metricBatch.SendHistogram(ch, b.Batches, float64(b.Items), buckets, direction)
}

// dropNames returns the names of all reasons for drops.
func dropNames() (names []string) {
	for _, r := range drop.All() {
		names = append(names, r.String())
	}
	return names
}
