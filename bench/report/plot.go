package report

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"weft/bench/sample"
)

// chart is a picture with one group of bars per driver.
type chart struct {
	name, title, unit string
	bars              []column
}

// charts are the pictures of a report.
var charts = []chart{
	{"throughput", "TCP throughput, median of the rounds", "Gbit/s",
		[]column{{"1 stream", "tcp1", sample.Gbps}, {"4 streams", "tcp4", sample.Gbps}}},
	{"cpu", "CPU of the daemons per GB, median of the rounds, lower is better", "s/GB",
		[]column{{"1 stream", "tcp1", sample.DaemonCPU}, {"4 streams", "tcp4", sample.DaemonCPU}}},
	{"latency", "Round-trip time of ping, median of the rounds, lower is better", "µs",
		[]column{{"p50", "ping", sample.P50}, {"p99", "ping", sample.P99}}},
	{"latency-bulk", "Round-trip time of ping during a TCP stream, median of the rounds, lower is better", "µs",
		[]column{{"p50", "ping-bulk", sample.P50}, {"p99", "ping-bulk", sample.P99}}},
}

// formats are the file formats in which each picture is written.
var formats = []string{".svg", ".png"}

// Size of a picture.
const (
	barWidth    = 20 // points
	chartHeight = 3.6 * vg.Inch
	chartWidth  = 9 * vg.Inch
)

// palette has the colors of the bars in a group, which differ in brightness as well.
var palette = []color.Color{color.RGBA{0x1b, 0x4f, 0x72, 0xff}, color.RGBA{0x5d, 0xad, 0xe2, 0xff}, color.RGBA{0xe6, 0x7e, 0x22, 0xff}}

// Plot writes the pictures into a folder, for the first placement of each underlay. It omits pictures without any figure.
func Plot(r *sample.Results, dir string) error {
	for _, g := range byUnderlay(r.Settings()) {
		for _, c := range charts {
			if err := c.save(r, g[0], dir); err != nil {
				return fmt.Errorf("report: %s: %w", c.name, err)
			}
		}
	}
	return nil
}

// save writes the picture of one setting in all formats.
func (c chart) save(r *sample.Results, s sample.Setting, dir string) error {
	c.title = c.caption(r, s)
	p, err := c.plot(r.In(s))
	if err != nil || p == nil {
		return err
	}
	for _, format := range formats {
		if err := p.Save(chartWidth, chartHeight, filepath.Join(dir, c.file(r, s)+format)); err != nil {
			return err
		}
	}
	return nil
}

// file returns the name of the picture of a setting, without the format. That of the first setting of a run has no suffix.
func (c chart) file(r *sample.Results, s sample.Setting) string {
	if s == r.Settings()[0] {
		return c.name
	}
	return c.name + "-" + s.String()
}

// caption returns the title of the picture of a setting.
func (c chart) caption(r *sample.Results, s sample.Setting) string {
	if len(r.Settings()) == 1 {
		return c.title
	}
	return fmt.Sprintf("%s (%s)", c.title, s.Title())
}

// plot draws a chart; it returns nil if there is no figure.
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
		offset := vg.Points(barWidth * (float64(i) - float64(len(c.bars)-1)/2))
		if err := c.addBars(p, r, drivers, col, palette[i], offset); err != nil {
			return nil, err
		}
	}
	p.NominalX(drivers...)
	p.X.Min, p.X.Max = -0.6, float64(len(drivers))-0.4
	p.Y.Min = 0
	p.Y.Max *= 1.25 // room for the legend
	return p, nil
}

// addBars draws one bar per driver with its figure above it, and nothing for a driver without a figure.
func (c chart) addBars(p *plot.Plot, r *sample.Results, drivers []string, col column, fill color.Color, offset vg.Length) error {
	values := make(plotter.Values, len(drivers))
	var figures plotter.XYLabels
	for j, d := range drivers {
		s := r.Of(d, col.load, col.metric)
		if values[j] = s.Median; s.N > 0 {
			figures.XYs = append(figures.XYs, plotter.XY{X: float64(j), Y: s.Median})
			figures.Labels = append(figures.Labels, fmt.Sprintf("%.3g", s.Median))
		}
	}
	if len(figures.Labels) == 0 {
		return nil
	}
	bars, err := plotter.NewBarChart(values, vg.Points(barWidth))
	if err != nil {
		return err
	}
	bars.Color, bars.LineStyle.Width, bars.Offset = fill, 0, offset
	labels, err := plotter.NewLabels(figures)
	if err != nil {
		return err
	}
	labels.Offset = vg.Point{X: offset, Y: vg.Points(2)}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font.Size, labels.TextStyle[i].XAlign = vg.Points(7), draw.XCenter
	}
	p.Add(bars, labels)
	p.Legend.Add(col.title, bars)
	return nil
}

// drivers returns the names of the drivers with a figure in the chart.
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
