// Package sample defines the results of the bench: samples, facts about drivers and machine, and statistics. It is pure.
// Its types define the JSON of a run.
package sample

// Metric is the name of a figure of a sample.
type Metric string

// The figures that loads and the harness report.
const (
	// Gbps is the goodput at the receiver, in Gbit/s.
	Gbps Metric = "gbps"
	// Retransmits is the number of retransmitted TCP segments.
	Retransmits Metric = "retransmits"
	// Kpps is the rate of datagrams at the receiver, in thousands per second.
	Kpps Metric = "kpps"
	// Lost is the share of datagrams that did not arrive, in percent.
	Lost Metric = "lost_pct"
	// P50, P90 and P99 are percentiles of round-trip times, in microseconds.
	P50 Metric = "p50_us"
	P90 Metric = "p90_us"
	P99 Metric = "p99_us"
	// PerSecond is the number of requests or connections per second.
	PerSecond Metric = "per_second"
	// DaemonCPU is the CPU time of the daemons on all hosts per GB of payload, in seconds.
	DaemonCPU Metric = "daemon_s_per_gb"
	// MachineCPU is the CPU time of the whole machine per GB of payload, including the loads, in seconds.
	MachineCPU Metric = "machine_s_per_gb"
	// PacketCPU is the CPU time of the daemons on all hosts per received datagram, in microseconds.
	PacketCPU Metric = "daemon_us_per_packet"
	// IdleCPU is the CPU time of the daemons on all hosts without traffic, in percent of one core.
	IdleCPU Metric = "idle_cpu_pct"
	// ContextSwitches, CPUMigrations and CacheMisses are events of the daemons on all hosts per GB of payload.
	ContextSwitches Metric = "context_switches_per_gb"
	CPUMigrations   Metric = "cpu_migrations_per_gb"
	CacheMisses     Metric = "cache_misses_per_gb"
	// RSS is the resident memory of the largest daemon, in MiB.
	RSS Metric = "rss_mib"
	// Growth is how much the resident memory of the largest daemon grew during a load, after the first quarter of the time, in MiB.
	Growth Metric = "rss_growth_mib"
)

// Info describes how to print and compare a metric.
type Info struct {
	// Title and Unit are for people.
	Title, Unit string
	// HigherIsBetter is true for rates and false for costs.
	HigherIsBetter bool
	// Decimals is the number of significant digits after the point.
	Decimals int
}

var infos = map[Metric]Info{
	Gbps:            {"throughput", "Gbit/s", true, 2},
	Retransmits:     {"retransmits", "segments", false, 0},
	Kpps:            {"datagrams", "kpps", true, 1},
	Lost:            {"lost", "%", false, 2},
	P50:             {"round trip p50", "µs", false, 0},
	P90:             {"round trip p90", "µs", false, 0},
	P99:             {"round trip p99", "µs", false, 0},
	PerSecond:       {"per second", "/s", true, 0},
	DaemonCPU:       {"daemon CPU", "s/GB", false, 2},
	MachineCPU:      {"machine CPU", "s/GB", false, 2},
	PacketCPU:       {"daemon CPU per datagram", "µs", false, 2},
	IdleCPU:         {"daemon CPU idle", "%", false, 1},
	ContextSwitches: {"context switches", "/GB", false, 0},
	CPUMigrations:   {"CPU migrations", "/GB", false, 0},
	CacheMisses:     {"cache misses", "/GB", false, 0},
	RSS:             {"RSS of the largest daemon", "MiB", false, 1},
	Growth:          {"growth of RSS after the first quarter", "MiB", false, 1},
}

// Info returns the description of m. For an unknown metric, the title is its name.
func (m Metric) Info() Info {
	if i, ok := infos[m]; ok {
		return i
	}
	return Info{Title: string(m), Decimals: 2}
}
