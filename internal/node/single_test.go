package node

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// single collects the one series of weft_condition with the given code.
type single struct {
	prometheus.Collector
	code string
}

// Collect implements prometheus.Collector.
func (s single) Collect(ch chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric, 1<<10) // more than there are
	s.Collector.Collect(all)
	close(all)
	for m := range all {
		var d dto.Metric
		if m.Write(&d) != nil {
			continue
		}
		for _, l := range d.GetLabel() {
			if l.GetName() == "code" && l.GetValue() == s.code {
				ch <- m
			}
		}
	}
}
