package dns

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is an index of metrics.
type metric int

const (
	metricQueries metric = iota
	metricNames
	metricRefusedEntries
)

// metrics declares all metrics of the package.
var metrics = [...]struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
}{
	metricQueries: {"weft_dns_queries_total", "Queries, by result.", prometheus.CounterValue, []string{"result"}},
	metricNames:   {"weft_dns_names", "Names known, including those of nodes that are not alive.", prometheus.GaugeValue, nil},
	metricRefusedEntries: {
		"weft_dns_entries_refused_total", "Entries that were dropped because there was no room.",
		prometheus.CounterValue, nil,
	},
}

// descs are the descriptions of metrics.
var descs = func() (d [len(metrics)]*prometheus.Desc) {
	for i, m := range metrics {
		d[i] = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	return d
}()

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
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	send := func(m metric, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(descs[m], metrics[m].kind, value, labels...)
	}
	for result, n := range c.server.counts.byResult() {
		send(metricQueries, float64(n.Load()), result)
	}
	names, refused := c.server.cfg.Names.counts()
	send(metricNames, float64(names))
	send(metricRefusedEntries, float64(refused))
}
