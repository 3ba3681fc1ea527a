package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write docs/METRICS.md anew")

// Files that name metrics.
const (
	metricsDoc  = "../../docs/METRICS.md"
	dashboard   = "../../deploy/grafana/weft.json"
	dropSource  = "../../router/drop.go"
	alertRules  = "../../deploy/prometheus/weft.rules.yaml"
	tableBegins = "<!-- begin: written by go test ./internal/daemon -run TestMetricsDoc -update -->\n"
	tableEnds   = "<!-- end -->\n"
)

// series is one that was gathered.
type series struct {
	name, kind string
	labels     map[string]string
	value      float64
}

// String returns s as Prometheus writes it, with its labels sorted.
func (s series) String() string {
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(s.labels)) {
		labels = append(labels, fmt.Sprintf("%s=%q", name, s.labels[name]))
	}
	return s.name + "{" + strings.Join(labels, ",") + "}"
}

func gatherSeries(t *testing.T, registry *prometheus.Registry) (all []series) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			s := series{name: f.GetName(), kind: strings.ToLower(f.GetType().String()), labels: map[string]string{}}
			for _, l := range m.GetLabel() {
				s.labels[l.GetName()] = l.GetValue()
			}
			s.value = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			all = append(all, s)
		}
	}
	return all
}

// metric is what a name stands for.
type metric struct {
	name, kind, help string
	labels           []string
	values           map[string]map[string]bool // seen, by label
}

// descPattern takes a prometheus.Desc apart, which does not tell otherwise what it describes.
var descPattern = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// catalogue returns all metrics of a node by name, those of the process and of Go among them.
func catalogue(t *testing.T, registry *prometheus.Registry) map[string]*metric {
	t.Helper()
	all := map[string]*metric{}
	ch := make(chan *prometheus.Desc, 1<<10) // more than there are
	registry.Describe(ch)
	close(ch)
	for d := range ch {
		found := descPattern.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("%s is not of the form that this test knows", d)
		}
		m := &metric{values: map[string]map[string]bool{}}
		var err, err2 error
		m.name, err = strconv.Unquote(found[1])
		m.help, err2 = strconv.Unquote(found[2])
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if found[3] != "" {
			m.labels = strings.Split(found[3], ",")
		}
		all[m.name] = m
	}
	for _, s := range gatherSeries(t, registry) {
		m := all[s.name]
		if m == nil {
			t.Fatalf("%s is collected and not described", s.name)
		}
		m.kind = s.kind
		for label, value := range s.labels {
			if m.values[label] == nil {
				m.values[label] = map[string]bool{}
			}
			m.values[label][value] = true
		}
	}
	return all
}

// TestMetricsDoc: docs/METRICS.md has every metric of a node as it is.
func TestMetricsDoc(t *testing.T) {
	inMetricsLab(t, func(t *testing.T, _ *busyNode, registry *prometheus.Registry) {
		var table strings.Builder
		table.WriteString(tableBegins + "\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
		for _, m := range slices.SortedFunc(maps.Values(catalogue(t, registry)), func(a, b *metric) int { return cmp.Compare(a.name, b.name) }) {
			if !strings.HasPrefix(m.name, "weft_") {
				continue
			}
			if m.kind == "" {
				t.Errorf("%s: the node of this test does not have it: give it one", m.name)
			}
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labelDoc(), m.help)
		}
		table.WriteString("\n" + dropDoc(t) + "\n" + tableEnds)
		checkTable(t, table.String())
	})
}

// checkTable compares the part of docs/METRICS.md that is written by this test with what it should be, or writes it.
func checkTable(t *testing.T, want string) {
	t.Helper()
	text, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no table between %q and %q", metricsDoc, tableBegins, tableEnds)
	}
	if want = before + want + after; want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the node says: write it anew with go test ./internal/daemon -run TestMetricsDoc -update", metricsDoc)
	}
	if err := os.WriteFile(metricsDoc, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Lines of router/drop.go: what a reason means, and what metrics call it.
var (
	dropMeaning = regexp.MustCompile(`(?m)^\tDrop(\w+) .*?// (.*)$`)
	dropName    = regexp.MustCompile(`Drop(\w+): +"(\w+)"`)
)

// dropDoc returns a table of the reasons for drops, out of the source: there they have to be said anyway.
func dropDoc(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(dropSource)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, found := range dropName.FindAllStringSubmatch(string(source), -1) {
		names[found[1]] = found[2]
	}
	table := "| `reason` of drops | frames and datagrams |\n|---|---|\n"
	for _, found := range dropMeaning.FindAllStringSubmatch(string(source), -1) {
		name, known := names[found[1]]
		if !known {
			t.Fatalf("Drop%s has no name", found[1])
		}
		table += fmt.Sprintf("| %s | %s |\n", name, found[2])
		delete(names, found[1])
	}
	for name := range names {
		t.Errorf("Drop%s has no meaning", name)
	}
	return table
}

// openLabels are those whose values are not known beforehand.
var openLabels = []string{"peer", "name", "addr", "range", "version", "goversion"}

// labelDoc returns the labels of m, with their values where there is a fixed set of them.
func (m *metric) labelDoc() string {
	var docs []string
	for _, label := range m.labels {
		if slices.Contains(openLabels, label) || m.name == "weft_peer_drops_total" && label == "reason" {
			docs = append(docs, "`"+label+"`")
			continue
		}
		docs = append(docs, fmt.Sprintf("`%s`: %s", label, strings.Join(slices.Sorted(maps.Keys(m.values[label])), ", ")))
	}
	return strings.Join(docs, "; ")
}

// expressions returns the PromQL of the dashboard and of the rules, by where it stands.
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

// panel is a panel of a Grafana dashboard, as far as this test looks.
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
	selectorPattern = regexp.MustCompile(`\b((?:weft|process|go)_[a-z0-9_]+)\{([^}]*)\}`)
	matcherPattern  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// scrapeLabels are those that Prometheus itself adds, and those of the parts of histograms and summaries.
var scrapeLabels = []string{"job", "instance", "le", "quantile"}

// TestDashboardAndRulesNameMetrics: every metric, label and value that they name exists.
func TestDashboardAndRulesNameMetrics(t *testing.T) {
	inMetricsLab(t, func(t *testing.T, _ *busyNode, registry *prometheus.Registry) {
		known := catalogue(t, registry)
		known["weft_peer_drops_total"].values["reason"] = known["weft_drops_total"].values["reason"] // of which few are above 0
		lookUp := func(name string) *metric {
			for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && known[base] != nil && (suffix == "") != (known[base].kind == "histogram") {
					return known[base]
				}
			}
			return nil
		}
		for where, expr := range expressions(t) {
			for _, name := range metricPattern.FindAllString(expr, -1) {
				if lookUp(name) == nil {
					t.Errorf("%s: there is no metric %s", where, name)
				}
			}
			for _, selector := range selectorPattern.FindAllStringSubmatch(expr, -1) {
				m := lookUp(selector[1])
				if m == nil {
					continue
				}
				for _, matcher := range matcherPattern.FindAllStringSubmatch(selector[2], -1) {
					label, value := matcher[1], matcher[3]
					switch {
					case slices.Contains(scrapeLabels, label):
					case !slices.Contains(m.labels, label):
						t.Errorf("%s: %s has no label %s", where, m.name, label)
					case !slices.Contains(openLabels, label) && !strings.Contains(value, "$"):
						for v := range strings.SplitSeq(value, "|") {
							if !m.values[label][v] {
								t.Errorf("%s: %s is never %q of %s", where, label, v, m.name)
							}
						}
					}
				}
			}
		}
	})
}

// TestRulesAreComplete: each alert has a name of its own, an expression, a severity and all annotations.
func TestRulesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRules(t) {
		if r.Alert == "" || r.Expr == "" || seen[r.Alert] {
			t.Errorf("%q has no name of its own, or no expression", r.Alert)
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

// TestDashboardIsWhole: panels have units, descriptions and places of their own.
func TestDashboardIsWhole(t *testing.T) {
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
			t.Errorf("%s: its ID %d is another's as well", p.Title, p.ID)
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
