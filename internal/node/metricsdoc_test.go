package node

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.yaml.in/yaml/v3"

	"weft/internal/metricdef"
	"weft/router/drop"
)

var update = flag.Bool("update", false, "write the generated part of docs/METRICS.md")

// Files that name metrics.
const (
	metricsDoc  = "../../docs/METRICS.md"
	dashboard   = "../../deploy/grafana/weft.json"
	alertRules  = "../../deploy/prometheus/weft.rules.yaml"
	tableBegins = "<!-- begin: written by go test ./internal/node -run TestMetricsDoc -update -->\n"
	tableEnds   = "<!-- end -->\n"
)

// declared returns the metrics of all tables, sorted by name. It fails where two have one name.
func declared(t *testing.T) []*metricdef.Metric {
	t.Helper()
	var all []*metricdef.Metric
	for _, table := range metricTables() {
		all = append(all, table.Metrics()...)
	}
	slices.SortFunc(all, func(a, b *metricdef.Metric) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(all); i++ {
		if all[i].Name == all[i-1].Name {
			t.Errorf("%s is declared twice", all[i].Name)
		}
	}
	return all
}

// TestMetricsDoc: docs/METRICS.md lists every metric of a node as it is declared.
func TestMetricsDoc(t *testing.T) {
	var page strings.Builder
	page.WriteString(tableBegins + "\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range declared(t) {
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labelDoc(m), m.Help)
	}
	page.WriteString("\n| `reason` of drops | frames and datagrams |\n|---|---|\n")
	for _, r := range drop.All() {
		fmt.Fprintf(&page, "| %s | %s |\n", r, r.Meaning())
	}
	page.WriteString("\n" + tableEnds)
	checkPage(t, page.String())
}

// maxListedValues is how many values of a label the table lists: the reasons of drops have a table, the codes of conditions a page.
const maxListedValues = 8

// labelDoc returns the labels of m, with their values where there is a small fixed set of them.
func labelDoc(m *metricdef.Metric) string {
	var docs []string
	for _, label := range m.Labels {
		doc := "`" + label + "`"
		if values := m.ValuesOf(label); len(values) > 0 && len(values) <= maxListedValues {
			doc += ": " + strings.Join(values, ", ")
		}
		docs = append(docs, doc)
	}
	return strings.Join(docs, "; ")
}

// checkPage compares the generated part of docs/METRICS.md with what it should be, or writes it.
func checkPage(t *testing.T, want string) {
	t.Helper()
	text, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no part between %q and %q", metricsDoc, tableBegins, tableEnds)
	}
	if want = before + want + after; want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date: run \"go test ./internal/node -run TestMetricsDoc -update\"", metricsDoc)
	}
	if err := os.WriteFile(metricsDoc, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// samples collects one sample of each declared metric.
type samples []*metricdef.Metric

func (samples) Describe(ch chan<- *prometheus.Desc) {
	for _, table := range metricTables() {
		table.Describe(ch)
	}
}

func (s samples) Collect(ch chan<- prometheus.Metric) {
	for _, m := range s {
		labels := make([]string, len(m.Labels))
		if m.Type == metricdef.Histogram {
			m.SendHistogram(ch, 0, 0, map[float64]uint64{1: 0}, labels...)
			continue
		}
		m.Send(ch, 0, labels...)
	}
}

// TestMetricsLint checks all declarations by the rules of Prometheus (promlint).
func TestMetricsLint(t *testing.T) {
	problems, err := testutil.CollectAndLint(samples(declared(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// expressions returns the PromQL of the dashboard and of the rules, by location.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	var board struct {
		Title      string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []panel
	}
	readInto(t, dashboard, json.Unmarshal, &board)
	for _, v := range board.Templating.List {
		if v.Type == "query" {
			all["variable "+v.Name] = v.Definition
		}
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("panel %q, %s", p.Title, target.RefID)] = target.Expr
		}
	}
	for _, r := range readRules(t) {
		all["rule "+r.Alert] = r.Expr
	}
	return all
}

// panel is what these tests need of a panel of a Grafana dashboard.
type panel struct {
	ID                       int
	Title, Type, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ Expr, RefID, LegendFormat string }
}

// rule is an alert.
type rule struct {
	Alert, Expr, For string
	Labels           map[string]string
	Annotations      map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	readInto(t, alertRules, yaml.Unmarshal, &file)
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatalf("%s has no rules", alertRules)
	}
	return rules
}

func readInto(t *testing.T, path string, unmarshal func([]byte, any) error, to any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = unmarshal(text, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

var (
	metricPattern   = regexp.MustCompile(`\b(?:weft|process|go)_[a-z0-9_]+`)
	selectorPattern = regexp.MustCompile(`\b(weft_[a-z0-9_]+)\{([^}]*)\}`)
	matcherPattern  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// scrapeLabels are those that Prometheus itself adds, and those of the parts of histograms and summaries.
var scrapeLabels = []string{"job", "instance", "le", "quantile"}

// runtimeMetrics returns the names of the metrics of Go and of the process.
func runtimeMetrics(t *testing.T) map[string]bool {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// TestDashboardAndRulesNameMetrics: every metric, label and value that they name exists.
func TestDashboardAndRulesNameMetrics(t *testing.T) {
	known, others := map[string]*metricdef.Metric{}, runtimeMetrics(t)
	for _, m := range declared(t) {
		if m.Type != metricdef.Histogram {
			known[m.Name] = m
			continue
		}
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			known[m.Name+part] = m
		}
	}
	for where, expr := range expressions(t) {
		for _, name := range metricPattern.FindAllString(expr, -1) {
			if known[name] == nil && !others[name] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
		for _, selector := range selectorPattern.FindAllStringSubmatch(expr, -1) {
			if m := known[selector[1]]; m != nil {
				checkMatchers(t, where, m, selector[2])
			}
		}
	}
}

// checkMatchers fails where a selector names a label or a value that m does not have.
func checkMatchers(t *testing.T, where string, m *metricdef.Metric, selector string) {
	t.Helper()
	for _, matcher := range matcherPattern.FindAllStringSubmatch(selector, -1) {
		label, value := matcher[1], matcher[3]
		values := m.ValuesOf(label)
		switch {
		case slices.Contains(scrapeLabels, label):
		case !slices.Contains(m.Labels, label):
			t.Errorf("%s: %s has no label %s", where, m.Name, label)
		case values != nil && !strings.Contains(value, "$"):
			for v := range strings.SplitSeq(value, "|") {
				if !slices.Contains(values, v) {
					t.Errorf("%s: %s is never %q of %s", where, label, v, m.Name)
				}
			}
		}
	}
}

// TestRulesSayWhatToDo: every alert has a summary, a description and a runbook.
func TestRulesSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRules(t) {
		if r.Alert == "" || r.Expr == "" || seen[r.Alert] {
			t.Errorf("%q has no unique name, or no expression", r.Alert)
		}
		seen[r.Alert] = true
		for _, name := range []string{"summary", "description", "runbook_url"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no %s", r.Alert, name)
			}
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s is of severity %q", r.Alert, s)
		}
	}
}

// TestDashboardIsComplete: every panel has a unit, a description and a place of its own.
func TestDashboardIsComplete(t *testing.T) {
	var board struct {
		UID           string
		SchemaVersion int
		Panels        []panel
	}
	readInto(t, dashboard, json.Unmarshal, &board)
	if board.UID == "" || board.SchemaVersion < 39 {
		t.Errorf("uid %q, schema version %d", board.UID, board.SchemaVersion)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the ID %d is used twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%s and %s are in one place, or it is beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("%s has no description, no query or no unit", p.Title)
		}
	}
}
