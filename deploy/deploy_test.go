// Package deploy holds what installs weft and watches it: manifests, a chart, an image, rules, a dashboard. This test keeps them the same.
package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// documents returns the YAML documents of a text.
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

// TestChartIsTheManifest renders the chart with its default values: Helm's own template language is Go's, and the chart uses no
// more of it.
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
	chart, err := template.New("weft.yaml").Option("missingkey=error").ParseFiles("helm/templates/weft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	render := func() string {
		var out bytes.Buffer
		if err := chart.Execute(&out, map[string]any{"Values": values, "Release": map[string]string{"Namespace": "kube-system"}}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if diff := cmp.Diff(documents(t, string(manifest)), documents(t, render())); diff != "" {
		t.Errorf("kubernetes.yaml and the chart differ (-manifest +chart):\n%s", diff)
	}
	values["env"] = map[string]any{"WEFT_DATAPATH": "userspace"}
	values["apiserver"] = "https://10.0.0.1:6443"
	if got := render(); !strings.Contains(got, `{name: WEFT_DATAPATH, value: "userspace"}`) || len(documents(t, got)) != 4 {
		t.Errorf("with other values:\n%s", got)
	}
}

// TestAlertRules has Prometheus' own tool read the rules and play their histories. Nothing else needs the tool, so it is not
// installed for this: without it internal/daemon still holds that what the rules name exists.
func TestAlertRules(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	for _, args := range [][]string{{"check", "rules", "weft.rules.yaml"}, {"test", "rules", "weft.rules.test.yaml"}} {
		cmd := exec.Command(tool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
