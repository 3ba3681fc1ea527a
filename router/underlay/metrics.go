package underlay

import (
	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metricdef"
)

// metrics declares the metrics of the sockets. Names and labels are an interface: dashboards and alerts depend on them.
var metrics metricdef.Table

var (
	metricMessages = metrics.Counter("underlay_messages_total",
		"Messages that the sockets for data sent to the kernel (transmit) and received from it (receive): each crosses its network stack once.",
		"direction").Values("direction", "receive", "transmit")
	metricDatagrams = metrics.Counter("underlay_datagrams_total",
		"Datagrams in the messages of weft_underlay_messages_total. Datagrams divided by messages is the gain by GSO (transmit) and GRO "+
			"(receive): 1 is no gain.", "direction").Values("direction", "receive", "transmit")
	metricTruncated = metrics.Counter("underlay_truncated_total",
		"Messages that were dropped because they were longer than their buffers.")
	metricUnsegmented = metrics.Counter("underlay_unsegmented_total",
		"Messages that the kernel refused to cut into datagrams, which were then sent one by one.")
	metricGSODisabled = metrics.Gauge("underlay_gso_disabled",
		"Sockets for data, entropy ports included, that disabled GSO because the kernel or a device does not support it. "+
			"Sockets that were configured without GSO are not counted.")
	metricReports = metrics.Counter("underlay_reports_total",
		"Errors that the network reported about sent datagrams: no socket at the destination (refused), no route to it (unreachable), "+
			"larger than the MTU of a link on the path (too_long).", "error").Values("error", "other", "refused", "too_long", "unreachable")
)

// Metrics returns the declarations of the metrics.
func Metrics() *metricdef.Table { return &metrics }

// Source is a socket with Stats.
type Source interface{ Stats() Stats }

// Collector returns the metrics of all sockets, added up, for a registry of the caller. The slice must not change.
func Collector[S Source](sockets []S) prometheus.Collector { return collector[S](sockets) }

// collector reads the counters of sockets when it is scraped.
type collector[S Source] []S

// Describe implements prometheus.Collector.
func (collector[S]) Describe(ch chan<- *prometheus.Desc) { metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (c collector[S]) Collect(ch chan<- prometheus.Metric) {
	var sum Stats
	for _, socket := range c {
		sum.add(socket.Stats())
	}
	metricMessages.Send(ch, float64(sum.SendMessages), "transmit")
	metricMessages.Send(ch, float64(sum.ReceiveMessages), "receive")
	metricDatagrams.Send(ch, float64(sum.SendDatagrams), "transmit")
	metricDatagrams.Send(ch, float64(sum.ReceiveDatagrams), "receive")
	metricTruncated.Send(ch, float64(sum.Truncated))
	metricUnsegmented.Send(ch, float64(sum.Unsegmented))
	metricReports.Send(ch, float64(sum.Reports.Refused), "refused")
	metricReports.Send(ch, float64(sum.Reports.Unreachable), "unreachable")
	metricReports.Send(ch, float64(sum.Reports.TooLong), "too_long")
	metricReports.Send(ch, float64(sum.Reports.Other), "other")
	metricGSODisabled.Send(ch, float64(sum.GSODisabled))
}
