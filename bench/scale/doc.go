package scale

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Heading is the heading of the section that WriteDoc writes.
const Heading = "## Scale"

// WriteDoc writes results, at least one, as a section of the page at path, in the place of an earlier one. It writes the plot into
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

The cost of the control plane per node: mesh, allocator and registry of names, with a secret.
All nodes run in one process, on a network in memory with a latency of a millisecond or two, in virtual time.
So the times are those of nodes that have all the CPU that they need, on any machine.
CPU is that of the process, divided by the nodes and by the virtual time.
It includes the network in memory and the clock, and no disk.
All nodes are started within a minute.
Each of them gets the addresses of two of the 20 bootstrap nodes, requests two addresses for pods, and names them.
Then follow:

- idle: a minute without any change
- churn: for three minutes, one node in a hundred is restarted each minute, at least one, and as many report a broken
  link; every second restart takes half a minute
- rolling restart: all nodes are restarted within a minute, with their state
- partition: two halves without a connection for a minute, in which each node requests another address
- heal: the end of the partition

At the end no address is leased twice, and no lease is lost; otherwise the measurement fails.
The figures are those of one run.
The nodes draw random numbers of their own, so the times differ between runs, also with the same seed.
They are longer where gossip has missed a node: then an exchange of whole states repairs that.
To repeat it:

    bin/weft-bench scale --nodes ` + flags(results) + ` --doc docs/BENCHMARKS.md

Seconds from the last change until it lasted for ten seconds that every node knew all nodes alive,
that all pods had their addresses, and that all nodes had the same ring; and the memory of a node when idle:

| nodes | start: known | addresses | ring | churn: known | rolling restart: known | ring | heal: known | ring | memory |
|---|---|---|---|---|---|---|---|---|---|
`)
	for _, r := range results {
		start, churn, rolling, heal := r.Phase(PhaseStart), r.Phase(PhaseChurn), r.Phase(PhaseRolling), r.Phase(PhaseHeal)
		fmt.Fprintf(&b, "| %d | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.2f MiB |\n", r.Nodes, start.Known, start.Leased,
			start.Agreed, churn.Known, rolling.Known, rolling.Agreed, heal.Known, heal.Agreed, r.Heap/(1<<20))
	}
	b.WriteString(`
What a node sends, in bytes per second, with the share of streams in parentheses.
Streams are exchanges of whole states, and messages to one node; the rest is packets.

`)
	writeTable(&b, results, func(p Phase) string {
		return fmt.Sprintf("%.0f (%.0f %%)", p.Bytes(), 100*p.StreamBytes/p.Bytes())
	})
	b.WriteString(`
CPU per node, in percent of a core:

`)
	writeTable(&b, results, func(p Phase) string { return fmt.Sprintf("%.3f", 100*p.CPU) })
	b.WriteString(`
Packets that a node sends per second:

`)
	writeTable(&b, results, func(p Phase) string { return fmt.Sprintf("%.1f", p.Packets) })
	fmt.Fprintf(&b, "\n![Cost per node by the number of nodes](%sscale.svg)\n", folder)
	return b.String()
}

// flags returns the numbers of nodes and the seed as weft-bench takes them.
func flags(results []Result) string {
	var list []string
	for _, r := range results {
		list = append(list, strconv.Itoa(r.Nodes))
	}
	return fmt.Sprintf("%s --seed %d", strings.Join(list, ","), results[0].Seed)
}

// writeTable writes a table with a figure for each network and phase.
func writeTable(b *strings.Builder, results []Result, figure func(Phase) string) {
	b.WriteString("| nodes |")
	names := []string{PhaseStart, PhaseIdle, PhaseChurn, PhaseRolling, PhasePartition, PhaseHeal}
	for _, name := range names {
		fmt.Fprintf(b, " %s |", name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(names)) + "\n")
	for _, r := range results {
		fmt.Fprintf(b, "| %d |", r.Nodes)
		for _, name := range names {
			fmt.Fprintf(b, " %s |", figure(r.Phase(name)))
		}
		b.WriteString("\n")
	}
}

// curve is one line of the plot. Each curve has its own panel.
type curve struct {
	title string
	value func(Result) float64
}

var curves = []curve{
	{"time to one network, s", func(r Result) float64 { return r.Phase(PhaseStart).Agreed }},
	{"idle gossip per node, B/s", func(r Result) float64 { return r.Phase(PhaseIdle).Bytes() }},
	{"idle CPU per node, % of a core", func(r Result) float64 { return 100 * r.Phase(PhaseIdle).CPU }},
	{"memory per node, MiB", func(r Result) float64 { return r.Heap / (1 << 20) }},
}

// plotResults draws the curves side by side, over the number of nodes on a logarithmic scale, into an SVG file.
func plotResults(results []Result, path string) error {
	canvas := vgsvg.New(14*vg.Inch, 3.2*vg.Inch)
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
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("scale: %w", err)
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
