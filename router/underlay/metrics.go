package underlay

import "github.com/prometheus/client_golang/prometheus"

var (
	messagesDesc = prometheus.NewDesc("weft_underlay_messages_total", "Messages that the kernel took from the data sockets (transmit) and gave to them (receive): "+
		"each crosses its network stack once.", []string{"direction"}, nil)
	datagramsDesc = prometheus.NewDesc("weft_underlay_datagrams_total", "Datagrams that the messages of weft_underlay_messages_total held. How many there are to a message is what GSO "+
		"(transmit) and GRO (receive) save: 1 is nothing.", []string{"direction"}, nil)
	truncatedDesc   = prometheus.NewDesc("weft_underlay_truncated_total", "Messages that did not fit their buffers and were dropped.", nil, nil)
	unsegmentedDesc = prometheus.NewDesc("weft_underlay_unsegmented_total", "Messages that the kernel refused to cut into datagrams, which were then sent one by one.", nil, nil)
	gsoDisabledDesc = prometheus.NewDesc("weft_underlay_gso_disabled", "Data sockets that have given up GSO, as the kernel or a device does not do it. "+
		"Those that were told not to use it are not among them.", nil, nil)
	reportsDesc = prometheus.NewDesc("weft_underlay_reports_total", "Errors that the network has reported of datagrams sent: no socket there (refused), no way there "+
		"(unreachable), larger than a link on the way takes (too_long).", []string{"error"}, nil)
)

// Source is what has Stats: a UDP socket.
type Source interface{ Stats() Stats }

// Collector returns the metrics of sockets, all of them added up, for a registry of the caller's. The slice must not change.
func Collector[S Source](sockets []S) prometheus.Collector { return collector[S](sockets) }

// collector reads the counters of sockets when it is scraped.
type collector[S Source] []S

// Describe implements prometheus.Collector.
func (collector[S]) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{messagesDesc, datagramsDesc, truncatedDesc, unsegmentedDesc, gsoDisabledDesc, reportsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector[S]) Collect(ch chan<- prometheus.Metric) {
	var sum Stats
	for _, socket := range c {
		sum.add(socket.Stats())
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(messagesDesc, sum.SendMessages, "transmit")
	counter(messagesDesc, sum.ReceiveMessages, "receive")
	counter(datagramsDesc, sum.SendDatagrams, "transmit")
	counter(datagramsDesc, sum.ReceiveDatagrams, "receive")
	counter(truncatedDesc, sum.Truncated)
	counter(unsegmentedDesc, sum.Unsegmented)
	counter(reportsDesc, sum.Reports.Refused, "refused")
	counter(reportsDesc, sum.Reports.Unreachable, "unreachable")
	counter(reportsDesc, sum.Reports.TooLong, "too_long")
	counter(reportsDesc, sum.Reports.Other, "other")
	ch <- prometheus.MustNewConstMetric(gsoDisabledDesc, prometheus.GaugeValue, float64(sum.GSODisabled))
}
