// Package deploy has the files that install and monitor weft: manifests, a chart, an image, packages, alert rules and a
// dashboard. Its tests check that they agree with each other.
package deploy

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// TestAlertRules: promtool accepts the rules and their tests pass. The test is skipped without promtool, which nothing else needs;
// other tests still check that all metrics in the rules exist.
func TestAlertRules(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	for _, args := range [][]string{{"check", "rules", "weft.rules.yaml"}, {"test", "rules", "weft.rules.test.yaml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// anchorOf returns the anchor of a Markdown heading, as forges make it.
func anchorOf(heading string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#"))) {
		switch {
		case r == ' ':
			out.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			out.WriteRune(r)
		}
	}
	return out.String()
}

// TestAlertRunbooks: each alert has a summary, a description, and a runbook_url to an existing section of a page in docs.
func TestAlertRunbooks(t *testing.T) {
	text, err := os.ReadFile("prometheus/weft.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts++
			for _, name := range []string{"summary", "description", "runbook_url"} {
				if r.Annotations[name] == "" {
					t.Errorf("%s has no %s", r.Alert, name)
				}
			}
			page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			text, err := os.ReadFile("../" + page)
			if err != nil || !strings.HasPrefix(page, "docs/") {
				t.Errorf("%s: runbook_url %q: %v", r.Alert, page, err)
			}
			if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
				return strings.HasPrefix(line, "#") && anchorOf(line) == anchor
			}) && !strings.Contains(string(text), `<a id="`+anchor+`">`) {
				t.Errorf("%s: %s has no section %q", r.Alert, page, anchor)
			}
		}
	}
	if alerts == 0 {
		t.Error("no alerts")
	}
}
