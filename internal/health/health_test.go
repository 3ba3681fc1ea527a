package health_test

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/health"
)

// fixed is a Source of the findings that it points to.
type fixed struct{ findings *[]health.Finding }

func (f fixed) Findings() []health.Finding { return *f.findings }

// phrase is a Requirement that misses what it says.
type phrase string

func (p phrase) Missing() string { return string(p) }

func TestConditionsBeginAndEnd(t *testing.T) {
	now := time.Unix(1000, 0)
	var findings []health.Finding
	r := health.New(health.Config{Sources: []health.Source{fixed{&findings}}, Now: func() time.Time { return now }})
	if c := r.Conditions(); c == nil || len(c) != 0 {
		t.Errorf("without findings: %v", c)
	}
	target := health.Finding{Code: health.TargetUnreachable, Key: "a:1", Text: "x", Remedy: "y"}
	findings = []health.Finding{target, target} // reported twice, shown once
	r.Conditions()
	now = now.Add(time.Minute)
	orphan := health.Finding{Code: health.PodScanFailed, Text: "z"}
	findings = append(findings, orphan)
	d, e := health.DefinitionOf(target.Code), health.DefinitionOf(orphan.Code)
	want := []health.Condition{
		{Finding: orphan, Severity: e.Severity, Title: e.Title, Since: now}, // the more severe is first
		{Finding: target, Severity: d.Severity, Title: d.Title, Since: now.Add(-time.Minute)},
	}
	if diff := cmp.Diff(want, r.Conditions()); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	findings = nil
	r.Conditions()
	now = now.Add(time.Minute)
	findings = []health.Finding{target}
	if c := r.Conditions(); len(c) != 1 || !c[0].Since.Equal(now) {
		t.Errorf("a condition that ended and began again: %+v, want it to begin at %s", c, now)
	}
}

// TestBeginAndEndAreLoggedOnce: the log has the begin and the end of a condition once, however often the conditions are read.
func TestBeginAndEndAreLoggedOnce(t *testing.T) {
	var log strings.Builder
	findings := []health.Finding{{Code: health.NoSecret}}
	r := health.New(health.Config{
		Sources: []health.Source{fixed{&findings}}, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	r.Conditions()
	r.Conditions()
	findings = nil
	r.Conditions()
	began, ended := strings.Count(log.String(), "condition began"), strings.Count(log.String(), "condition ended")
	if began != 1 || ended != 1 {
		t.Errorf("%d begins and %d ends in the log:\n%s", began, ended, log.String())
	}
}

func TestReadiness(t *testing.T) {
	r := health.New(health.Config{Requirements: []health.Requirement{phrase(""), phrase("rules"), phrase("range")}})
	if r.Ready() || r.Missing() != "rules" {
		t.Errorf("ready %v, missing %q", r.Ready(), r.Missing())
	}
	if r := health.New(health.Config{Requirements: []health.Requirement{phrase("")}}); !r.Ready() {
		t.Error("not ready although nothing is missing")
	}
}

func TestSentences(t *testing.T) {
	if got := (health.Finding{Text: "A is down.", Remedy: "Start it."}).Sentences(); got != "A is down. Start it." {
		t.Errorf("%q", got)
	}
	if got := (health.Finding{Text: "A starts."}).Sentences(); got != "A starts." {
		t.Errorf("%q", got)
	}
}

// TestDefinitions holds the table of codes to its form: unique snake_case codes, known severities, short titles.
func TestDefinitions(t *testing.T) {
	seen := map[health.Code]bool{}
	for _, d := range health.Definitions() {
		if seen[d.Code] {
			t.Errorf("%s is defined twice", d.Code)
		}
		seen[d.Code] = true
		if !regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`).MatchString(string(d.Code)) {
			t.Errorf("%q is not in snake_case", d.Code)
		}
		switch d.Severity {
		case health.Info, health.Warning, health.Error:
		default:
			t.Errorf("%s has the severity %q", d.Code, d.Severity)
		}
		if d.Title == "" || len(d.Title) > 60 || strings.HasSuffix(d.Title, ".") {
			t.Errorf("%s has the title %q", d.Code, d.Title)
		}
	}
}
