package node

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"weft/internal/datapath"
	"weft/internal/dns"
	"weft/internal/health"
	"weft/internal/metricdef"
	"weft/internal/peer"
	"weft/internal/peermetrics"
	"weft/ipam"
	"weft/mesh"
	"weft/router"
	"weft/router/carrier"
	"weft/router/underlay"
)

var metrics metricdef.Table

// Metrics of the node as a whole. Its parts have their own.
var (
	buildInfo = metrics.Gauge("build_info", "Always 1: the version of weft, and of Go that built it.", "version", "goversion")
	nodeReady = metrics.Gauge("ready", "1 if a pod could join now, else 0.")
	warnings  = metrics.Gauge("warnings", "Number of conditions; \"weft status\" shows each with its remedy.")
	condition = metrics.Gauge("condition", "1 while a condition of this code holds, else 0; docs/OPERATIONS.md has a section for "+
		"each code.", "code", "severity").
		Values("severity", string(health.Info), string(health.Warning), string(health.Error)).Values("code", codes()...)
)

// codes returns the codes of all conditions.
func codes() (list []string) {
	for _, d := range health.Definitions() {
		list = append(list, string(d.Code))
	}
	return list
}

// metricTables returns the tables of all metrics of a node, for documentation.
func metricTables() []*metricdef.Table {
	return []*metricdef.Table{&metrics, mesh.Metrics(), ipam.Metrics(), dns.Metrics(), router.Metrics(), underlay.Metrics(),
		datapath.Metrics(), peermetrics.Metrics()}
}

// metrics returns all metrics of the node, which are read when they are scraped.
func (n *node) metrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		n.mesh.Collector(), n.ipam.Collector(), underlay.Collector(n.datapath.Sockets()), n.datapath.Collector(),
		nodeCollector{n.cfg.Version, n.health}, peermetrics.New(peers{n.mesh, n.datapath}, n.cfg.PeerMetrics),
	)
	if n.dns != nil {
		registry.MustRegister(n.dns.Collector())
	}
	return registry
}

// nodeCollector collects the metrics of the node as a whole.
type nodeCollector struct {
	version string
	health  *health.Registry
}

// Describe implements prometheus.Collector.
func (nodeCollector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	buildInfo.Send(ch, 1, c.version, runtime.Version())
	nodeReady.SendBool(ch, c.health.Ready())
	present := c.health.Conditions()
	warnings.Send(ch, float64(len(present)))
	holds := map[health.Code]bool{}
	for _, p := range present {
		holds[p.Code] = true
	}
	for _, d := range health.Definitions() {
		condition.SendBool(ch, holds[d.Code], string(d.Code), string(d.Severity))
	}
}

// peers are the other nodes as their metrics see them. It implements peermetrics.Source.
type peers struct {
	mesh     interface{ Members() []mesh.Member }
	datapath interface {
		Carrier(peer.ID) carrier.Kind
		Stats() (router.Stats, bool)
		KernelCounts() map[peer.ID]carrier.Counts
	}
}

// Live implements peermetrics.Source.
func (p peers) Live() (list []peermetrics.Peer) {
	for _, m := range p.mesh.Members() {
		if isLivePeer(m) {
			link, _ := linkOf(m)
			list = append(list, peermetrics.Peer{
				ID: m.ID, Name: m.Name, Addr: m.DataAddr(), Link: link, Kernel: p.datapath.Carrier(m.ID) != carrier.Userspace,
			})
		}
	}
	return list
}

// Stats implements peermetrics.Source.
func (p peers) Stats() (router.Stats, bool) { return p.datapath.Stats() }

// KernelCounts implements peermetrics.Source.
func (p peers) KernelCounts() map[peer.ID]carrier.Counts { return p.datapath.KernelCounts() }
