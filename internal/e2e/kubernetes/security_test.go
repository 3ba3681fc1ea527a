package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// refused waits until "weft-kube prepare" on a node has refused to start with a message that the pod shows.
func (l *lab) refused(t *testing.T, node int, message string) {
	t.Helper()
	until(t, func() error {
		got := l.kubectl(t, "-n", "kube-system", "get", "pods", "-l", "app=weft", fmt.Sprintf("--field-selector=spec.nodeName=node%d", node),
			"-o", "jsonpath={.items[*].status.initContainerStatuses[0]['state','lastState'].terminated.message}")
		if !strings.Contains(got, message) || !strings.Contains(got, "WEFT_PLAIN=true") {
			return fmt.Errorf("node %d shows %q", node, got)
		}
		return nil
	})
}

// withoutSecret applies the manifest as it is: without a Secret no node starts, and each pod shows why.
func (l *lab) withoutSecret(t *testing.T) string {
	manifest := l.manifest(t)
	l.kubectl(t, "apply", "-f", manifest)
	for node := 1; node <= 2; node++ {
		l.refused(t, node, "nothing says that nodes communicate without encryption")
	}
	l.kubectl(t, "delete", "-f", manifest, "--wait=true")
	return "no node starts, the pods show the reason and the remedy"
}

// weftPod returns the name of weft's pod on a node.
func (l *lab) weftPod(t *testing.T, node int) string {
	t.Helper()
	return l.kubectl(t, "-n", "kube-system", "get", "pods", "-l", "app=weft", fmt.Sprintf("--field-selector=spec.nodeName=node%d", node),
		"-o", "jsonpath={.items[0].metadata.name}")
}

// secretGone deletes the Secret of a running cluster. Running nodes keep it; a node that starts again refuses, until the Secret
// is back.
func (l *lab) secretGone(t *testing.T) string {
	l.kubectl(t, "-n", "kube-system", "delete", "secret", "weft")
	l.kubectl(t, "-n", "kube-system", "delete", "pod", l.weftPod(t, 2))
	l.refused(t, 2, "this node has had one")
	if out := l.weft(t, 1, "status"); !strings.Contains(out, "Encryption") || strings.Contains(out, "Encryption  off") {
		t.Errorf("node 1 is not encrypted any more:\n%s", out)
	}
	l.kubectl(t, "-n", "kube-system", "create", "secret", "generic", "weft", "--from-file=secret="+filepath.Join(l.dir, "secret"))
	l.kubectl(t, "-n", "kube-system", "delete", "pod", l.weftPod(t, 2))
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "ds/weft", "--timeout=120s")
	until(t, func() error {
		_, err := l.run(t.Context(), "k", "exec", "p1", "--", "ping", "-c1", "-W1", l.ip(t, "p2"))
		return err
	})
	return "a node that starts again refuses, and starts when the Secret is back"
}

// as runs kubectl with a token instead of the administrator's certificate.
func (l *lab) as(t *testing.T, token string, args ...string) error {
	_, err := l.run(t.Context(), append([]string{
		"k", "--kubeconfig=/dev/null", "--server=https://172.30.0.1:6443",
		"--certificate-authority=" + filepath.Join(l.home, "cl", "pki", "ca.crt"), "--token=" + token,
	}, args...)...)
	return err
}

// patchStatus changes the status of a node with a token. "kubectl patch" would read the node first, which the token may not.
func (l *lab) patchStatus(t *testing.T, token, node, patch string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/kcp", "curl", "-sS", "--fail-with-body",
		"--cacert", filepath.Join(l.home, "cl", "pki", "ca.crt"), "-X", "PATCH", "-H", "Authorization: Bearer "+token,
		"-H", "Content-Type: application/strategic-merge-patch+json", "-d", patch, "https://172.30.0.1:6443/api/v1/nodes/"+node+"/status",
	) //nolint:gosec // a test
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// tokens: the token of weft's pod on node 2 changes nothing but the annotation and the condition of node 2, and writes no events of
// others.
func (l *lab) tokens(t *testing.T) string {
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
		{"condition of another node", bound, "node1", up, "only the node that it runs on"},
		{"annotation of another node", bound, "node1", key, "only the node that it runs on"},
		{"a token without a node", unbound, "node2", up, "only the node that it runs on"},
		{"own network down", bound, "node2", fmt.Sprintf(condition, "NetworkUnavailable", "True"), "only the condition NetworkUnavailable"},
		{"another condition", bound, "node2", fmt.Sprintf(condition, "Ready", "True"), "only the condition NetworkUnavailable"},
		{"a new condition", bound, "node2", fmt.Sprintf(condition, "Other", "False"), "only the condition NetworkUnavailable"},
		{"addresses", bound, "node2", `{"status":{"addresses":[{"type":"InternalIP","address":"172.30.0.99"}]}}`, "only the conditions"},
		{"capacity", bound, "node2", `{"status":{"capacity":{"example.com/x":"1"}}}`, "only the conditions"},
		{"a label", bound, "node2", `{"metadata":{"labels":{"x":"y"}}}`, "no labels"},
		{"another annotation", bound, "node2", `{"metadata":{"annotations":{"x":"y"}}}`, "only the annotation"},
		{"an empty annotation", bound, "node2", `{"metadata":{"annotations":{"x":""}}}`, "only the annotation"},
		{"no annotations", bound, "node2", `{"metadata":{"annotations":null}}`, "only the annotation"},
		{"not an ID", bound, "node2", `{"metadata":{"annotations":{"weft.network/peer-id":"x"}}}`, "only the annotation"},
	} {
		err := l.patchStatus(t, c.token, c.node, c.patch)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	event := func(component, host string) error {
		path := filepath.Join(l.dir, "event.yaml")
		text := fmt.Sprintf(`{apiVersion: v1, kind: Event, metadata: {generateName: x, namespace: default}, type: Warning, reason: Test,
  message: x,
  involvedObject: {kind: Pod, name: p1, namespace: default}, source: {component: %s, host: %s}}`, component, host)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return l.as(t, bound, "create", "-f", path)
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

// containers: no file system but those of the manifest can be written, and the containers that need no token and no secret have none.
func (l *lab) containers(t *testing.T) string {
	pod := l.weftPod(t, 1)
	inside := []string{"k", "-n", "kube-system", "exec", pod, "-c", "weft", "--"}
	_, err := l.run(t.Context(), append(inside, "weft", "capture", "-c", "1", "-w", "/x")...)
	if err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("the root file system of weft can be written: %v", err)
	}
	// The image has no shell. The mounts of the processes are visible on the node.
	for process, hidden := range map[string][]string{
		"weft up --take-over --config /var/lib/weft/kube.yaml": {"kubernetes.io/serviceaccount"},
		"weft-kube run": {"/etc/weft ", "/var/lib/weft "},
	} {
		for _, pid := range strings.Fields(l.must(t, "nx", "1", "pgrep", "-f", "^"+process)) {
			mounts := l.must(t, "nx", "1", "cat", "/proc/"+pid+"/mounts")
			for _, path := range hidden {
				if strings.Contains(mounts, path) {
					t.Errorf("%s sees %s:\n%s", process, path, mounts)
				}
			}
			status := l.must(t, "nx", "1", "cat", "/proc/"+pid+"/status")
			for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
				if !strings.Contains(status, want) {
					t.Errorf("%s has no %q", process, want)
				}
			}
		}
	}
	if log := l.kubectl(t, "-n", "kube-system", "logs", pod, "-c", "weft"); strings.Contains(log, "not permitted") {
		t.Errorf("the daemon lacks a privilege:\n%s", log)
	}
	return "read-only root, no new privileges, seccomp; the daemon has no token, weft-kube neither secret nor key"
}
