package page

import (
	"fmt"
	"slices"
	"strings"

	"weft/internal/e2e/kubernetes/outcome"
)

// intro is the head of the page.
const intro = `# Conformance

This page is the output of ` + "`make e2e`" + `.
It installs weft on Kubernetes clusters of two nodes on one machine, and runs the upstream tests of that version.
[CONTRIBUTING.md](../CONTRIBUTING.md#the-kubernetes-lab) describes how to run it.
A test that fails is repeated once; if it passes then, the tables say so.
`

// Render returns the page.
func Render(settings []Setting) string {
	w := &writer{settings: settings}
	w.line("%s", intro)
	w.facts()
	w.summary()
	w.failures()
	w.steps()
	w.suites()
	w.skipped()
	return strings.TrimRight(w.text.String(), "\n") + "\n"
}

// writer collects the page.
type writer struct {
	settings []Setting
	text     strings.Builder
}

// line adds a line.
func (w *writer) line(format string, args ...any) { _, _ = fmt.Fprintf(&w.text, format+"\n", args...) }

// row adds a row of a table.
func (w *writer) row(cells ...string) { w.line("| %s |", strings.Join(cells, " | ")) }

// table adds a blank line, a heading if there is one, and the head of a table.
func (w *writer) table(heading string, columns ...string) {
	if heading != "" {
		w.line("\n%s", heading)
	}
	w.line("")
	w.row(columns...)
	w.line("|%s", strings.Repeat("---|", len(columns)))
}

// facts adds what the clusters are made of. Settings that ran at different times may differ.
func (w *writer) facts() {
	values := func(of func(Facts) string) string {
		var all []string
		for _, s := range w.settings {
			if s.Facts != nil && of(*s.Facts) != "" && !slices.Contains(all, of(*s.Facts)) {
				all = append(all, of(*s.Facts))
			}
		}
		return dash(strings.Join(all, ", "))
	}
	w.row("", "")
	w.line("|---|---|")
	w.row("date", values(func(f Facts) string { return f.Date }))
	w.row("weft", values(func(f Facts) string { return f.Weft }))
	w.row("Kubernetes", values(func(f Facts) string { return f.Kubernetes }))
	w.row("runtime", values(func(f Facts) string { return f.Runtime }))
	w.row("kernel", values(func(f Facts) string { return f.Kernel }))
}

// summary adds a row for each setting.
func (w *writer) summary() {
	w.table("## Settings", "setting", "cluster", "passed", "passed at a later try", "failed", "skipped", "minutes in tests", "state")
	for _, s := range w.settings {
		c := count(s.Tests)
		w.row(s.Name, s.Description, fmt.Sprint(c.passed), fmt.Sprint(c.late), fmt.Sprint(c.failed), fmt.Sprint(c.skipped),
			fmt.Sprintf("%.0f", c.seconds/60), s.progress())
	}
}

// failures adds the reason of each failure, also of those that did not happen again.
func (w *writer) failures() {
	any := false
	for _, s := range w.settings {
		for _, t := range slices.Concat(s.Steps, s.Tests) {
			if t.First().State != outcome.Failed {
				continue
			}
			if !any {
				w.table("## Failures", "setting", "test", "what happened", "again")
				any = true
			}
			again := "not repeated"
			if len(t.Tries) > 1 {
				again = string(t.Last().State)
			}
			w.row(s.Name, short(t.Name), oneLine(t.First().Message), again)
		}
	}
}

// steps adds what happens to nodes, with a row for each setting that has the step.
func (w *writer) steps() {
	var names []string
	for _, s := range w.settings {
		for _, t := range s.Steps {
			if !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	if len(names) == 0 {
		return
	}
	w.table("## What happens to nodes", "operation", "setting", "result", "seconds")
	for _, name := range names {
		for _, s := range w.settings {
			if t := find(s.Steps, name); t != nil {
				last := t.Last()
				result := cellText(last.Message)
				if last.State == outcome.Failed {
					result = "**failed**"
				}
				w.row(name, s.Name, dash(result), fmt.Sprintf("%.0f", last.Seconds))
			}
		}
	}
}

// suites adds a table for each suite, with a row for each test.
func (w *writer) suites() {
	var names []string
	tests := map[string][]string{}
	leftOut := map[string]string{}
	for _, s := range w.settings {
		if s.Facts == nil {
			continue
		}
		for _, suite := range s.Facts.Suites {
			if !slices.Contains(names, suite.Name) {
				names = append(names, suite.Name)
				leftOut[suite.Name] = suite.LeftOut
			}
			for _, test := range suite.Tests {
				if !slices.Contains(tests[suite.Name], test) {
					tests[suite.Name] = append(tests[suite.Name], test)
				}
			}
		}
	}
	for _, name := range names {
		w.line("\n## %s", name)
		if leftOut[name] != "" {
			w.line("\nNot run: %s.", leftOut[name])
		}
		columns := []string{"test"}
		for _, s := range w.settings {
			columns = append(columns, s.Name)
		}
		w.table("", columns...)
		slices.Sort(tests[name])
		for _, test := range tests[name] {
			cells := []string{short(test)}
			for _, s := range w.settings {
				cells = append(cells, dash(s.cell(test)))
			}
			w.row(cells...)
		}
	}
}

// skipped adds the tests that decided not to run, with their reasons.
func (w *writer) skipped() {
	type skip struct{ test, reason string }
	var order []skip
	in := map[skip][]string{}
	for _, s := range w.settings {
		for _, t := range s.Tests {
			if t.Last().State == outcome.Skipped {
				k := skip{t.Name, t.Last().Message}
				if in[k] == nil {
					order = append(order, k)
				}
				in[k] = append(in[k], s.Name)
			}
		}
	}
	if len(order) == 0 {
		return
	}
	w.table("## Skipped tests", "test", "settings", "reason")
	for _, k := range order {
		w.row(short(k.test), strings.Join(in[k], ", "), oneLine(k.reason))
	}
}
