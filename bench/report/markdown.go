// Package report turns the results of a run into text, tables and pictures.
package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/bench/sample"
)

// noPictures is a value of Markdown's argument pictures that omits the pictures.
const noPictures = "-"

// Markdown returns the whole report. pictures is the prefix of links to pictures, such as "benchmarks/".
func Markdown(r *sample.Results, pictures string) string {
	var b strings.Builder
	head(&b, r)
	for _, s := range sections {
		s.markdown(&b, r, pictures)
	}
	targetTable(&b, r)
	comparisons(&b, r)
	facts(&b, r)
	trust(&b, r)
	return b.String()
}

// Text returns the report for a terminal, without links to pictures.
func Text(r *sample.Results) string { return Markdown(r, noPictures) }

// head writes what was run, on which machine, and how to read the tables.
func head(b *strings.Builder, r *sample.Results) {
	fmt.Fprintf(b, "# Benchmarks\n\nThe figures on this page are the unedited output of one run.\nTo repeat the run, as root:\n\n"+
		"    make build\n    %s\n\n", r.Command)
	if r.Interrupted {
		b.WriteString("**The run was interrupted before its end.**\n\n")
	}
	m := r.Machine
	table(b, []string{"", ""}, [][]string{
		{"date", r.Date.UTC().Format("2006-01-02 15:04 UTC")},
		{"weft", r.Weft},
		{"machine", fmt.Sprintf("%s, %d cores, %.0f GiB", m.CPU, m.Cores, m.MemoryGB)},
		{"system", fmt.Sprintf("Linux %s, built with %s, %s", m.Kernel, m.Go, m.Iperf3)},
		{"underlay", r.Underlay},
		{"settings", settingsText(r)},
		{"rounds", fmt.Sprintf("%d, each with all drivers in turn; %d s per load", r.Rounds, r.Seconds)},
	})
	b.WriteString(placementText(r) + "A cell has the median over the rounds, with the minimum and maximum in parentheses.\n" +
		"The bold number is the median of the ratios to vxlan **in the same round** and setting.\n" +
		"Lower is better for times and costs, higher is better for rates.\n" +
		"Ratios and CPU seconds per GB may be similar on other machines; Gbit/s are not.\n\n")
}

// settingsText lists the settings of the samples.
func settingsText(r *sample.Results) string {
	var titles []string
	for _, s := range r.Settings() {
		titles = append(titles, s.Title())
	}
	return strings.Join(titles, "; ")
}

// placementText explains the placements of the samples, one sentence a line.
func placementText(r *sample.Results) string {
	texts := map[sample.Placement]string{
		sample.Free: "Free: both hosts and both ends of each load share all cores.\n",
		sample.Pinned: "Pinned: each host, with its daemon, pods and load processes, has its own share of the cores.\n" +
			"The kernel receives packets on the cores of the receiving host (receive packet steering).\n" +
			"Separate machines differ in one point: the link itself costs CPU time on the core of the sender.\n" +
			"That is the switch and, with the plain underlay, segmenting and coalescing packets.\n",
	}
	var b strings.Builder
	for _, p := range []sample.Placement{sample.Free, sample.Pinned} {
		if slices.ContainsFunc(r.Settings(), func(s sample.Setting) bool { return s.Placement == p }) {
			b.WriteString(texts[p])
		}
	}
	return b.String()
}

// targetTable writes the targets, with the measured figures in each setting and whether they are met.
func targetTable(b *strings.Builder, r *sample.Results) {
	b.WriteString("## Targets\n\nEach target has a limit that weft must reach, and an aim beyond it.\n" +
		"Ratios are medians of the ratios in the same round.\n\n")
	header := []string{"target", "must", "aim"}
	for _, s := range r.Settings() {
		header = append(header, s.Title())
	}
	var rows [][]string
	for _, t := range targets {
		row := []string{t.what, t.limit(t.must), t.limit(t.aim)}
		for _, s := range r.Settings() {
			row = append(row, t.cell(r, s))
		}
		rows = append(rows, row)
	}
	table(b, header, rows)
}

// facts writes the facts about each driver, load and kernel setting.
func facts(b *strings.Builder, r *sample.Results) {
	b.WriteString("## Drivers and loads\n\n")
	var rows [][]string
	for _, d := range r.Drivers {
		if d.Unavailable != "" {
			rows = append(rows, []string{d.Name, d.Summary, "", "", "", "not available: " + cellText(d.Unavailable)})
			continue
		}
		f := d.Facts
		cipher := "plain"
		if f.Encrypted {
			cipher = f.Cipher
		}
		mtu := ""
		if f.MTU > 0 {
			mtu = fmt.Sprint(f.MTU)
		}
		setup := strings.Join(append([]string{"between " + f.Ends}, f.Tuned...), "; ")
		rows = append(rows, []string{d.Name, d.Summary, f.Version, mtu, cipher, cellText(setup)})
	}
	table(b, []string{"driver", "description", "version", "MTU", "traffic", "setup"}, rows)
	rows = nil
	for _, l := range r.Loads {
		rows = append(rows, []string{l.Name, l.Summary})
	}
	table(b, []string{"load", "description"}, rows)
	rows = nil
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Sysctls)) {
		rows = append(rows, []string{name, r.Machine.Sysctls[name]})
	}
	if len(rows) > 0 {
		table(b, []string{"sysctl", "value"}, rows)
	}
}

// cellText escapes text for a cell of a table.
func cellText(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// trust writes how many samples were disturbed or failed, and the limits of the method.
func trust(b *strings.Builder, r *sample.Results) {
	busy, failed, repeated := 0, 0, 0
	var failures []string
	for _, s := range r.Samples {
		switch {
		case s.Error != "":
			failed++
			failures = append(failures, fmt.Sprintf("- round %d, %s, %s, %s: %s\n", s.Round, s.Setting, s.Driver, s.Load, s.Error))
		case s.Busy:
			busy++
		}
		if s.Tries > 1 {
			repeated++
		}
	}
	fmt.Fprintf(b, "## Limits of the figures\n\n%d samples: %d were repeated, %d failed.\n"+
		"%d were disturbed in all tries by other work, of more than a quarter of a core.\n\n", len(r.Samples), repeated, failed, busy)
	if len(failures) > 0 {
		b.WriteString(strings.Join(failures, "") + "\n")
	}
	b.WriteString(`- Hosts are network namespaces of one machine.
  The figures do not predict the behavior with a network card.
- Throughput on few shared cores has two modes: the scheduler places sender and receiver on the same core, or not.
  Single ratios of throughput vary by up to a factor of two, CPU seconds per GB by about 15 %.
- If CPUs sleep between packets, round-trip times are mostly the cost of waking them, in particular on virtual machines.
- Layer 3 tunnels run between the hosts themselves.
  They have no bridge and no veth of a pod in the path, unlike vxlan and weft.
- Each driver has its largest MTU, stated above, and otherwise its defaults.
`)
}
