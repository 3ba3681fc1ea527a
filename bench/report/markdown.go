// Package report turns the results of a run into text, tables and pictures.
package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/bench/sample"
)

// noPictures as the folder of pictures leaves them out.
const noPictures = "-"

// Markdown returns the whole report; pictures is what their names are prefixed with in links, such as "benchmarks/".
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

// Text returns the report for a terminal: the same without links to pictures.
func Text(r *sample.Results) string { return Markdown(r, noPictures) }

// head says what was run, where, and how to read it.
func head(b *strings.Builder, r *sample.Results) {
	fmt.Fprintf(b, "# Benchmarks\n\nThis page is the output of one run; nothing in it was typed. To have it again, as root:\n\n    make build\n    %s\n\n", r.Command)
	if r.Interrupted {
		b.WriteString("**The run was ended early.**\n\n")
	}
	m := r.Machine
	table(b, []string{"", ""}, [][]string{
		{"date", r.Date.UTC().Format("2006-01-02 15:04 UTC")},
		{"weft", r.Weft},
		{"machine", fmt.Sprintf("%s, %d cores, %.0f GiB", m.CPU, m.Cores, m.MemoryGB)},
		{"system", fmt.Sprintf("Linux %s, built with %s, %s", m.Kernel, m.Go, m.Iperf3)},
		{"underlay", r.Underlay},
		{"rounds", fmt.Sprintf("%d, all drivers in turn in each; %d s a load", r.Rounds, r.Seconds)},
	})
	b.WriteString("Everything, both hosts and both ends of each load, shares these cores. A cell is the median over the rounds, the lowest and the highest " +
		"in parentheses, and in bold the median of the ratios to vxlan **in the same round**: lower is better for times and costs, higher for rates. " +
		"CPU seconds a GB and ratios are what another machine may see again; Gbit/s are not.\n\n")
}

// targetTable says what of the targets was met.
func targetTable(b *strings.Builder, r *sample.Results) {
	b.WriteString("## Targets\n\nWhat weft must reach, and what it aims at.\n\n")
	var rows [][]string
	for _, t := range targets {
		v := t.judge(r)
		rows = append(rows, []string{v.what, v.must, v.aim, v.measured, v.result})
	}
	table(b, []string{"what", "must", "aim", "measured", ""}, rows)
}

// facts says what each driver was.
func facts(b *strings.Builder, r *sample.Results) {
	b.WriteString("## What was compared\n\n")
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
		rows = append(rows, []string{d.Name, d.Summary, f.Version, mtu, cipher, cellText(strings.Join(append([]string{"between " + f.Ends}, f.Tuned...), "; "))})
	}
	table(b, []string{"driver", "what it is", "version", "MTU", "traffic", "as it was run"}, rows)
	rows = nil
	for _, l := range r.Loads {
		rows = append(rows, []string{l.Name, l.Summary})
	}
	table(b, []string{"load", "what it does"}, rows)
	rows = nil
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Sysctls)) {
		rows = append(rows, []string{name, r.Machine.Sysctls[name]})
	}
	if len(rows) > 0 {
		table(b, []string{"sysctl", "value"}, rows)
	}
}

// cellText returns text that does not end its cell.
func cellText(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// trust says how good the samples are.
func trust(b *strings.Builder, r *sample.Results) {
	busy, failed, repeated := 0, 0, 0
	var failures []string
	for _, s := range r.Samples {
		switch {
		case s.Error != "":
			failed++
			failures = append(failures, fmt.Sprintf("- round %d, %s, %s: %s\n", s.Round, s.Driver, s.Load, s.Error))
		case s.Busy:
			busy++
		}
		if s.Tries > 1 {
			repeated++
		}
	}
	fmt.Fprintf(b, "## How far to trust it\n\n%d samples: %d were repeated, %d have more than a quarter of a core of other work beside them all the same, %d failed.\n\n",
		len(r.Samples), repeated, busy, failed)
	if len(failures) > 0 {
		b.WriteString(strings.Join(failures, "") + "\n")
	}
	b.WriteString(`- Hosts are network namespaces of one machine. No figure says what a network card would do.
- Throughput on few shared cores has two modes, as the scheduler puts sender and receiver together or not: single ratios of it carry up
  to a factor of two, CPU seconds a GB about 15 %.
- Where CPUs sleep between packets, round trips are mostly the cost of waking them, more so on virtual machines.
- Layer 3 tunnels run between the hosts themselves and spare the bridge and the pod's veth, which vxlan and weft have.
- Each driver gets its largest MTU, stated above, and otherwise its own defaults.
`)
}
