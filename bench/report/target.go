package report

import (
	"fmt"

	"weft/bench/sample"
)

// comparison is how the figure of a target is computed from measured figures.
type comparison int

const (
	absolute   comparison = iota + 1 // the median of the driver
	ratio                            // the median of the ratios to the base in the same round
	difference                       // the median of the driver minus that of the base
)

// bound is a limit of a target; the zero value is no limit.
type bound struct {
	limit float64
	set   bool
}

func at(limit float64) bound { return bound{limit, true} }

// target is a goal that the report checks.
type target struct {
	what         string
	driver, load string
	metric       sample.Metric
	comparison   comparison
	base         string // the other driver of a ratio or a difference
	underlay     sample.Underlay
	must, aim    bound
}

// anyUnderlay is the underlay of targets that do not depend on it.
const anyUnderlay sample.Underlay = ""

const (
	plain     = "weft"
	encrypted = "weft-aes"
	vxlan     = "vxlan"
	wg        = "wireguard-go"
)

// targets are the performance goals of weft.
var targets = []target{
	{"throughput of 1 stream, plain, against wireguard-go", plain, "tcp1", sample.Gbps, ratio, wg, anyUnderlay, at(6), at(8)},
	{"throughput of 1 stream, encrypted, against wireguard-go", encrypted, "tcp1", sample.Gbps, ratio, wg, anyUnderlay, at(4.5), at(6)},
	{"daemon CPU per GB, plain, of wireguard-go's", plain, "tcp1", sample.DaemonCPU, ratio, wg, anyUnderlay, at(0.11), at(0.08)},
	{"daemon CPU per GB, encrypted, of wireguard-go's", encrypted, "tcp1", sample.DaemonCPU, ratio, wg, anyUnderlay, at(0.15), at(0.11)},
	{"throughput of 1 stream, plain, against VXLAN on a plain underlay",
		plain, "tcp1", sample.Gbps, ratio, vxlan, sample.PlainUnderlay, at(0.65), at(0.9)},
	{"throughput of 1 stream, encrypted, against VXLAN on a plain underlay",
		encrypted, "tcp1", sample.Gbps, ratio, vxlan, sample.PlainUnderlay, at(0.50), at(0.7)},
	{"ping p50 idle, of tinc's", plain, "ping", sample.P50, ratio, "tinc", anyUnderlay, at(0.9), at(0.5)},
	{"ping p50 idle, difference to VXLAN (the aim is for --busy-poll)",
		plain, "ping", sample.P50, difference, vxlan, anyUnderlay, bound{}, at(30)},
	{"ping p50 under one bulk stream, plain", plain, "ping-bulk", sample.P50, absolute, "", anyUnderlay, at(500), at(200)},
	{"ping p99 under one bulk stream, plain", plain, "ping-bulk", sample.P99, absolute, "", anyUnderlay, at(2000), at(800)},
	{"64 B UDP without loss, against VXLAN", plain, "udp64", sample.Kpps, ratio, vxlan, anyUnderlay, at(0.8), at(1.2)},
	{"1 datagram in 1,000 lost, 1 stream, against VXLAN under the same loss",
		plain, "tcp1-loss", sample.Gbps, ratio, vxlan, anyUnderlay, at(0.8), at(1.0)},
	{"kernel path against VXLAN, 1 stream", "weft-kernel", "tcp1", sample.Gbps, ratio, vxlan, anyUnderlay, at(0.95), at(1.0)},
	{"WireGuard as a carrier against VXLAN by hand in it, 1 stream",
		"weft-wireguard", "tcp1", sample.Gbps, ratio, "wireguard-vxlan", anyUnderlay, at(0.95), at(1.0)},
	{"direct routing against pods that are routed by hand, 1 stream",
		"weft-direct", "tcp1", sample.Gbps, ratio, "routed", anyUnderlay, at(0.95), at(1.0)},
	{"RSS idle", plain, "idle", sample.RSS, absolute, "", anyUnderlay, at(30), at(20)},
	{"RSS loaded, after 4 streams", plain, "tcp4", sample.RSS, absolute, "", anyUnderlay, at(40), at(30)},
}

// verdict is the measured figure of a target, and what it means.
type verdict struct {
	measured, result string
}

// cell returns the verdict about a target in one setting as text, or "" if the target is for another underlay.
func (t target) cell(r *sample.Results, s sample.Setting) string {
	if t.underlay != anyUnderlay && t.underlay != s.Underlay {
		return ""
	}
	v := t.judge(r.In(s))
	if v.measured == "" {
		return v.result
	}
	return v.measured + ", " + v.result
}

// judge compares a target with the results of one setting. For costs, and their ratios and differences, lower is better.
func (t target) judge(r *sample.Results) verdict {
	value, spread, missing := t.measure(r)
	if missing != "" {
		return verdict{result: missing}
	}
	v := verdict{measured: t.show(value)}
	if spread.N > 1 && t.comparison != difference {
		v.measured += fmt.Sprintf(" (%s–%s)", t.number(spread.Min), t.number(spread.Max))
	}
	switch {
	case t.aim.set && t.reaches(value, t.aim.limit):
		v.result = "**aim met**"
	case t.must.set && t.reaches(value, t.must.limit):
		v.result = "met"
	case t.must.set:
		v.result = "**missed**"
	default:
		v.result = "aim missed"
	}
	return v
}

// measure returns the figure of the target, with its spread, or the reason why there is none.
func (t target) measure(r *sample.Results) (value float64, s sample.Spread, missing string) {
	for _, name := range []string{t.driver, t.base} {
		if name == "" {
			continue
		}
		if d, ok := r.Find(name); !ok {
			return 0, s, "not measured: the run had no " + name
		} else if d.Unavailable != "" {
			return 0, s, "not measured: " + name + " is not available"
		}
		if r.Of(name, t.load, t.metric).N == 0 {
			return 0, s, fmt.Sprintf("not measured: no %s through %s", t.load, name)
		}
	}
	switch t.comparison {
	case ratio:
		s = r.Ratio(t.driver, t.base, t.load, t.metric)
		if s.N == 0 {
			return 0, s, "not measured: no round has both"
		}
		return s.Median, s, ""
	case difference:
		s = r.Of(t.driver, t.load, t.metric)
		return s.Median - r.Of(t.base, t.load, t.metric).Median, s, ""
	default:
		s = r.Of(t.driver, t.load, t.metric)
		return s.Median, s, ""
	}
}

// reaches reports whether a figure is within a limit.
func (t target) reaches(value, limit float64) bool {
	if t.metric.Info().HigherIsBetter {
		return value >= limit
	}
	return value <= limit
}

// number formats a figure with the precision of the target.
func (t target) number(v float64) string {
	decimals := t.metric.Info().Decimals
	if t.comparison == ratio {
		decimals = 2
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// show formats a figure with its unit.
func (t target) show(v float64) string {
	switch t.comparison {
	case ratio:
		return t.number(v) + " x"
	case difference:
		return fmt.Sprintf("%+.*f %s", t.metric.Info().Decimals, v, t.metric.Info().Unit)
	default:
		return t.number(v) + " " + t.metric.Info().Unit
	}
}

// limit formats a bound, such as "≥ 0.80 x", or returns "" if there is none.
func (t target) limit(b bound) string {
	if !b.set {
		return ""
	}
	if t.metric.Info().HigherIsBetter {
		return "≥ " + t.show(b.limit)
	}
	return "≤ " + t.show(b.limit)
}
