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

// Heading is the heading of the section that WriteDoc writes. The section must be the last one of its page.
const Heading = "## Scale"

// WriteDoc writes results as the last section of the page at path and replaces an earlier one. It writes the plot into
// a folder beside the page, named like the page in lower case.
func WriteDoc(results []Result, path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	folder := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	before, after, _ := strings.Cut(string(page), "\n"+Heading+"\n")
	text := strings.TrimRight(before, "\n") + "\n\n" + Markdown(results, folder+"/")
	if _, next, ok := strings.Cut(after, "\n## "); ok {
		text += "\n## " + next
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	return plotResults(results, filepath.Join(filepath.Dir(path), folder, "scale.svg"))
}

// Markdown returns the section. folder is the prefix of the link to the plot, such as "benchmarks/".
func Markdown(results []Result, folder string) string {
	var b strings.Builder
	b.WriteString(Heading + `

The cost of mesh and allocator per node.
All nodes run in one process on a network in memory.
They share the machine's cores, so the times are longer than on separate machines.
The nodes are started one after another, every quarter of a second, or every half second in the largest network.
Each node gets the addresses of two others.
The times count from the start of the last node.
20 nodes are bootstrap nodes.
More than 500 nodes are too many for two cores: each join costs every other node half a millisecond or more.
The numbers in parentheses are ratios to the smallest network of the same run.
To repeat the measurement:

    bin/weft-bench scale --doc docs/BENCHMARKS.md

| nodes | all know all | all have addresses | same ring on all | gossip sent per node, idle | memory per node | CPU per node, idle |
|---|---|---|---|---|---|---|
`)
	for _, r := range results {
		first := results[0]
		fmt.Fprintf(&b, "| %d | %.1f s | %.1f s | %.1f s | %.0f B/s (%.2f x) | %.2f MiB (%.2f x) | %.3f %% of a core |\n",
			r.Nodes, r.Known, r.Ready, r.Agreed, r.Bytes, r.Bytes/first.Bytes, r.Heap/(1<<20), r.Heap/first.Heap, 100*r.CPU)
	}
	fmt.Fprintf(&b, "\n![Cost per node by the number of nodes](%sscale.svg)\n", folder)
	return b.String()
}

// curve is one line of the plot. Each curve has its own panel.
type curve struct {
	title string
	value func(Result) float64
}

var curves = []curve{
	{"time to one network, s", func(r Result) float64 { return r.Agreed }},
	{"idle gossip per node, B/s", func(r Result) float64 { return r.Bytes }},
	{"memory per node, MiB", func(r Result) float64 { return r.Heap / (1 << 20) }},
}

// plotResults draws the curves side by side, over the number of nodes on a logarithmic scale, into an SVG file.
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
