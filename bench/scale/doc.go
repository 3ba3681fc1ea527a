package scale

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Heading starts the section that WriteDoc writes; it is the last one of its page.
const Heading = "## Scale"

// WriteDoc writes results as the last section of a page of documentation, in place of an earlier one, and the plot into
// the folder beside it with the page's name in lower case.
func WriteDoc(results []Result, path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	folder := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	before, _, _ := strings.Cut(string(page), "\n"+Heading+"\n")
	text := strings.TrimRight(before, "\n") + "\n\n" + Markdown(results, folder+"/")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	return plotResults(results, filepath.Join(filepath.Dir(path), folder, "scale.svg"))
}

// Markdown returns the section; the plot is in folder.
func Markdown(results []Result, folder string) string {
	var b strings.Builder
	b.WriteString(Heading + `

What mesh and allocator cost a node, with all nodes in one process on a network in memory; they share the machine's cores,
so the times are those of a machine with as many nodes on it. One after the other is started, each quarter of a second or of the largest
network each half a second, and told of two others; the times count from the last. 20 found. More than 500 are too much for two cores:
whoever joins costs each node that is there half a millisecond or more.
In parentheses the ratio to the smallest network in the same run. To have it again:

    bin/weft-bench scale --doc docs/BENCHMARKS.md

| nodes | all know all | all have addresses | one view of the ring | gossip sent a node, idle | memory a node | CPU a node, idle |
|---|---|---|---|---|---|---|
`)
	for _, r := range results {
		first := results[0]
		fmt.Fprintf(&b, "| %d | %.1f s | %.1f s | %.1f s | %.0f B/s (%.2f x) | %.2f MiB (%.2f x) | %.3f %% of a core |\n",
			r.Nodes, r.Known, r.Ready, r.Agreed, r.Bytes, r.Bytes/first.Bytes, r.Heap/(1<<20), r.Heap/first.Heap, 100*r.CPU)
	}
	fmt.Fprintf(&b, "\n![Cost of a node as the network grows](%sscale.svg)\n", folder)
	return b.String()
}

// curve is one line of the plot, which has a panel each.
type curve struct {
	title string
	value func(Result) float64
}

var curves = []curve{
	{"one network after, s", func(r Result) float64 { return r.Agreed }},
	{"gossip a node idle, B/s", func(r Result) float64 { return r.Bytes }},
	{"memory a node, MiB", func(r Result) float64 { return r.Heap / (1 << 20) }},
}

// plotResults draws the curves side by side over the number of nodes, which has a logarithmic scale.
func plotResults(results []Result, path string) error {
	canvas := vgsvg.New(11*vg.Inch, 3.2*vg.Inch)
	panels := draw.Tiles{Rows: 1, Cols: len(curves), PadX: 16, PadTop: 4, PadBottom: 4, PadLeft: 4, PadRight: 8}
	for i, c := range curves {
		p := plot.New()
		p.Title.Text, p.X.Label.Text = c.title, "nodes"
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.Add(plotter.NewGrid())
		var points plotter.XYs
		for _, r := range results {
			points = append(points, plotter.XY{X: float64(r.Nodes), Y: c.value(r)})
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("scale: %w", err)
		}
		line.Color = color.RGBA{0x1b, 0x4f, 0x72, 0xff}
		p.Add(line, dots)
		p.Y.Min = 0
		p.Draw(panels.At(draw.New(canvas), i, 0))
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("scale: %w", err)
	}
	return f.Close()
}
