package report

import (
	"fmt"
	"strings"

	"weft/bench/sample"
)

// near is the distance of a ratio from 1 up to which two drivers count as even.
const near = 0.1

// contests are the figures in which two drivers are compared.
var contests = []column{
	{"daemon CPU per GB, 1 stream", "tcp1", sample.DaemonCPU},
	{"machine CPU per GB, 1 stream", "tcp1", sample.MachineCPU},
	{"1 TCP stream", "tcp1", sample.Gbps},
	{"4 TCP streams", "tcp4", sample.Gbps},
	{"16 TCP streams", "tcp16", sample.Gbps},
	{"1 TCP stream with loss", "tcp1-loss", sample.Gbps},
	{"2 senders", "incast", sample.Gbps},
	{"64 B UDP without loss", "udp64", sample.Kpps},
	{"1,400 B UDP without loss", "udp1400", sample.Kpps},
	{"1,400 B UDP flood", "udp-flood", sample.Kpps},
	{"ping p50", "ping", sample.P50},
	{"ping p99", "ping", sample.P99},
	{"ping p50 under bulk", "ping-bulk", sample.P50},
	{"request p50", "rr", sample.P50},
	{"connections", "churn", sample.PerSecond},
	{"RSS idle", "idle", sample.RSS},
}

// comparisons writes a table for each setting of the figures in which weft is better than, worse than or even with each
// other driver.
func comparisons(b *strings.Builder, r *sample.Results) {
	first := true
	for _, s := range r.Settings() {
		rows := contestRows(r.In(s))
		if len(rows) == 0 {
			continue
		}
		if first {
			fmt.Fprintf(b, "## Wins and losses\n\nThe ratios of weft's figures to the other driver's figures in the same round.\n"+
				"Differences up to %.0f %% count as even.\nEncrypted weft is compared with drivers that encrypt, plain weft with all.\n\n",
				near*100)
			first = false
		}
		if len(r.Settings()) > 1 {
			fmt.Fprintf(b, "### Wins and losses: %s\n\n", s.Title())
		}
		table(b, []string{"", "against", "weft is better", "even", "weft is worse"}, rows)
	}
}

// contestRows returns the rows of the table of one setting.
func contestRows(r *sample.Results) (rows [][]string) {
	for _, mine := range []string{plain, encrypted} {
		for _, other := range r.Drivers {
			if row := contest(r, mine, other.Name); row != nil {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// contest compares two drivers in all figures that both have. It returns a row of the table, or nil if the drivers are not
// to be compared.
func contest(r *sample.Results, mine, other string) []string {
	against, _ := r.Find(other)
	if strings.HasPrefix(other, "weft") || mine == encrypted && !against.Facts.Encrypted {
		return nil
	}
	var better, even, worse []string
	for _, c := range contests {
		s := r.Ratio(mine, other, c.load, c.metric)
		if s.N == 0 {
			continue
		}
		text := fmt.Sprintf("%s %.2f x", c.title, s.Median)
		gain := s.Median
		if !c.metric.Info().HigherIsBetter {
			gain = 1 / max(s.Median, 1e-9)
		}
		switch {
		case gain > 1+near:
			better = append(better, text)
		case gain < 1/(1+near):
			worse = append(worse, text)
		default:
			even = append(even, text)
		}
	}
	if len(better)+len(even)+len(worse) == 0 {
		return nil
	}
	return []string{mine, other, strings.Join(better, "; "), strings.Join(even, "; "), strings.Join(worse, "; ")}
}
