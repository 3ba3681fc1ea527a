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
	plots        []string // names of the pictures that go with it
}

// bulk is the columns of one figure for all bulk loads.
func bulk(m sample.Metric) []column {
	return []column{
		{"1 stream", "tcp1", m}, {"4", "tcp4", m}, {"16", "tcp16", m}, {"1, back", "tcp1r", m}, {"4, back", "tcp4r", m},
		{"1 at 400 Mbit/s", "tcp1-400m", m}, {"1, with loss", "tcp1-loss", m}, {"1, routed", "tcp1-chain", m}, {"2 senders", "incast", m},
	}
}

// sections are the tables, in order: what is steadiest on a shared machine first.
var sections = []section{
	{"CPU of the daemons a GB", "Seconds of user and system time of the daemons on all hosts for each GB of TCP payload. It includes what the kernel does inside their " +
		"system calls, such as the receiver's TCP. The kernel's own overlays have no daemon; the next table has their cost.", bulk(sample.DaemonCPU), []string{"cpu"}},
	{"CPU of the machine a GB", "Everything that ran, both ends of iperf3 and the kernel included, but for processes that are not the bench's.", bulk(sample.MachineCPU), nil},
	{"TCP throughput", "Gbit/s as the receiver counted, after a second of warm-up; congestion control cubic.", bulk(sample.Gbps), []string{"throughput"}},
	{"Retransmitted segments", "In the whole of a transfer.", bulk(sample.Retransmits), nil},
	{"Datagrams", "Thousands of UDP datagrams a second, counted at the receiver; sizes are of the payload. Without loss: the highest rate with less than 1 % lost.", []column{
		{"64 B without loss, kpps", "udp64", sample.Kpps}, {"1,400 B without loss, kpps", "udp1400", sample.Kpps},
		{"1,400 B flood, kpps", "udp-flood", sample.Kpps}, {"flood, lost %", "udp-flood", sample.Lost},
		{"64 B at 20 kpps, lost %", "udp-20k", sample.Lost}, {"the same, daemon µs a datagram", "udp-20k", sample.PacketCPU},
	}, nil},
	{"Round trips", "Microseconds. ping sends every 2 ms, so that CPUs go to sleep in between; under bulk, one TCP stream runs beside it.", []column{
		{"ping p50", "ping", sample.P50}, {"p90", "ping", sample.P90}, {"p99", "ping", sample.P99},
		{"under bulk p50", "ping-bulk", sample.P50}, {"p90", "ping-bulk", sample.P90}, {"p99", "ping-bulk", sample.P99},
	}, []string{"latency", "latency-bulk"}},
	{"Requests and connections", "64 bytes there and back: over one TCP connection, and over a new one each time with four clients.", []column{
		{"request p50 µs", "rr", sample.P50}, {"p90", "rr", sample.P90}, {"p99", "rr", sample.P99},
		{"requests/s", "rr", sample.PerSecond}, {"connections/s", "churn", sample.PerSecond},
	}, nil},
	{"Memory and idling", "Of the largest daemon; CPU is that of all daemons, in percent of a core.", []column{
		{"RSS idle, MiB", "idle", sample.RSS}, {"after 1 stream", "tcp1", sample.RSS}, {"after 4", "tcp4", sample.RSS}, {"after 16", "tcp16", sample.RSS},
		{"CPU idle, %", "idle", sample.IdleCPU},
	}, nil},
}

// has reports whether any driver has a figure for the column.
func (c column) has(r *sample.Results) bool {
	return slices.ContainsFunc(r.Drivers, func(d sample.Driver) bool { return r.Of(d.Name, c.load, c.metric).N > 0 })
}

// cell returns a driver's figure: the median, the spread, and the ratio to the base.
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

// failure returns what stands where there is no figure.
func failure(r *sample.Results, driver, load string) string {
	for _, s := range r.Samples {
		if s.Driver == driver && s.Load == load && s.Error != "" {
			return "failed"
		}
	}
	return ""
}

// markdown writes the section, unless nothing of it was measured.
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
