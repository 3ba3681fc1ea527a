// Package sample holds what the bench measures: samples, the facts beside them, and their statistics. It is pure, and its
// types are the JSON of a run.
package sample

// Metric names one figure of a sample.
type Metric string

// The figures that loads and the harness report.
const (
	// Gbps is the goodput that the receiver counted, in Gbit/s.
	Gbps Metric = "gbps"
	// Retransmits counts TCP segments that were sent again.
	Retransmits Metric = "retransmits"
	// Kpps is the rate of datagrams that the receiver counted, in thousands a second.
	Kpps Metric = "kpps"
	// Lost is the share of datagrams that did not arrive, in percent.
	Lost Metric = "lost_pct"
	// P50, P90 and P99 are percentiles of round trips, in microseconds.
	P50 Metric = "p50_us"
	P90 Metric = "p90_us"
	P99 Metric = "p99_us"
	// PerSecond counts requests or connections a second.
	PerSecond Metric = "per_second"
	// DaemonCPU is CPU time of the daemons on all hosts for each GB carried, in seconds.
	DaemonCPU Metric = "daemon_s_per_gb"
	// MachineCPU is CPU time of the whole machine, loads included, for each GB carried, in seconds.
	MachineCPU Metric = "machine_s_per_gb"
	// PacketCPU is CPU time of the daemons on all hosts for each datagram that arrived, in microseconds.
	PacketCPU Metric = "daemon_us_per_packet"
	// IdleCPU is what the daemons on all hosts take while nothing is sent, in percent of one core.
	IdleCPU Metric = "idle_cpu_pct"
	// RSS is the resident memory of the largest daemon, in MiB.
	RSS Metric = "rss_mib"
)

// Info says how a metric is read.
type Info struct {
	// Title and Unit are for people.
	Title, Unit string
	// HigherIsBetter tells rates from costs.
	HigherIsBetter bool
	// Decimals is how many digits after the point are worth printing.
	Decimals int
}

var infos = map[Metric]Info{
	Gbps:        {"throughput", "Gbit/s", true, 2},
	Retransmits: {"retransmits", "segments", false, 0},
	Kpps:        {"datagrams", "kpps", true, 1},
	Lost:        {"lost", "%", false, 2},
	P50:         {"round trip p50", "µs", false, 0},
	P90:         {"round trip p90", "µs", false, 0},
	P99:         {"round trip p99", "µs", false, 0},
	PerSecond:   {"a second", "/s", true, 0},
	DaemonCPU:   {"daemon CPU", "s/GB", false, 2},
	MachineCPU:  {"machine CPU", "s/GB", false, 2},
	PacketCPU:   {"daemon CPU a datagram", "µs", false, 2},
	IdleCPU:     {"daemon CPU idle", "%", false, 1},
	RSS:         {"RSS of the largest daemon", "MiB", false, 1},
}

// Info returns how m is read; of an unknown metric, its name.
func (m Metric) Info() Info {
	if i, ok := infos[m]; ok {
		return i
	}
	return Info{Title: string(m), Decimals: 2}
}
