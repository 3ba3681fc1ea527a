package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"weft/bench/sample"
)

// Heading is the heading of the section that WriteDoc writes.
const Heading = "## Kubernetes"

// WriteDoc writes results as a section of the page at path, in place of an earlier one, or at its end.
func WriteDoc(results []Result, o Options, path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	before, after, _ := strings.Cut(string(page), "\n"+Heading+"\n")
	text := strings.TrimRight(before, "\n") + "\n\n" + Markdown(results, o)
	if _, next, ok := strings.Cut(after, "\n## "); ok {
		text += "\n## " + next
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	return nil
}

// Markdown returns the section.
func Markdown(results []Result, o Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, Heading+`

`+"`weft-kube`"+` on one node of a cluster of %d nodes, with %d pods, %d of them on the node,
and %d network policies.
The API server and the daemon are made up; nftables is that of the kernel.
"With changes" means %d changes of pods each second in the cluster.
In both cases each node reports its status every five minutes.
CPU includes the nft programs that weft-kube runs, and is in percent of one core.
"Rules of a pod" is the time until the rules of a new pod of the node are in force, while the cluster changes.
Figures are medians with their range (rounds: %d), and ratios to the first program of the same round.
To repeat the measurement:

    bin/weft-bench kubernetes OLD-WEFT-KUBE bin/weft-kube --doc docs/BENCHMARKS.md

| |`, o.Nodes, o.Pods, o.Local, o.Policies, o.Rate, o.Rounds)
	for i, r := range results {
		name := filepath.Base(r.Program)
		if i == 0 && len(results) > 1 {
			name = "before"
		}
		fmt.Fprintf(&b, " %s |", name)
		if i > 0 {
			b.WriteString(" ratio |")
		}
	}
	b.WriteString("\n|---|")
	for i := range results {
		b.WriteString("---|")
		if i > 0 {
			b.WriteString("---|")
		}
	}
	b.WriteString("\n")
	for _, figure := range Figures {
		fmt.Fprintf(&b, "| %s |", figure)
		for i, r := range results {
			values := r.Values[figure]
			fmt.Fprintf(&b, " %s |", spread(sample.Summarize(values)))
			if i > 0 {
				fmt.Fprintf(&b, " %s |", spread(sample.Summarize(ratios(values, results[0].Values[figure]))))
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\nRequests to the API server until the policies were in force:\n\n")
	for i, r := range results {
		name := filepath.Base(r.Program)
		if i == 0 && len(results) > 1 {
			name = "before"
		}
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Requests)
	}
	return b.String()
}

// spread returns a median with its range.
func spread(s sample.Spread) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s to %s)", number(s.Median), number(s.Min), number(s.Max))
}

// number returns a figure with two or three significant digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// ratios returns the ratios of the rounds.
func ratios(values, base []float64) (out []float64) {
	for i := range min(len(values), len(base)) {
		if base[i] > 0 {
			out = append(out, values[i]/base[i])
		}
	}
	return out
}
