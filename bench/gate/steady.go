package gate

import (
	"fmt"

	"weft/bench/sample"
)

// candidate is a figure with a ratio to the figure of base that varies little between runs.
type candidate struct {
	base, load string
	metric     sample.Metric
	least      float64 // minimum median of the driver's figure, below which the ratio is not stored
}

// leastCPU is 20 ticks of the kernel's CPU times during a transfer of 10 GB, in s/GB. Daemons of the kernel path use less.
const leastCPU = 0.02

// steady are the candidates. Throughput beside other overlays in userspace is not among them: theirs varies too much.
var steady = []candidate{
	{"vxlan", "tcp1", sample.Gbps, 0},
	{"vxlan", "tcp4", sample.Gbps, 0},
	{"vxlan", "udp64", sample.Kpps, 0},
	{"vxlan", "ping", sample.P50, 0},
	{"vxlan", "tcp1", sample.MachineCPU, 0},
	{"wireguard-go", "tcp1", sample.DaemonCPU, leastCPU},
	{"wireguard-go", "tcp4", sample.DaemonCPU, leastCPU},
}

// The defaults of a run that writes stored ratios.
var (
	// DefaultDrivers are the drivers of weft with their bases.
	DefaultDrivers = []string{"vxlan", "weft", "weft-kernel", "weft-aes", "wireguard-go"}
	// DefaultSettings are the settings that are nearest to separate machines with network cards.
	DefaultSettings = []string{"plain", "plain-pinned"}
)

// Loads returns the names of the loads that have steady ratios.
func Loads() (names []string) {
	seen := map[string]bool{}
	for _, c := range steady {
		if !seen[c.load] {
			seen[c.load] = true
			names = append(names, c.load)
		}
	}
	return names
}

// ratio returns the ratio of a driver in the results of one setting, and false if there is none to store.
func (c candidate) ratio(r *sample.Results, driver string) (Ratio, bool) {
	s := r.Ratio(driver, c.base, c.load, c.metric)
	if s.N == 0 || s.Min <= 0 || r.Of(driver, c.load, c.metric).Median < c.least {
		return Ratio{}, false
	}
	return Ratio{Driver: driver, Base: c.base, Load: c.load, Metric: c.metric, Median: s.Median, Min: s.Min, Max: s.Max, Rounds: s.N}, true
}

// name returns the ratio for people.
func (q Ratio) name() string {
	return fmt.Sprintf("%s: %s of %s, %s, against %s", q.Setting, q.Metric.Info().Title, q.Driver, q.Load, q.Base)
}
