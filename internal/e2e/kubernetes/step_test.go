package kubernetes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/e2e/kubernetes/outcome"
	"weft/internal/e2e/kubernetes/page"
)

// step is one thing that happens to the cluster.
type step struct {
	name string
	// run does it, and returns the outcome as the page shows it.
	run func(l *lab, t *recorder) string
	// setUp is true if later steps need what it leaves behind: it runs also if it has a result of an earlier run.
	setUp bool
}

// recorder is the test of a step, which collects its failures for the record.
type recorder struct {
	*testing.T
	failures []string
	skipped  string
}

// Error is testing.T.Error.
func (r *recorder) Error(args ...any) {
	r.Helper()
	r.failures = append(r.failures, fmt.Sprint(args...))
	r.T.Error(args...)
}

// Errorf is testing.T.Errorf.
func (r *recorder) Errorf(format string, args ...any) {
	r.Helper()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
	r.T.Errorf(format, args...)
}

// Fatal is testing.T.Fatal.
func (r *recorder) Fatal(args ...any) {
	r.Helper()
	r.failures = append(r.failures, fmt.Sprint(args...))
	r.T.Fatal(args...)
}

// Fatalf is testing.T.Fatalf.
func (r *recorder) Fatalf(format string, args ...any) {
	r.Helper()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
	r.T.Fatalf(format, args...)
}

// Skip is testing.T.Skip.
func (r *recorder) Skip(args ...any) {
	r.Helper()
	r.skipped = fmt.Sprint(args...)
	r.T.Skip(args...)
}

// steps runs steps in their order, without those that an earlier run has done. What later steps need runs again; it has a new result
// only if the last one is a failure. steps ends where such a step fails, and reports whether none did.
func (l *lab) steps(t *testing.T, folder string, steps []step) bool {
	t.Helper()
	path := filepath.Join(folder, page.StepsFile)
	done, err := outcome.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		i := slices.IndexFunc(done, func(t outcome.Test) bool { return t.Name == s.name })
		if i >= 0 && !s.setUp {
			continue
		}
		result := l.step(t, s)
		if i < 0 || done[i].Last().State == outcome.Failed {
			if err := outcome.Append(path, result); err != nil {
				t.Fatal(err)
			}
		}
		if result.State == outcome.Failed && s.setUp {
			return false
		}
	}
	return true
}

// step runs one step.
func (l *lab) step(t *testing.T, s step) outcome.Result {
	t.Helper()
	start := time.Now()
	result := outcome.Result{Name: s.name, State: outcome.Failed}
	var r *recorder
	passed := t.Run(s.name, func(t *testing.T) {
		r = &recorder{T: t}
		result.Message = s.run(l, r)
		t.Log(result.Message)
	})
	switch {
	case !passed:
		if result.Message != "" {
			r.failures = append(r.failures, result.Message)
		}
		result.Message = strings.Join(r.failures, "; ")
	case r.skipped != "":
		result.State, result.Message = outcome.Skipped, r.skipped
	default:
		result.State = outcome.Passed
	}
	result.Seconds = time.Since(start).Round(100 * time.Millisecond).Seconds()
	return result
}
