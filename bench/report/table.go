package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/bench/sample"
)

// column is a figure of one load.
type column struct {
	title, load string
	metric      sample.Metric
}

// section is a table of the report.
type section struct {
	title, intro string
	columns      []column
	plots        []string // names of its pictures
}

// bulk returns the columns of one figure for all bulk loads.
func bulk(m sample.Metric) []column {
	return []column{
		{"1 stream", "tcp1", m}, {"4", "tcp4", m}, {"16", "tcp16", m}, {"1, reverse", "tcp1r", m}, {"4, reverse", "tcp4r", m},
		{"1 at 400 Mbit/s", "tcp1-400m", m}, {"1, with loss", "tcp1-loss", m}, {"1, routed", "tcp1-chain", m}, {"2 senders", "incast", m},
	}
}

// eventsTitle is the title of the section about events, which also lists those that the machine cannot count.
const eventsTitle = "Scheduling and caches"

// events returns the columns of one kind of event for the bulk loads that differ most.
func events(title string, m sample.Metric) []column {
	return []column{{title + ", 1 stream", "tcp1", m}, {"4", "tcp4", m}}
}

// sections are the tables in order. The figures that vary least on a shared machine are first.
var sections = []section{
	{"CPU of the daemons per GB", "User and system time of the daemons on all hosts, in seconds per GB of TCP payload.\n" +
		"It includes the kernel's work inside their system calls, such as TCP at the receiver.\n" +
		"Overlays in the kernel have no daemon; the next table has their cost.", bulk(sample.DaemonCPU), []string{"cpu"}},
	{"CPU of the machine per GB", "CPU time of everything, including both ends of iperf3 and the kernel.\n" +
		"Processes that do not belong to the bench are excluded.", bulk(sample.MachineCPU), nil},
	{"TCP throughput", "Gbit/s at the receiver, after a second of warm-up; congestion control cubic.",
		bulk(sample.Gbps), []string{"throughput"}},
	{"Retransmitted segments", "Segments that were retransmitted in the whole transfer.", bulk(sample.Retransmits), nil},
	{"Datagrams", "Thousands of UDP datagrams per second at the receiver.\nSizes are those of the payload.\n" +
		"\"Without loss\" is the highest rate with less than 1 % loss.", []column{
		{"64 B without loss, kpps", "udp64", sample.Kpps}, {"1,400 B without loss, kpps", "udp1400", sample.Kpps},
		{"1,400 B flood, kpps", "udp-flood", sample.Kpps}, {"flood, lost %", "udp-flood", sample.Lost},
		{"64 B at 20 kpps, lost %", "udp-20k", sample.Lost}, {"the same, daemon µs per datagram", "udp-20k", sample.PacketCPU},
	}, nil},
	{"Round-trip times", "Microseconds.\nping sends every 2 ms, so that CPUs become idle in between.\n" +
		"\"Idle\" is without other traffic, \"under bulk\" during one TCP stream.", []column{
		{"idle p50", "ping", sample.P50}, {"p90", "ping", sample.P90}, {"p99", "ping", sample.P99},
		{"under bulk p50", "ping-bulk", sample.P50}, {"p90", "ping-bulk", sample.P90}, {"p99", "ping-bulk", sample.P99},
	}, []string{"latency", "latency-bulk"}},
	{"Requests and connections", "Requests and answers of 64 bytes: over one TCP connection, and over a new connection each.\n" +
		"The latter has four concurrent clients.", []column{
		{"request p50 µs", "rr", sample.P50}, {"p90", "rr", sample.P90}, {"p99", "rr", sample.P99},
		{"requests/s", "rr", sample.PerSecond}, {"connections/s", "churn", sample.PerSecond},
	}, nil},
	{eventsTitle, "Events of the daemons on all hosts per GB of TCP payload.", slices.Concat(
		events("context switches", sample.ContextSwitches), events("CPU migrations", sample.CPUMigrations),
		events("cache misses", sample.CacheMisses)), nil},
	{"Memory and idling", "Memory is that of the largest daemon.\n" +
		"Growth is the difference between the last and the second quarter of the time.\n" +
		"CPU is that of all daemons, in percent of a core.", []column{
		{"RSS idle, MiB", "idle", sample.RSS},
		{"after 1 stream", "tcp1", sample.RSS}, {"after 4", "tcp4", sample.RSS}, {"after 16", "tcp16", sample.RSS},
		{"after all kinds", "mixed", sample.RSS}, {"growth meanwhile", "mixed", sample.Growth},
		{"CPU idle, %", "idle", sample.IdleCPU},
	}, nil},
}

// has reports whether any driver has a figure for the column.
func (c column) has(r *sample.Results) bool {
	return slices.ContainsFunc(r.Drivers, func(d sample.Driver) bool { return r.Of(d.Name, c.load, c.metric).N > 0 })
}

// cell returns a driver's figure as text: the median, the spread, and the ratio to vxlan.
func (c column) cell(r *sample.Results, driver string) string {
	s := r.Of(driver, c.load, c.metric)
	if s.N == 0 {
		return failure(r, driver, c.load)
	}
	decimals := c.metric.Info().Decimals
	text := fmt.Sprintf("%.*f", decimals, s.Median)
	if s.N > 1 {
		text += fmt.Sprintf(" (%.*f–%.*f)", decimals, s.Min, decimals, s.Max)
	}
	if q := r.Ratio(driver, vxlan, c.load, c.metric); q.N > 0 && driver != vxlan && c.metric != sample.Lost && c.metric != sample.Retransmits {
		text += fmt.Sprintf(" **%.2f x**", q.Median)
	}
	return text
}

// failure returns the text of a cell without a figure: "failed" after an error, else "".
func failure(r *sample.Results, driver, load string) string {
	for _, s := range r.Samples {
		if s.Driver == driver && s.Load == load && s.Error != "" {
			return "failed"
		}
	}
	return ""
}

// markdown writes the section, unless it has no figures: a table for each underlay.
func (s section) markdown(b *strings.Builder, r *sample.Results, pictures string) {
	columns := slices.DeleteFunc(slices.Clone(s.columns), func(c column) bool { return !c.has(r) })
	if len(columns) == 0 {
		if missing := notCounted(r); s.title == eventsTitle && missing != "" {
			fmt.Fprintf(b, "## %s\n\n%s", s.title, missing)
		}
		return
	}
	fmt.Fprintf(b, "## %s\n\n%s\n\n", s.title, s.intro)
	if s.title == eventsTitle {
		b.WriteString(notCounted(r))
	}
	groups := byUnderlay(r.Settings())
	for _, g := range groups {
		if len(groups) > 1 {
			fmt.Fprintf(b, "### %s: %s underlay\n\n", s.title, g[0].Underlay)
		}
		s.tableOf(b, r, columns, g)
		for _, c := range charts {
			if pictures != noPictures && slices.Contains(s.plots, c.name) && len(c.drivers(r.In(g[0]))) > 0 {
				fmt.Fprintf(b, "![%s](%s%s.svg)\n\n", c.caption(r, g[0]), pictures, c.file(r, g[0]))
			}
		}
	}
}

// byUnderlay groups settings by their underlay, in their order.
func byUnderlay(settings []sample.Setting) [][]sample.Setting {
	var groups [][]sample.Setting
	for _, s := range settings {
		i := slices.IndexFunc(groups, func(g []sample.Setting) bool { return g[0].Underlay == s.Underlay })
		if i < 0 {
			groups = append(groups, []sample.Setting{s})
		} else {
			groups[i] = append(groups[i], s)
		}
	}
	return groups
}

// tableOf writes the table of one underlay. If it was measured in several placements, each driver has a row for each.
func (s section) tableOf(b *strings.Builder, r *sample.Results, columns []column, settings []sample.Setting) {
	header := []string{""}
	if len(settings) > 1 {
		header = append(header, "cores")
	}
	for _, c := range columns {
		header = append(header, c.title)
	}
	rows := [][]string{}
	for _, d := range r.Drivers {
		if d.Unavailable != "" {
			continue
		}
		for i, setting := range settings {
			part := r.In(setting)
			var cells []string
			for _, c := range columns {
				cells = append(cells, c.cell(part, d.Name))
			}
			if strings.Join(cells, "") == "" {
				continue
			}
			row := []string{d.Name}
			if len(settings) > 1 {
				row = append(row, string(setting.Placement))
			}
			if i > 0 && len(rows) > 0 && rows[len(rows)-1][0] == d.Name {
				row[0] = ""
			}
			rows = append(rows, append(row, cells...))
		}
	}
	table(b, header, rows)
}

// notCounted returns a paragraph about events that the machine cannot count, or "".
func notCounted(r *sample.Results) string {
	var b strings.Builder
	for _, e := range slices.Sorted(maps.Keys(r.Machine.NotCounted)) {
		fmt.Fprintf(&b, "%s are not available here: %s.\n", e, r.Machine.NotCounted[e])
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + "\n"
}

// table writes a Markdown table.
func table(b *strings.Builder, header []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}
