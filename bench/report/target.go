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
	must, aim    bound
}

const (
	plain     = "weft"
	encrypted = "weft-aes"
	vxlan     = "vxlan"
	wg        = "wireguard-go"
)

// targets are the performance goals of weft.
var targets = []target{
	{"daemon CPU per GB, both ends, plain, 1 stream", plain, "tcp1", sample.DaemonCPU, absolute, "", at(1.4), at(0.7)},
	{"daemon CPU per GB, both ends, AES-256-GCM, 1 stream", encrypted, "tcp1", sample.DaemonCPU, absolute, "", at(2.0), at(1.2)},
	{"against wireguard-go, plain, 1 stream", plain, "tcp1", sample.Gbps, ratio, wg, at(3), at(5)},
	{"against wireguard-go, encrypted, 1 stream", encrypted, "tcp1", sample.Gbps, ratio, wg, at(2.2), at(4)},
	{"against VXLAN, plain, 1 stream", plain, "tcp1", sample.Gbps, ratio, vxlan, at(0.55), at(0.75)},
	{"against VXLAN, plain, 4 streams", plain, "tcp4", sample.Gbps, ratio, vxlan, at(0.45), at(0.65)},
	{"against VXLAN, encrypted, 1 stream", encrypted, "tcp1", sample.Gbps, ratio, vxlan, at(0.40), at(0.60)},
	{"against VXLAN, encrypted, 4 streams", encrypted, "tcp4", sample.Gbps, ratio, vxlan, at(0.28), at(0.45)},
	{"64 B UDP without loss, against VXLAN", plain, "udp64", sample.Kpps, ratio, vxlan, at(0.8), at(1.2)},
	{"ping p50 idle, against wireguard-go", plain, "ping", sample.P50, ratio, wg, at(1), bound{}},
	{"ping p50 idle, against tinc", plain, "ping", sample.P50, ratio, "tinc", at(1), bound{}},
	{"ping p50 idle, difference to VXLAN (the aim is for --busy-poll)", plain, "ping", sample.P50, difference, vxlan, bound{}, at(20)},
	{"ping p50 under one bulk stream", plain, "ping-bulk", sample.P50, absolute, "", at(1300), at(300)},
	{"kernel path against VXLAN, 1 stream", "weft-kernel", "tcp1", sample.Gbps, ratio, vxlan, at(0.95), at(1.0)},
	{"1 packet in 1,000 lost, 1 stream, against VXLAN", plain, "tcp1-loss", sample.Gbps, ratio, vxlan, at(0.7), at(1.0)},
	{"RSS idle", plain, "idle", sample.RSS, absolute, "", at(40), at(25)},
}

// verdict is a row of the table of targets.
type verdict struct {
	what, must, aim, measured, result string
}

// judge compares a target with the results. For costs, and their ratios and differences, lower is better.
func (t target) judge(r *sample.Results) verdict {
	v := verdict{what: t.what, must: t.limit(t.must), aim: t.limit(t.aim), measured: "–"}
	value, spread, missing := t.measure(r)
	if missing != "" {
		v.result = missing
		return v
	}
	v.measured = t.show(value)
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
