// Package peermetrics has the metrics of the other nodes: sums over all of them, and series of each one while there are few. A thousand
// nodes with two dozen series for each other would be twenty-four million series in Prometheus.
package peermetrics

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/api"
	"weft/internal/metricdef"
	"weft/internal/peer"
	"weft/router"
	"weft/router/carrier"
)

// metrics declares the metrics. Names and labels are an interface: dashboards and alerts depend on them.
var metrics metricdef.Table

// Metrics of all peers together.
var (
	live      = metrics.Gauge("peers", "Live peers, by the link to them.", "link").Values("link", linkNames()...)
	byKernel  = metrics.Gauge("peers_kernel", "Live peers of which the kernel carries the frames.")
	inSession = metrics.Gauge("peers_session", "Peers with which there is a session.")
	each      = metrics.Gauge("peers_have_metrics", "1 if each live peer has metrics of its own, 0 if there are more than --peer-metrics.")
	frames    = metrics.Counter("frames_total", "Frames that passed through the daemon to peers (transmit) and from them (receive).",
		"direction").Values("direction", directions...)
	bytes = metrics.Counter("bytes_total", "Bytes of these frames, without the headers on the wire.", "direction").
		Values("direction", directions...)
	handshakes = metrics.Counter("handshakes_total", "Handshakes that this node has begun, answered or not.")
	sessions   = metrics.Counter("sessions_total", "Sessions that were made, by handshakes that either node began.")
	rekeys     = metrics.Counter("rekeys_total", "Sessions that replaced another one.")
	foreign    = metrics.Counter("foreign_source_frames_total",
		"Sealed frames received with a source address that another node than the sender gives out, dropped or not.")
	roundTrips = metrics.Histogram("peers_rtt_seconds", "Round-trip times to the peers for which they are known, as last measured.")
)

// Metrics of each peer.
var (
	peerInfo = metrics.Gauge("peer_info", "Always 1: the name and the data address of a live peer.", "peer", "name", "addr")
	peerLink = metrics.Gauge("peer_link", "Whether a live peer is reached by this kind of link (direct, relay, none): 1 or 0.",
		"peer", "link").Values("link", linkNames()...)
	peerKernel = metrics.Gauge("peer_kernel", "1 if the kernel carries the frames to a live peer, 0 if userspace does.", "peer")

	txBytes  = metrics.Counter("peer_transmit_bytes_total", "Bytes of frames sent to a peer, without the headers on the wire.", "peer")
	txFrames = metrics.Counter("peer_transmit_frames_total", "Frames sent to a peer.", "peer")
	rxBytes  = metrics.Counter("peer_receive_bytes_total", "Bytes of frames received from a peer.", "peer")
	rxFrames = metrics.Counter("peer_receive_frames_total", "Frames received from a peer.", "peer")
	peerMTU  = metrics.Gauge("peer_mtu_bytes", "Largest packet of a pod that the path to a peer takes.", "peer")
	peerRTT  = metrics.Gauge("peer_rtt_seconds",
		"Round-trip time to a peer, as measured by the probes of its path; 0 if unknown.", "peer")
	peerSession    = metrics.Gauge("peer_session_age_seconds", "Age of the session with a peer; no series if there is none.", "peer")
	peerHandshakes = metrics.Counter("peer_handshakes_total",
		"Handshakes that this node has begun with a peer, answered or not.", "peer")
	peerSessions = metrics.Counter("peer_sessions_total",
		"Sessions that were made with a peer, by handshakes that either node began.", "peer")
	peerRekeys  = metrics.Counter("peer_rekeys_total", "Sessions with a peer that replaced another one.", "peer")
	peerRelayed = metrics.Gauge("peer_relayed", "1 if frames for a peer are sent over another node, else 0.", "peer")
	peerPorts   = metrics.Gauge("peer_entropy_ports",
		"Ports besides the data port from which frames to a peer leave, so that network paths and the cores of the peer share the work.", "peer")
	peerDrops   = metrics.Counter("peer_drops_total", "Frames and datagrams from or to a peer that were dropped.", "peer", "reason")
	peerForeign = metrics.Counter("peer_foreign_source_frames_total",
		"Sealed frames received from a peer with a source address that another node gives out, dropped or not.", "peer")

	kernelFrames = metrics.Counter("peer_kernel_frames_total",
		"Frames that the kernel carried to a peer (transmit) or from it (receive), including probes of that path. A superframe counts as one.",
		"peer", "direction").Values("direction", directions...)
	kernelBytes = metrics.Counter("peer_kernel_bytes_total", "Bytes of the frames that the kernel carried to a peer or from it.",
		"peer", "direction").Values("direction", directions...)
)

const (
	transmit = "transmit"
	receive  = "receive"
)

var directions = []string{receive, transmit}

// rttBuckets are the upper bounds of the buckets of round-trip times, in seconds.
var rttBuckets = []float64{0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1}

func linkNames() (names []string) {
	for _, l := range api.Links() {
		names = append(names, string(l))
	}
	return names
}

// Metrics returns the metrics of this package, for documentation.
func Metrics() *metricdef.Table { return &metrics }

// Peer is a live peer.
type Peer struct {
	ID     peer.ID
	Name   string
	Addr   netip.AddrPort // of its data socket
	Link   api.Link
	Kernel bool // the kernel carries its frames
}

// Source is where a collector reads at every scrape.
type Source interface {
	// Live returns the live peers, in any order.
	Live() []Peer
	// Stats returns what the router has counted; not ok while the datapath is not up.
	Stats() (stats router.Stats, ok bool)
	// KernelCounts returns what the kernel has carried from and to each peer.
	KernelCounts() map[peer.ID]carrier.Counts
}

type collector struct {
	source Source
	most   int
}

// New returns a collector of the metrics of peers, to be registered by the caller. With more than most live peers it has sums only.
func New(s Source, most int) prometheus.Collector { return collector{s, most} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	peers := c.source.Live()
	few := len(peers) <= c.most
	each.SendBool(ch, few)
	collectLive(ch, peers, few)
	stats, up := c.source.Stats()
	if !up {
		return
	}
	collectTotals(ch, stats)
	if !few {
		return
	}
	for _, p := range stats.Peers {
		collectPeer(ch, p)
	}
	for id, k := range c.source.KernelCounts() {
		kernelFrames.Send(ch, float64(k.TxFrames), id.String(), transmit)
		kernelFrames.Send(ch, float64(k.RxFrames), id.String(), receive)
		kernelBytes.Send(ch, float64(k.TxBytes), id.String(), transmit)
		kernelBytes.Send(ch, float64(k.RxBytes), id.String(), receive)
	}
}

// collectLive sends what is known of live peers without the datapath.
func collectLive(ch chan<- prometheus.Metric, peers []Peer, few bool) {
	kernel, links := 0, map[api.Link]int{}
	for _, p := range peers {
		links[p.Link]++
		if p.Kernel {
			kernel++
		}
		if !few {
			continue
		}
		id := p.ID.String()
		peerInfo.Send(ch, 1, id, p.Name, p.Addr.String())
		for _, l := range api.Links() {
			peerLink.SendBool(ch, l == p.Link, id, string(l))
		}
		peerKernel.SendBool(ch, p.Kernel, id)
	}
	for _, l := range api.Links() {
		live.Send(ch, float64(links[l]), string(l))
	}
	byKernel.Send(ch, float64(kernel))
}

// collectTotals sends the sums over peers.
func collectTotals(ch chan<- prometheus.Metric, s router.Stats) {
	t := s.Total
	frames.Send(ch, float64(t.TxFrames), transmit)
	frames.Send(ch, float64(t.RxFrames), receive)
	bytes.Send(ch, float64(t.TxBytes), transmit)
	bytes.Send(ch, float64(t.RxBytes), receive)
	handshakes.Send(ch, float64(t.Sessions.Initiations))
	sessions.Send(ch, float64(t.Sessions.Sessions))
	rekeys.Send(ch, float64(t.Sessions.Rekeys))
	foreign.Send(ch, float64(t.Foreign))
	present, known, sum, buckets := 0, uint64(0), 0.0, map[float64]uint64{}
	for _, b := range rttBuckets {
		buckets[b] = 0
	}
	for _, p := range s.Peers {
		if p.Session > 0 {
			present++
		}
		if p.RTT == 0 {
			continue
		}
		known++
		sum += p.RTT.Seconds()
		for _, b := range rttBuckets {
			if p.RTT.Seconds() <= b {
				buckets[b]++
			}
		}
	}
	inSession.Send(ch, float64(present))
	roundTrips.SendHistogram(ch, known, sum, buckets)
}

// collectPeer sends the samples of one peer.
func collectPeer(ch chan<- prometheus.Metric, p router.PeerStats) {
	id := p.ID.String()
	txBytes.Send(ch, float64(p.TxBytes), id)
	txFrames.Send(ch, float64(p.TxFrames), id)
	rxBytes.Send(ch, float64(p.RxBytes), id)
	rxFrames.Send(ch, float64(p.RxFrames), id)
	peerMTU.Send(ch, float64(p.MTU), id)
	peerRTT.Send(ch, p.RTT.Seconds(), id)
	if p.Session > 0 {
		peerSession.Send(ch, p.Session.Seconds(), id)
	}
	peerHandshakes.Send(ch, float64(p.Sessions.Initiations), id)
	peerSessions.Send(ch, float64(p.Sessions.Sessions), id)
	peerRekeys.Send(ch, float64(p.Sessions.Rekeys), id)
	peerRelayed.SendBool(ch, p.Relayed, id)
	peerPorts.Send(ch, float64(p.EntropyPorts), id)
	peerForeign.Send(ch, float64(p.Foreign.Frames), id)
	for reason, n := range p.Drops {
		peerDrops.Send(ch, float64(n), id, reason.String())
	}
}
