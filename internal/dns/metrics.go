package dns

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metricdef"
)

// metrics declares all metrics of the package.
var metrics metricdef.Table

var (
	queriesMetric = metrics.Counter("dns_queries_total", "Queries, by result.", "result").
			Values("result", "answered", "failed", "forwarded", "nodata", "nxdomain", "refused")
	namesMetric   = metrics.Gauge("dns_names", "Names known, including those of nodes that are not alive.")
	refusedMetric = metrics.Counter("dns_entries_refused_total", "Entries that were dropped because there was no room.")
)

// Metrics returns the metrics of this package, for documentation.
func Metrics() *metricdef.Table { return &metrics }

// counts counts queries by result.
type counts struct {
	answered, nodata, nxdomain, forwarded, failed, refused atomic.Uint64
}

// byResult returns the counters by the value of the label.
func (c *counts) byResult() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		"answered":  &c.answered,  // with a record
		"nodata":    &c.nodata,    // the name has no record of the type
		"nxdomain":  &c.nxdomain,  // no such name
		"forwarded": &c.forwarded, // with the reply of a resolver of the host, of any kind
		"failed":    &c.failed,    // no resolver answered, or too many queries wait for one
		"refused":   &c.refused,   // the client is not served, or the query is not allowed
	}
}

// collector reads a Server's counters when it is scraped.
type collector struct{ server *Server }

// Collector returns the metrics of the server and of its Registry.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for result, n := range c.server.counts.byResult() {
		queriesMetric.Send(ch, float64(n.Load()), result)
	}
	names, refused := c.server.cfg.Names.counts()
	namesMetric.Send(ch, float64(names))
	refusedMetric.Send(ch, float64(refused))
}
