// Package metricdef declares Prometheus metrics: each package lists its metrics once, in a Table, from which come their
// descriptions, their samples and docs/METRICS.md.
//
//	var table metricdef.Table
//
//	var floods = table.Counter("floods_total", "Frames that were sent to all peers.")
//
// A collector then calls table.Describe, and Send for each sample.
package metricdef

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace starts the names of all metrics.
const namespace = "weft_"

// Type is the type of a metric, as the Prometheus text format names it. The zero Type is invalid.
type Type string

// Types of metrics.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Metric describes one metric. It is constant.
type Metric struct {
	Name   string // with the namespace
	Help   string // a full sentence
	Type   Type
	Labels []string            // variable labels, in the order in which Send expects their values
	values map[string][]string // all values of labels that have a fixed set of them
	desc   *prometheus.Desc
}

// Table holds the metrics of one package. The zero Table is empty. It is filled by package-level variables and constant
// afterwards.
type Table struct{ metrics []*Metric }

// Counter declares a counter, by its name without the namespace.
func (t *Table) Counter(name, help string, labels ...string) *Metric {
	return t.add(name, help, Counter, labels)
}

// Gauge declares a gauge, by its name without the namespace.
func (t *Table) Gauge(name, help string, labels ...string) *Metric {
	return t.add(name, help, Gauge, labels)
}

// Histogram declares a histogram, by its name without the namespace.
func (t *Table) Histogram(name, help string, labels ...string) *Metric {
	return t.add(name, help, Histogram, labels)
}

func (t *Table) add(name, help string, typ Type, labels []string) *Metric {
	m := &Metric{Name: namespace + name, Help: help, Type: typ, Labels: labels}
	m.desc = prometheus.NewDesc(m.Name, help, labels, nil)
	t.metrics = append(t.metrics, m)
	return m
}

// Values declares that a label has only the given values, and returns m.
func (m *Metric) Values(label string, values ...string) *Metric {
	if m.values == nil {
		m.values = make(map[string][]string)
	}
	m.values[label] = slices.Sorted(slices.Values(values))
	return m
}

// ValuesOf returns the values that Values declared for a label, sorted; nil where the label can have any value.
func (m *Metric) ValuesOf(label string) []string { return m.values[label] }

// Metrics returns all metrics of the table, in the order of their declaration. The slice is the caller's.
func (t *Table) Metrics() []*Metric { return slices.Clone(t.metrics) }

// Describe sends all descriptions to ch, for the Describe of a prometheus.Collector.
func (t *Table) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range t.metrics {
		ch <- m.desc
	}
}

// Send sends a sample of a counter or gauge to ch, with a value for each label.
func (m *Metric) Send(ch chan<- prometheus.Metric, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if m.Type == Counter {
		kind = prometheus.CounterValue
	}
	ch <- prometheus.MustNewConstMetric(m.desc, kind, value, labels...)
}

// SendHistogram sends a sample of a histogram to ch: count observations with the given sum, and for each upper bound the
// number of observations at or below it.
func (m *Metric) SendHistogram(ch chan<- prometheus.Metric, count uint64, sum float64, buckets map[float64]uint64, labels ...string) {
	ch <- prometheus.MustNewConstHistogram(m.desc, count, sum, buckets, labels...)
}

// SendBool sends 1 for true and 0 for false.
func (m *Metric) SendBool(ch chan<- prometheus.Metric, value bool, labels ...string) {
	if value {
		m.Send(ch, 1, labels...)
		return
	}
	m.Send(ch, 0, labels...)
}
