package node

import (
	"os"
	"strings"
	"testing"

	"weft/internal/health"
)

const operationsDoc = "../../docs/OPERATIONS.md"

// TestOperationsHasEveryCondition: the page has a section for each code, with its severity, and no other section of that kind.
func TestOperationsHasEveryCondition(t *testing.T) {
	text, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## Conditions\n")
	if !found {
		t.Fatalf("%s has no chapter on conditions", operationsDoc)
	}
	chapter, _, _ := strings.Cut(rest, "\n## ")
	sections := map[string]string{} // severity by heading
	for _, s := range strings.Split("\n"+chapter, "\n#### ")[1:] {
		heading, body, _ := strings.Cut(s, "\n")
		severity, _, _ := strings.Cut(strings.TrimLeft(body, "\n"), ":")
		sections[heading] = strings.Trim(severity, "*")
	}
	for _, d := range health.Definitions() {
		severity, ok := sections[string(d.Code)]
		delete(sections, string(d.Code))
		if !ok || severity != string(d.Severity) {
			t.Errorf("%s: want a section %q of severity %s, found %q", operationsDoc, d.Code, d.Severity, severity)
		}
	}
	for heading := range sections {
		t.Errorf("%s describes %q, which is not the code of a condition", operationsDoc, heading)
	}
}
