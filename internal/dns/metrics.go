package dns

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	queriesDesc = prometheus.NewDesc("weft_dns_queries_total", "Queries, by result.", []string{"result"}, nil)
	namesDesc   = prometheus.NewDesc("weft_dns_names", "Names known, those of nodes that are not alive among them.", nil, nil)
	beyondDesc  = prometheus.NewDesc("weft_dns_entries_refused_total", "Entries heard of that there was no room for.", nil, nil)
)

// counts is how many queries had which result.
type counts struct {
	answered, nodata, nxdomain, forwarded, failed, refused atomic.Uint64
}

// byResult returns the counters under the names that operators see.
func (c *counts) byResult() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		"answered":  &c.answered,  // with a record
		"nodata":    &c.nodata,    // the name has none of the type
		"nxdomain":  &c.nxdomain,  // no such name
		"forwarded": &c.forwarded, // with what a resolver of the host said, whatever it was
		"failed":    &c.failed,    // no resolver answered, or too many queries wait for one
		"refused":   &c.refused,   // not asked by who may, or not what can be asked
	}
}

// collector reads a Server's counters when it is scraped.
type collector struct{ server *Server }

// Collector returns the metrics of the server and of its Registry.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queriesDesc, namesDesc, beyondDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for result, n := range c.server.counts.byResult() {
		ch <- prometheus.MustNewConstMetric(queriesDesc, prometheus.CounterValue, float64(n.Load()), result)
	}
	names, refused := c.server.cfg.Names.names()
	ch <- prometheus.MustNewConstMetric(namesDesc, prometheus.GaugeValue, float64(names))
	ch <- prometheus.MustNewConstMetric(beyondDesc, prometheus.CounterValue, float64(refused))
}
