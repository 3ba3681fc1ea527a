package deploy

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"weft/internal/kube/cluster"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

// documents returns the YAML documents in a text, without those that have only comments.
func documents(t *testing.T, text string) (docs []map[string]any) {
	t.Helper()
	for _, part := range strings.Split("\n"+text, "\n---\n") {
		var doc map[string]any
		if err := yaml.Unmarshal([]byte(part), &doc); err != nil {
			t.Fatalf("%v in\n%s", err, part)
		}
		if doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

// read returns the content of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// apiVersions are those of a cluster, as a chart asks for them.
type apiVersions []string

// Has implements the method that charts call.
func (v apiVersions) Has(name string) bool { return slices.Contains(v, name) }

// policies is the kind that older clusters do not have.
const policies = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"

// chartFiles are the files of the chart. Helm follows symbolic links when it reads a chart.
type chartFiles struct{ t *testing.T }

// Get implements the method that charts call.
func (f chartFiles) Get(name string) string { return read(f.t, filepath.Join("helm", name)) }

// chart is the chart with values. It is rendered without Helm, because it uses only the template language of Go and two of the functions
// that Helm adds to it.
type chart struct {
	t        *testing.T
	values   map[string]any
	versions apiVersions
}

// newChart returns the chart with its default values, for a cluster that has all kinds.
func newChart(t *testing.T) *chart {
	t.Helper()
	c := &chart{t: t, values: map[string]any{}, versions: apiVersions{policies}}
	if err := yaml.Unmarshal([]byte(read(t, "helm/values.yaml")), &c.values); err != nil {
		t.Fatal(err)
	}
	return c
}

// set sets a value by its path, such as metrics.enabled.
func (c *chart) set(path string, value any) *chart {
	c.t.Helper()
	at := c.values
	parts := strings.Split(path, ".")
	for _, name := range parts[:len(parts)-1] {
		at = at[name].(map[string]any)
	}
	last := parts[len(parts)-1]
	if _, known := at[last]; !known {
		c.t.Errorf("the chart has no value %s", path)
	}
	at[last] = value
	return c
}

// render returns a template with the values.
func (c *chart) render(name string) (string, error) {
	c.t.Helper()
	functions := template.FuncMap{
		"indent": func(n int, text string) string {
			space := strings.Repeat(" ", n)
			return space + strings.ReplaceAll(text, "\n", "\n"+space)
		},
		"fail": func(message string) (string, error) { return "", errors.New(message) },
	}
	parsed, err := template.New("chart").Option("missingkey=error").Funcs(functions).ParseGlob("helm/templates/*.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	var out bytes.Buffer
	err = parsed.ExecuteTemplate(&out, name, map[string]any{
		"Values": c.values, "Release": map[string]string{"Namespace": "kube-system"}, "Files": chartFiles{c.t},
		"Capabilities": map[string]any{"APIVersions": c.versions},
	})
	return out.String(), err
}

// file returns the text of a template with the values.
func (c *chart) file(name string) string {
	c.t.Helper()
	text, err := c.render(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// wantEqual checks that a manifest and a template of the chart have the same objects.
func (c *chart) wantEqual(manifest, name string) {
	c.t.Helper()
	if diff := cmp.Diff(documents(c.t, read(c.t, manifest)), documents(c.t, c.file(name))); diff != "" {
		c.t.Errorf("%s and the chart differ (-manifest +chart):\n%s", manifest, diff)
	}
}

// wantCounts checks how often texts are in a text.
func wantCounts(t *testing.T, text string, counts map[string]int) {
	t.Helper()
	for part, want := range counts {
		if n := strings.Count(text, part); n != want {
			t.Errorf("%q is there %d times, want %d, in\n%s", part, n, want, text)
		}
	}
}

// TestChartIsTheManifest: the chart with its default values equals the manifest.
func TestChartIsTheManifest(t *testing.T) {
	c := newChart(t)
	c.wantEqual("kubernetes.yaml", "weft.yaml")
	for _, name := range []string{"identities.yaml", "metrics.yaml"} {
		if got := documents(t, c.file(name)); len(got) > 0 {
			t.Errorf("%s, which is not enabled: %v", name, got)
		}
	}
	c.set("identities.enabled", true).wantEqual("kubernetes-identities.yaml", "identities.yaml")
}

// TestChartValues: other values have their effect.
func TestChartValues(t *testing.T) {
	c := newChart(t).set("identities.enabled", true).set("env", map[string]any{"WEFT_DATAPATH": "userspace"}).
		set("apiserver", "https://10.0.0.1:6443").set("plain", true).
		set("image", map[string]any{"name": "registry.example/weft", "tag": "x", "digest": "sha256:01", "pullPolicy": "IfNotPresent"})
	c.versions = nil // a cluster without policies
	got := c.file("weft.yaml")
	if len(documents(t, got)) != 4 || strings.Contains(got, "ValidatingAdmissionPolicy\n") || strings.Contains(got, "localhost/") {
		t.Errorf("with other values:\n%s", got)
	}
	wantCounts(t, got, map[string]int{
		`{name: WEFT_DATAPATH, value: "userspace"}`: 1, `{name: WEFT_PLAIN, value: "true"}`: 1, `{name: WEFT_IDENTITIES, value: "true"}`: 1,
		"image: registry.example/weft@sha256:01\n": 3,
	})
}

// TestChartMetrics: metrics are on another address only where that is enabled, and the probes ask the same port. The objects of the
// Prometheus operator have the rules and the dashboard of this folder.
func TestChartMetrics(t *testing.T) {
	c := newChart(t).set("metrics.enabled", true).set("metrics.port", 16782).set("metrics.kubePort", 16781)
	wantCounts(t, c.file("weft.yaml"), map[string]int{
		`{name: WEFT_HTTP_ADDR, value: "0.0.0.0:16782"}`: 1, `[weft-kube, run, --http-addr, "0.0.0.0:16781"]`: 1,
		"{host: 127.0.0.1, port: 16782, ": 2, "{host: 127.0.0.1, port: 16781, ": 2, "6782": 3, "6781": 3, "containerPort": 0,
	})
	if docs := documents(t, c.file("metrics.yaml")); len(docs) != 1 || docs[0]["kind"] != "Service" {
		t.Errorf("without the objects of the operator: %v", docs)
	}
	c.set("metrics.serviceMonitor.enabled", true).set("metrics.rules.enabled", true).set("metrics.dashboard.enabled", true).
		set("metrics.labels", map[string]any{"release": "prometheus"})
	kinds := map[string]map[string]any{}
	for _, d := range documents(t, c.file("metrics.yaml")) {
		kinds[d["kind"].(string)] = d
	}
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, []string{"ConfigMap", "PrometheusRule", "Service", "ServiceMonitor"}) {
		t.Fatalf("objects %v", got)
	}
	var rules map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/weft.rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules, kinds["PrometheusRule"]["spec"]); diff != "" {
		t.Errorf("the rules and the chart differ (-rules +chart):\n%s", diff)
	}
	data := kinds["ConfigMap"]["data"].(map[string]any)
	if diff := cmp.Diff(strings.TrimSpace(read(t, "grafana/weft.json")), strings.TrimSpace(data["weft.json"].(string))); diff != "" {
		t.Errorf("the dashboard and the chart differ (-dashboard +chart):\n%s", diff)
	}
	for _, kind := range []string{"PrometheusRule", "ServiceMonitor"} {
		labels := kinds[kind]["metadata"].(map[string]any)["labels"].(map[string]any)
		if labels["release"] != "prometheus" || labels["app"] != "weft" {
			t.Errorf("%s: labels %v", kind, labels)
		}
	}
	// The rules need one target of the job "weft" for each node: the selected label of the Service is the job.
	monitor := kinds["ServiceMonitor"]["spec"].(map[string]any)
	service := kinds["Service"]["metadata"].(map[string]any)["labels"].(map[string]any)
	if monitor["jobLabel"] != "app" || service["app"] != "weft" {
		t.Errorf("the job is the label %v of the Service, which has the labels %v", monitor["jobLabel"], service)
	}
	c.set("metrics.enabled", false)
	if _, err := c.render("metrics.yaml"); err == nil || !strings.Contains(err.Error(), "needs metrics.enabled") {
		t.Errorf("a ServiceMonitor without metrics: %v", err)
	}
}

// TestChartRemoval: the removal equals its manifest, runs when the chart is deleted and never else, and can be turned off.
func TestChartRemoval(t *testing.T) {
	c := newChart(t)
	want := map[string]any{
		"helm.sh/hook": "pre-delete", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
	}
	docs := documents(t, c.file("removal.yaml"))
	for _, d := range docs {
		metadata := d["metadata"].(map[string]any)
		annotations := metadata["annotations"].(map[string]any)
		weight := "-5" // before the Job
		if d["kind"] == "Job" {
			weight = "0"
		}
		want["helm.sh/hook-weight"] = weight
		if diff := cmp.Diff(want, annotations); diff != "" {
			t.Errorf("%v %v: annotations (-want +chart):\n%s", d["kind"], metadata["name"], diff)
		}
		delete(metadata, "annotations")
	}
	if diff := cmp.Diff(documents(t, read(t, "kubernetes-remove.yaml")), docs); diff != "" {
		t.Errorf("kubernetes-remove.yaml and the chart differ (-manifest +chart):\n%s", diff)
	}
	c.set("stateDir", "/data/weft").set("image", map[string]any{"name": "r/weft", "tag": "x", "digest": "", "pullPolicy": "Always"})
	wantCounts(t, c.file("removal.yaml"), map[string]int{
		"r/weft:x": 2, "--state-dir, /data/weft,": 1, "--image-pull-policy, Always,": 1, "imagePullPolicy: Always": 1,
	})
	if got := documents(t, c.set("removal.enabled", false).file("removal.yaml")); len(got) > 0 {
		t.Errorf("a removal that is not enabled: %v", got)
	}
	for _, name := range []string{"weft.yaml", "identities.yaml", "metrics.yaml"} {
		if strings.Contains(c.set("identities.enabled", true).set("metrics.enabled", true).file(name), "helm.sh/hook") {
			t.Errorf("%s has a hook", name)
		}
	}
}

// TestRemovalIsClosed: the removal has no privileges itself, and its account may delete only weft's DaemonSet. The label of its pod is not
// that of the pods that it makes and deletes.
func TestRemovalIsClosed(t *testing.T) {
	jobs := 0
	for _, o := range objectsOf(t, "kubernetes-remove.yaml") {
		for _, r := range o.Rules {
			if slices.Equal(r.Resources, []string{"daemonsets"}) && !slices.Equal(r.ResourceNames, []string{"weft"}) {
				t.Errorf("%+v", r)
			}
		}
		if o.Kind != "Job" {
			continue
		}
		jobs++
		p := o.Spec.Template.Spec
		c := p.Containers[0]
		s := c.SecurityContext
		if !p.SecurityContext.RunAsNonRoot || s.Privileged || !s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil ||
			*s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 ||
			c.Resources.Limits["memory"] == "" || c.ImagePullPolicy != "Never" || !strings.HasPrefix(c.Image, "localhost/") {
			t.Errorf("%+v", p)
		}
	}
	if text := read(t, "kubernetes-remove.yaml"); jobs != 1 || strings.Count(text, "{app: weft-remove-job}") != 1 ||
		strings.Contains(text, "{app: weft-remove}") {
		t.Errorf("%d jobs:\n%s", jobs, text)
	}
}

// TestAdminResources: the role of nodes may read all kinds of policies that weft-kube reads: one that it may not read stops it.
func TestAdminResources(t *testing.T) {
	for path, text := range map[string]string{"kubernetes.yaml": read(t, "kubernetes.yaml"), "weft.yaml": newChart(t).file("weft.yaml")} {
		var got []string
		for _, d := range documents(t, text) {
			rules, _ := d["rules"].([]any)
			for _, r := range rules {
				rule := r.(map[string]any)
				if groups := rule["apiGroups"].([]any); len(groups) == 1 && groups[0] == "policy.networking.k8s.io" {
					for _, v := range rule["resources"].([]any) {
						got = append(got, v.(string))
					}
				}
			}
		}
		if !slices.Equal(got, cluster.AdminResources()) {
			t.Errorf("%s: %v, want %v", path, got, cluster.AdminResources())
		}
	}
}

// TestRulesOfRoles: no role of the manifests and of the chart reads Secrets, has wildcards, or lets its account become another.
// Secrets are mounted: the kubelet reads them for the pod.
func TestRulesOfRoles(t *testing.T) {
	texts := map[string]string{}
	paths, err := filepath.Glob("kubernetes*.yaml")
	if err != nil || len(paths) < 2 {
		t.Fatalf("manifests %v, %v", paths, err)
	}
	for _, path := range paths {
		texts[path] = read(t, path)
	}
	c := newChart(t).set("identities.enabled", true).set("metrics.enabled", true)
	templates, err := filepath.Glob("helm/templates/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range templates {
		texts[path] = c.file(filepath.Base(path))
	}
	roles := 0
	for path, text := range texts {
		for _, d := range documents(t, text) {
			rules, _ := d["rules"].([]any)
			if kind := d["kind"]; kind != "ClusterRole" && kind != "Role" {
				continue
			}
			roles++
			for _, r := range rules {
				rule := r.(map[string]any)
				for _, field := range []string{"apiGroups", "resources", "verbs", "nonResourceURLs"} {
					list, _ := rule[field].([]any)
					for _, v := range list {
						word := v.(string)
						if strings.Contains(word, "*") || slices.Contains([]string{
							"secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "nodes/proxy", "bind", "escalate", "impersonate",
						}, word) {
							t.Errorf("%s: %v", path, rule)
						}
					}
				}
			}
		}
	}
	if roles < 6 {
		t.Errorf("%d roles", roles)
	}
}

// TestDisruptions: the autoscaler does not evict weft before other pods, nothing blocks a drain, and weft has the priority of what a node
// needs.
func TestDisruptions(t *testing.T) {
	daemonSets, budgets := 0, 0
	for _, d := range append(documents(t, read(t, "kubernetes.yaml")), documents(t, read(t, "kubernetes-identities.yaml"))...) {
		spec, _ := d["spec"].(map[string]any)
		switch d["kind"] {
		case "DaemonSet":
			daemonSets++
			template := spec["template"].(map[string]any)
			annotations := template["metadata"].(map[string]any)["annotations"].(map[string]any)
			priority := template["spec"].(map[string]any)["priorityClassName"]
			if annotations["cluster-autoscaler.kubernetes.io/enable-ds-eviction"] != "false" || priority != "system-node-critical" {
				t.Errorf("annotations %v, priority %v", annotations, priority)
			}
		case "PodDisruptionBudget":
			budgets++
			if spec["maxUnavailable"] != 1 || spec["unhealthyPodEvictionPolicy"] != "AlwaysAllow" {
				t.Errorf("the budget blocks drains: %v", spec)
			}
		}
	}
	if daemonSets != 1 || budgets != 1 {
		t.Errorf("%d DaemonSets, %d budgets", daemonSets, budgets)
	}
}

// TestFieldsOfObjects: all objects of the manifests and of the chart have only fields that their kinds have. The API server ignores others
// with a warning at most.
func TestFieldsOfObjects(t *testing.T) {
	c := newChart(t).set("identities.enabled", true).set("metrics.enabled", true)
	texts := []string{c.file("weft.yaml"), c.file("identities.yaml"), c.file("metrics.yaml"), c.file("removal.yaml")}
	paths, err := filepath.Glob("kubernetes*.yaml")
	if err != nil || len(paths) != 3 {
		t.Fatalf("manifests %v, %v", paths, err)
	}
	for _, path := range paths {
		texts = append(texts, read(t, path))
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, text := range texts {
		for _, d := range documents(t, text) {
			object, err := yaml.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := decoder.Decode(object, nil, nil); err != nil {
				t.Errorf("%v %v: %v", d["kind"], d["metadata"], err)
			}
		}
	}
}
