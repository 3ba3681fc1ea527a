package underlay_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/router/underlay"
)

// counted is a socket with counters.
type counted underlay.Stats

// Stats implements underlay.Source.
func (c counted) Stats() underlay.Stats { return underlay.Stats(c) }

func TestCollector(t *testing.T) {
	collector := underlay.Collector([]counted{
		{
			SendMessages: 1, SendDatagrams: 64, ReceiveMessages: 2, ReceiveDatagrams: 3, Truncated: 4, Unsegmented: 5, GSODisabled: 1,
			Reports: underlay.ReportStats{Refused: 6, Unreachable: 7, TooLong: 8, Other: 9},
		},
		{SendMessages: 10, SendDatagrams: 10, ReceiveMessages: 10, ReceiveDatagrams: 10, Reports: underlay.ReportStats{Refused: 10}},
	})
	want := map[string]float64{
		`weft_underlay_messages_total{direction="transmit"}`: 11, `weft_underlay_messages_total{direction="receive"}`: 12,
		`weft_underlay_datagrams_total{direction="transmit"}`: 74, `weft_underlay_datagrams_total{direction="receive"}`: 13,
		`weft_underlay_truncated_total`: 4, `weft_underlay_unsegmented_total`: 5, `weft_underlay_gso_disabled`: 1,
		`weft_underlay_reports_total{error="refused"}`: 16, `weft_underlay_reports_total{error="unreachable"}`: 7,
		`weft_underlay_reports_total{error="too_long"}`: 8, `weft_underlay_reports_total{error="other"}`: 9,
	}
	for _, f := range gather(t, collector) {
		if v, ok := want[f.series]; !ok || v != f.value {
			t.Errorf("%s is %v, want %v", f.series, f.value, v)
		}
		delete(want, f.series)
	}
	for series := range want {
		t.Errorf("%s is missing", series)
	}
	if problems, err := testutil.CollectAndLint(collector); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	none := underlay.Collector([]counted(nil))
	if n := testutil.CollectAndCount(none); n != 11 {
		t.Errorf("%d series without a socket, want all at 0", n)
	}
}

type sample struct {
	series string
	value  float64
}

// gather returns the samples of a collector of counters and gauges with at most one label.
func gather(t *testing.T, c prometheus.Collector) (samples []sample) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			series := f.GetName()
			for _, l := range m.GetLabel() {
				series += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			samples = append(samples, sample{series, m.GetGauge().GetValue() + m.GetCounter().GetValue()})
		}
	}
	return samples
}
