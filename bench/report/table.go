package report

import (
	"fmt"
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
		"\"Under bulk\" is during one TCP stream.", []column{
		{"ping p50", "ping", sample.P50}, {"p90", "ping", sample.P90}, {"p99", "ping", sample.P99},
		{"under bulk p50", "ping-bulk", sample.P50}, {"p90", "ping-bulk", sample.P90}, {"p99", "ping-bulk", sample.P99},
	}, []string{"latency", "latency-bulk"}},
	{"Requests and connections", "Requests and answers of 64 bytes: over one TCP connection, and over a new connection each.\n" +
		"The latter has four concurrent clients.", []column{
		{"request p50 µs", "rr", sample.P50}, {"p90", "rr", sample.P90}, {"p99", "rr", sample.P99},
		{"requests/s", "rr", sample.PerSecond}, {"connections/s", "churn", sample.PerSecond},
	}, nil},
	{"Memory and idling", "Memory is that of the largest daemon.\nCPU is that of all daemons, in percent of a core.", []column{
		{"RSS idle, MiB", "idle", sample.RSS},
		{"after 1 stream", "tcp1", sample.RSS}, {"after 4", "tcp4", sample.RSS}, {"after 16", "tcp16", sample.RSS},
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

// markdown writes the section, unless it has no figures.
func (s section) markdown(b *strings.Builder, r *sample.Results, pictures string) {
	columns := slices.DeleteFunc(slices.Clone(s.columns), func(c column) bool { return !c.has(r) })
	if len(columns) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n%s\n\n", s.title, s.intro)
	header := []string{""}
	for _, c := range columns {
		header = append(header, c.title)
	}
	rows := [][]string{}
	for _, d := range r.Drivers {
		if d.Unavailable != "" {
			continue
		}
		row := []string{d.Name}
		for _, c := range columns {
			row = append(row, c.cell(r, d.Name))
		}
		if strings.Join(row[1:], "") != "" {
			rows = append(rows, row)
		}
	}
	table(b, header, rows)
	for _, c := range charts {
		if pictures != noPictures && slices.Contains(s.plots, c.name) && len(c.drivers(r)) > 0 {
			fmt.Fprintf(b, "![%s](%s%s.svg)\n\n", c.title, pictures, c.name)
		}
	}
}

// table writes a Markdown table.
func table(b *strings.Builder, header []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}
