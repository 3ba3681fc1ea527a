package report

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"weft/bench/sample"
)

// chart is a picture: groups of bars, a group a driver.
type chart struct {
	name, title, unit string
	bars              []column
}

// charts are the pictures of a report.
var charts = []chart{
	{"throughput", "TCP throughput from pod to pod, median", "Gbit/s", []column{{"1 stream", "tcp1", sample.Gbps}, {"4 streams", "tcp4", sample.Gbps}}},
	{"cpu", "CPU of the daemons a GB, median, lower is better", "s/GB", []column{{"1 stream", "tcp1", sample.DaemonCPU}, {"4 streams", "tcp4", sample.DaemonCPU}}},
	{"latency", "Round trip of ping, median of the rounds, lower is better", "µs", []column{
		{"idle p50", "ping", sample.P50}, {"idle p99", "ping", sample.P99}, {"under bulk p50", "ping-bulk", sample.P50}}},
}

// formats are those that each picture is written in.
var formats = []string{".svg", ".png"}

// Size of a picture.
const (
	barWidth    = 14 // points
	chartHeight = 3.6 * vg.Inch
	chartWidth  = 9 * vg.Inch
)

// palette tells the bars of a group apart, also without colours.
var palette = []color.Color{color.RGBA{0x1b, 0x4f, 0x72, 0xff}, color.RGBA{0x5d, 0xad, 0xe2, 0xff}, color.RGBA{0xe6, 0x7e, 0x22, 0xff}}

// Plot writes the pictures into a folder; one that nothing was measured for is left out.
func Plot(r *sample.Results, dir string) error {
	for _, c := range charts {
		p, err := c.plot(r)
		if err != nil {
			return fmt.Errorf("report: %s: %w", c.name, err)
		}
		if p == nil {
			continue
		}
		for _, format := range formats {
			if err := p.Save(chartWidth, chartHeight, filepath.Join(dir, c.name+format)); err != nil {
				return fmt.Errorf("report: %s: %w", c.name, err)
			}
		}
	}
	return nil
}

// plot draws a chart; nil where there is nothing to draw.
func (c chart) plot(r *sample.Results) (*plot.Plot, error) {
	drivers := c.drivers(r)
	if len(drivers) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = c.title, c.unit
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for i, col := range c.bars {
		values := make(plotter.Values, len(drivers))
		for j, d := range drivers {
			values[j] = r.Of(d, col.load, col.metric).Median // 0 where it has none
		}
		bars, err := plotter.NewBarChart(values, vg.Points(barWidth))
		if err != nil {
			return nil, err
		}
		bars.Color, bars.LineStyle.Width = palette[i], 0
		bars.Offset = vg.Points(barWidth * (float64(i) - float64(len(c.bars)-1)/2))
		p.Add(bars)
		p.Legend.Add(col.title, bars)
	}
	p.NominalX(drivers...)
	p.Y.Min = 0
	p.Y.Max *= 1.25 // room for the legend
	return p, nil
}

// drivers returns those with a figure in the chart.
func (c chart) drivers(r *sample.Results) (names []string) {
	for _, d := range r.Drivers {
		for _, col := range c.bars {
			if r.Of(d.Name, col.load, col.metric).N > 0 {
				names = append(names, d.Name)
				break
			}
		}
	}
	return names
}
