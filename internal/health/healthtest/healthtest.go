// Package healthtest compares findings in tests.
package healthtest

import (
	"strings"
	"testing"

	"weft/internal/health"
)

// Want fails the test unless there is one finding of the given code with a remedy, and it contains the given texts; no code: no finding.
func Want(t *testing.T, what string, got []health.Finding, code health.Code, contains ...string) {
	t.Helper()
	if code == "" {
		if len(got) != 0 {
			t.Errorf("%s: %+v, want none", what, got)
		}
		return
	}
	if len(got) != 1 || got[0].Code != code || got[0].Remedy == "" {
		t.Errorf("%s: %+v, want one of %s with a remedy", what, got, code)
		return
	}
	for _, text := range contains {
		if !strings.Contains(got[0].Sentences(), text) {
			t.Errorf("%s: %q does not contain %q", what, got[0].Sentences(), text)
		}
	}
}
