// Package deploy has the files that install and monitor weft: manifests, a chart, an image, packages, alert rules and a
// dashboard. Its tests check that they agree with each other.
package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/template"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// documents returns the YAML documents in a text.
func documents(t *testing.T, text string) (docs []map[string]any) {
	t.Helper()
	for _, part := range strings.Split(text, "\n---\n") {
		var doc map[string]any
		if err := yaml.Unmarshal([]byte(part), &doc); err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		docs = append(docs, doc)
	}
	return docs
}

// apiVersions are those of a cluster, as a chart asks for them.
type apiVersions []string

// Has implements the method that charts call.
func (v apiVersions) Has(name string) bool { return slices.Contains(v, name) }

// policies is the kind that older clusters do not have.
const policies = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"

// TestChartIsTheManifest: the chart with its default values equals the manifest. It is rendered without Helm, because it uses only
// the template language of Go.
func TestChartIsTheManifest(t *testing.T) {
	manifest, err := os.ReadFile("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("helm/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	identities, err := os.ReadFile("kubernetes-identities.yaml")
	if err != nil {
		t.Fatal(err)
	}
	chart, err := template.New("chart").Option("missingkey=error").ParseFiles("helm/templates/weft.yaml", "helm/templates/identities.yaml")
	if err != nil {
		t.Fatal(err)
	}
	renderFile := func(name string, versions ...string) string {
		var out bytes.Buffer
		if err := chart.ExecuteTemplate(&out, name, map[string]any{
			"Values": values, "Release": map[string]string{"Namespace": "kube-system"},
			"Capabilities": map[string]any{"APIVersions": apiVersions(versions)},
		}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	render := func(versions ...string) string { return renderFile("weft.yaml", versions...) }
	if diff := cmp.Diff(documents(t, string(manifest)), documents(t, render(policies))); diff != "" {
		t.Errorf("kubernetes.yaml and the chart differ (-manifest +chart):\n%s", diff)
	}
	if got := strings.TrimSpace(renderFile("identities.yaml")); got != "" {
		t.Errorf("identities that are not enabled:\n%s", got)
	}
	values["identities"].(map[string]any)["enabled"] = true
	if diff := cmp.Diff(documents(t, string(identities)), documents(t, renderFile("identities.yaml"))); diff != "" {
		t.Errorf("kubernetes-identities.yaml and the chart differ (-manifest +chart):\n%s", diff)
	}
	values["env"] = map[string]any{"WEFT_DATAPATH": "userspace"}
	values["apiserver"] = "https://10.0.0.1:6443"
	values["plain"] = true
	values["image"] = map[string]any{"name": "registry.example/weft", "tag": "x", "digest": "sha256:01", "pullPolicy": "IfNotPresent"}
	got := render() // of a cluster without policies
	if len(documents(t, got)) != 4 || strings.Contains(got, "ValidatingAdmissionPolicy\n") || strings.Contains(got, "localhost/") {
		t.Errorf("with other values:\n%s", got)
	}
	for text, want := range map[string]int{
		`{name: WEFT_DATAPATH, value: "userspace"}`: 1, `{name: WEFT_PLAIN, value: "true"}`: 1, `{name: WEFT_IDENTITIES, value: "true"}`: 1,
		"image: registry.example/weft@sha256:01\n": 3,
	} {
		if n := strings.Count(got, text); n != want {
			t.Errorf("%q is there %d times, want %d, in\n%s", text, n, want, got)
		}
	}
}

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
