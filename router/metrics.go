package router

import "github.com/prometheus/client_golang/prometheus"

// Descriptions of the metrics. Names and labels are an interface: dashboards and alerts hold on to them.
var (
	descTxBytes    = desc("peer_transmit_bytes_total", "Bytes of frames sent to a peer, its headers on the wire not counted.", "peer")
	descTxFrames   = desc("peer_transmit_frames_total", "Frames sent to a peer.", "peer")
	descRxBytes    = desc("peer_receive_bytes_total", "Bytes of frames received from a peer.", "peer")
	descRxFrames   = desc("peer_receive_frames_total", "Frames received from a peer.", "peer")
	descPeerMTU    = desc("peer_mtu_bytes", "Largest packet of a pod that the path to a peer takes.", "peer")
	descPeerRTT    = desc("peer_rtt_seconds", "Round trip to a peer as the probes of its path measured it; 0 where not known.", "peer")
	descSession    = desc("peer_session_age_seconds", "Age of the session with a peer; no series where there is none.", "peer")
	descHandshakes = desc("peer_handshakes_total", "Handshakes that this node has begun with a peer, answered or not.", "peer")
	descSessions   = desc("peer_sessions_total", "Sessions that came of handshakes with a peer, whoever began them.", "peer")
	descRekeys     = desc("peer_rekeys_total", "Sessions with a peer that took the place of another.", "peer")
	descPeerRelay  = desc("peer_relayed", "1 where frames for a peer go over another node, else 0.", "peer")
	descPeerDrops  = desc("peer_drops_total", "Frames and datagrams from or to a peer that were dropped.", "peer", "reason")
	descDrops      = desc("drops_total", "Frames and datagrams that were dropped, those of known peers among them.", "reason")
	descFloods     = desc("floods_total", "Frames that were sent to all peers: broadcasts, multicasts, unknown addresses.")
	descTAPFrames  = desc("tap_frames_total", "Frames read from the TAP (transmit) and written to it (receive), one by one.", "direction")
	descTAPPieces  = desc("tap_superframes_total", "Pieces that these frames were read and written in: superframes, and frames by themselves.", "direction")
	descProbes     = desc("path_probes_received_total", "Probes of the path MTU, and answers to them, that were received.")
	descNeighbors  = desc("neighbor_requests_total", "Questions of pods for addresses, and announcements, by what became of them: answered, directed, own, flooded.", "result")
	descRelayed    = desc("relayed_datagrams_total", "Datagrams passed on between other nodes.")
	descFDBEntries = desc("fdb_entries", "MAC addresses in the forwarding database.")
	descFDBRefused = desc("fdb_refused_total", "MAC addresses not learned as the forwarding database was full.")
	descFDBMoves   = desc("fdb_moves_total", "MAC addresses that turned up elsewhere than they were.")
	descBatch      = desc("batch_items", "Frames read from the TAP (transmit) or datagrams from a socket (receive) at once.", "direction")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("weft_"+name, help, labels, nil)
}

// Collector returns a collector of the engine's counters, read at every scrape, for a registry of the caller's.
func (e *Engine) Collector() prometheus.Collector { return collector{e} }

type collector struct{ engine *Engine }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descTxBytes, descTxFrames, descRxBytes, descRxFrames, descPeerMTU, descPeerRTT, descPeerDrops, descDrops,
		descSession, descHandshakes, descSessions, descRekeys, descPeerRelay, descFloods, descTAPFrames, descTAPPieces,
		descProbes, descNeighbors, descRelayed, descFDBEntries, descFDBRefused, descFDBMoves, descBatch,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.engine.Stats()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, p := range s.Peers {
		id := p.ID.String()
		counter(descTxBytes, p.TxBytes, id)
		counter(descTxFrames, p.TxFrames, id)
		counter(descRxBytes, p.RxBytes, id)
		counter(descRxFrames, p.RxFrames, id)
		gauge(descPeerMTU, float64(p.MTU), id)
		gauge(descPeerRTT, p.RTT.Seconds(), id)
		if p.Session > 0 {
			gauge(descSession, p.Session.Seconds(), id)
		}
		counter(descHandshakes, p.Sessions.Initiations, id)
		counter(descSessions, p.Sessions.Sessions, id)
		counter(descRekeys, p.Sessions.Rekeys, id)
		relayed := 0.0
		if p.Relayed {
			relayed = 1
		}
		gauge(descPeerRelay, relayed, id)
		for reason, n := range p.Drops {
			counter(descPeerDrops, n, id, reason.String())
		}
	}
	// All reasons, also those at 0: a rate over a series that begins with its first event misses that event.
	for reason := Drop(1); reason < numDrops; reason++ {
		counter(descDrops, s.Drops[reason], reason.String())
	}
	counter(descFloods, s.Floods)
	counter(descTAPFrames, s.FromTAP.Frames, "transmit")
	counter(descTAPPieces, s.FromTAP.Pieces, "transmit")
	counter(descTAPFrames, s.ToTAP.Frames, "receive")
	counter(descTAPPieces, s.ToTAP.Pieces, "receive")
	counter(descProbes, s.Probes)
	counter(descNeighbors, s.Neighbors.Answered, "answered")
	counter(descNeighbors, s.Neighbors.Directed, "directed")
	counter(descNeighbors, s.Neighbors.Own, "own")
	counter(descNeighbors, s.Neighbors.Flooded, "flooded")
	counter(descRelayed, s.Relayed)
	gauge(descFDBEntries, float64(s.FDBEntries))
	counter(descFDBRefused, s.FDBRefused)
	counter(descFDBMoves, s.FDBMoves)
	ch <- s.Transmit.histogram("transmit")
	ch <- s.Receive.histogram("receive")
}

func (b BatchStats) histogram(direction string) prometheus.Metric {
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, n := range b.Sizes[:batchBuckets-1] {
		below += n
		buckets[float64(int(1)<<i)] = below
	}
	return prometheus.MustNewConstHistogram(descBatch, b.Batches, float64(b.Items), buckets, direction)
}
