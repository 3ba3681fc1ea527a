package kubernetes

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// as runs kubectl with a token instead of the administrator's certificate.
func (l *lab) as(t testing.TB, token string, args ...string) error {
	_, err := l.run(t.Context(), append([]string{
		"k", "--kubeconfig=/dev/null", "--server=" + l.addresses["API_URL"],
		"--certificate-authority=" + filepath.Join(l.home, "cluster", "pki", "ca.crt"), "--token=" + token,
	}, args...)...)
	return err
}

// patchStatus changes the status of a node with a token. "kubectl patch" would read the node first, which the token may not.
func (l *lab) patchStatus(t testing.TB, token, node, patch string) error {
	t.Helper()
	out, err := l.run(t.Context(), "api", "curl", "-sSg", "--fail-with-body", "--cacert", filepath.Join(l.home, "cluster", "pki", "ca.crt"),
		"-X", "PATCH", "-H", "Authorization: Bearer "+token, "-H", "Content-Type: application/strategic-merge-patch+json", "-d", patch,
		l.addresses["API_URL"]+"/api/v1/nodes/"+node+"/status")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// tokens: the token of weft's pod on node 2 changes nothing but the annotation and the condition of node 2, and writes no events of
// others.
func (l *lab) tokens(t *recorder) string {
	pod := l.weftPod(t, 2)
	bound := l.kubectl(t, "-n", "kube-system", "create", "token", "weft", "--bound-object-kind=Pod", "--bound-object-name="+pod)
	unbound := l.kubectl(t, "-n", "kube-system", "create", "token", "weft")
	const (
		condition = `{"status":{"conditions":[{"type":%q,"status":%q,"reason":"WeftIsUp","message":"a test"}]}}`
		key       = `{"metadata":{"annotations":{"weft.network/peer-id":"0123456789abcdef"}}}`
	)
	id := l.kubectl(t, "get", "node", "node2", "-o", `jsonpath={.metadata.annotations.weft\.network/peer-id}`)
	up := fmt.Sprintf(condition, "NetworkUnavailable", "False")
	for _, c := range []struct{ name, token, node, patch, want string }{
		{"own condition", bound, "node2", up, ""},
		{"own annotation", bound, "node2", strings.ReplaceAll(key, "0123456789abcdef", id), ""},
		{"own addresses", bound, "node2", `{"metadata":{"annotations":{"weft.network/addresses":"10.244.0.1,fd00:244::1"}}}`, ""},
		{"no addresses", bound, "node2", `{"metadata":{"annotations":{"weft.network/addresses":null}}}`, ""},
		{"not addresses", bound, "node2", `{"metadata":{"annotations":{"weft.network/addresses":"all pods"}}}`, "only its own annotations"},
		{"condition of another node", bound, "node1", up, "only the node that it runs on"},
		{"annotation of another node", bound, "node1", key, "only the node that it runs on"},
		{"a token without a node", unbound, "node2", up, "only the node that it runs on"},
		{"own network down", bound, "node2", fmt.Sprintf(condition, "NetworkUnavailable", "True"), "only the condition NetworkUnavailable"},
		{"another condition", bound, "node2", fmt.Sprintf(condition, "Ready", "True"), "only the condition NetworkUnavailable"},
		{"a new condition", bound, "node2", fmt.Sprintf(condition, "Other", "False"), "only the condition NetworkUnavailable"},
		{"addresses", bound, "node2", `{"status":{"addresses":[{"type":"InternalIP","address":"172.30.0.99"}]}}`, "only the conditions"},
		{"capacity", bound, "node2", `{"status":{"capacity":{"example.com/x":"1"}}}`, "only the conditions"},
		{"a label", bound, "node2", `{"metadata":{"labels":{"x":"y"}}}`, "no labels"},
		{"another annotation", bound, "node2", `{"metadata":{"annotations":{"x":"y"}}}`, "only its own annotations"},
		{"an empty annotation", bound, "node2", `{"metadata":{"annotations":{"x":""}}}`, "only its own annotations"},
		{"no annotations", bound, "node2", `{"metadata":{"annotations":null}}`, "only its own annotations"},
		{"not an ID", bound, "node2", `{"metadata":{"annotations":{"weft.network/peer-id":"x"}}}`, "only its own annotations"},
	} {
		err := l.patchStatus(t, c.token, c.node, c.patch)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	event := func(component, host string) error {
		text := fmt.Sprintf(`{apiVersion: v1, kind: Event, metadata: {generateName: x, namespace: default}, type: Warning, reason: Test,
  message: x,
  involvedObject: {kind: Pod, name: p1, namespace: default}, source: {component: %s, host: %s}}`, component, host)
		return l.as(t, bound, "create", "-f", l.file(t, "event.yaml", text))
	}
	if err := event("weft", "node2"); err != nil {
		t.Errorf("an event of weft: %v", err)
	}
	for _, source := range [][2]string{{"kubelet", "node2"}, {"weft", "node1"}} {
		if err := event(source[0], source[1]); err == nil || !strings.Contains(err.Error(), "only events of its own") {
			t.Errorf("an event of %v: %v", source, err)
		}
	}
	warnings := l.kubectl(t, "get", "validatingadmissionpolicy", "weft", "-o", "jsonpath={.status.typeChecking.expressionWarnings}")
	if warnings != "" {
		t.Errorf("the expressions have faults: %s", warnings)
	}
	for _, text := range []string{"secrets", "pods/exec", "nodes"} {
		if err := l.as(t, bound, "auth", "can-i", "delete", text, "-A"); err == nil {
			t.Errorf("the token may delete %s", text)
		}
	}
	return "the token of a node changes its own annotation and condition, and nothing else"
}

// tokenReads: the ServiceAccount of weft reads no Secret, of no namespace, and no other object that has secrets.
func (l *lab) tokenReads(t *recorder) string {
	const account = "--as=system:serviceaccount:kube-system:weft"
	for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
		for _, object := range []string{"secrets", "secrets/weft", "serviceaccounts/token", "configmaps"} {
			for _, namespace := range []string{"--all-namespaces", "--namespace=kube-system", "--namespace=default"} {
				out, err := l.run(t.Context(), "k", "auth", "can-i", verb, object, account, namespace)
				if err == nil || !strings.HasPrefix(out, "no") {
					t.Errorf("kubectl auth can-i %s %s %s: %s", verb, object, namespace, out)
				}
			}
		}
	}
	list := l.kubectl(t, "auth", "can-i", "--list", account, "--namespace=kube-system")
	if strings.Contains(list, "secret") {
		t.Errorf("the account may:\n%s", list)
	}
	return "`kubectl auth can-i`: the ServiceAccount reads and writes no Secret, no ConfigMap, and creates no token"
}
