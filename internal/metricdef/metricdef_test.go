package metricdef_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/metricdef"
)

var (
	table  metricdef.Table
	frames = table.Counter("frames_total", "Frames.", "direction").Values("direction", "transmit", "receive")
	up     = table.Gauge("up", "Whether it is up.")
	sizes  = table.Histogram("sizes", "Sizes.")
)

// collector sends one sample of each metric.
type collector struct{}

func (collector) Describe(ch chan<- *prometheus.Desc) { table.Describe(ch) }

func (collector) Collect(ch chan<- prometheus.Metric) {
	frames.Send(ch, 3, "transmit")
	up.SendBool(ch, true)
	sizes.SendHistogram(ch, 2, 5, map[float64]uint64{1: 1, 4: 2})
}

func TestSamplesAreOfTheDeclaredMetrics(t *testing.T) {
	want := `
# HELP weft_frames_total Frames.
# TYPE weft_frames_total counter
weft_frames_total{direction="transmit"} 3
# HELP weft_sizes Sizes.
# TYPE weft_sizes histogram
weft_sizes_bucket{le="1"} 1
weft_sizes_bucket{le="4"} 2
weft_sizes_bucket{le="+Inf"} 2
weft_sizes_sum 5
weft_sizes_count 2
# HELP weft_up Whether it is up.
# TYPE weft_up gauge
weft_up 1
`
	if err := testutil.CollectAndCompare(collector{}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	m := table.Metrics()
	if len(m) != 3 || m[0].Name != "weft_frames_total" || m[0].Type != metricdef.Counter || m[0].Labels[0] != "direction" ||
		!slices.Equal(frames.ValuesOf("direction"), []string{"receive", "transmit"}) || up.ValuesOf("x") != nil {
		t.Errorf("%+v", m)
	}
}
