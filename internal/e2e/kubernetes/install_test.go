package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manifest returns a manifest of weft with the pod range of the cluster, and with its encryption.
func (l *lab) manifest(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changes := []string{"10.32.0.0/12", l.addresses["POD_RANGE"]}
	if l.setting.plain {
		changes = append(changes, `{name: WEFT_PLAIN, value: "false"}`, `{name: WEFT_PLAIN, value: "true"}`)
	}
	return strings.NewReplacer(changes...).Replace(string(text))
}

// current is the path of the manifest of this version.
func (l *lab) current() string { return filepath.Join(l.root, "deploy", "kubernetes.yaml") }

// notReady checks that nodes are NotReady without a network.
func (l *lab) notReady(t testing.TB) {
	t.Helper()
	const status = `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`
	if ready := l.kubectl(t, "get", "nodes", "-o", status); strings.Contains(ready, "True") {
		t.Fatalf("nodes are ready without a network: %s", ready)
	}
}

// secretFile returns the path of the secret.
func (l *lab) secretFile() string { return filepath.Join(l.dir, "secret") }

// createSecret creates the Secret, unless nodes communicate without encryption.
func (l *lab) createSecret(t testing.TB) {
	t.Helper()
	if l.setting.plain {
		return
	}
	if _, err := os.Stat(l.secretFile()); err != nil {
		l.file(t, "secret", l.local(t, "secret", "generate"))
	}
	l.kubectl(t, "-n", "kube-system", "create", "secret", "generic", "weft", "--from-file=secret="+l.secretFile())
}

// installed waits until nodes are ready after an installation that began at start, connects the API host, and returns the outcome.
func (l *lab) installed(t testing.TB, start time.Time) string {
	t.Helper()
	l.kubectl(t, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
	took := time.Since(start)
	l.rolledOut(t)
	until(t, func() error {
		states := l.kubectl(t, "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="NetworkUnavailable")].status}`)
		if states != "False False" {
			return fmt.Errorf("NetworkUnavailable is %q", states)
		}
		return nil
	})
	l.join(t)
	return fmt.Sprintf("nodes Ready after %.0f s", took.Seconds())
}

// rolledOut waits until all pods of the DaemonSet are of its latest revision and ready.
func (l *lab) rolledOut(t testing.TB) {
	t.Helper()
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "ds/weft", "--timeout=180s")
}

// install applies the manifest as a user does.
func (l *lab) install(t *recorder) string {
	l.notReady(t)
	l.createSecret(t)
	start := time.Now()
	l.apply(t, l.manifest(t, l.current()))
	return l.installed(t, start)
}

// helmValues writes the values for the chart, and returns their path.
func (l *lab) helmValues(t testing.TB, more string) string {
	t.Helper()
	return l.file(t, "values.yaml", fmt.Sprintf("range: %q\nplain: %t\n%s", l.addresses["POD_RANGE"], l.setting.plain, more))
}

// helm runs helm on the release in kube-system.
func (l *lab) helm(t testing.TB, verb string, args ...string) string {
	t.Helper()
	return l.must(t, append([]string{"helm", "-n", "kube-system", verb, "weft"}, args...)...)
}

// chart is the folder of the Helm chart.
func (l *lab) chart() string { return filepath.Join(l.root, "deploy", "helm") }

// helmInstall installs weft with Helm.
func (l *lab) helmInstall(t *recorder) string {
	l.notReady(t)
	l.createSecret(t)
	start := time.Now()
	l.helm(t, "install", l.chart(), "--values", l.helmValues(t, ""))
	return l.installed(t, start)
}

// helmUpgrade changes a value, under load: all pods of weft are replaced.
func (l *lab) helmUpgrade(t *recorder) string {
	load := l.underLoad(t, func() {
		l.helm(t, "upgrade", l.chart(), "--values", l.helmValues(t, "memory:\n  weft: {limit: 600Mi, go: 500MiB}\n"))
		l.rolledOut(t)
	})
	load.check(t)
	return load.String()
}

// helmUninstall removes weft as docs/KUBERNETES.md says, and checks that nothing of it is left in the cluster and on the nodes.
func (l *lab) helmUninstall(t *recorder) string {
	l.kubectl(t, "delete", "deployment,pods", "--all", "-n", "default", "--wait=true")
	// Without the Service of the API server, pods that start have no address of it.
	l.kubectl(t, "delete", "service", "-n", "default", "--field-selector=metadata.name!=kubernetes", "--wait=true")
	l.kubectl(t, "-n", "kube-system", "delete", "deployment", "coredns")
	l.kubectl(t, "-n", "kube-system", "wait", "--for=delete", "pod", "-l", "k8s-app=kube-dns", "--timeout=60s")
	start := time.Now()
	if _, err := l.run(t.Context(), "helm", "-n", "kube-system", "uninstall", "weft", "--wait", "--timeout=5m"); err != nil {
		reason, _ := l.run(t.Context(), "k", "-n", "kube-system", "logs", "job/weft-remove", "--tail=20")
		t.Fatalf("%v\nThe Job logged:\n%s", err, reason)
	}
	took := time.Since(start)
	until(t, func() error {
		const kinds = "all,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,configmaps," +
			"validatingadmissionpolicies,validatingadmissionpolicybindings"
		if left := l.kubectl(t, "get", kinds, "-A", "-o", "name"); strings.Contains(left, "weft") {
			return fmt.Errorf("the cluster has\n%s", left)
		}
		return nil
	})
	if left := l.kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.annotations}"); strings.Contains(left, "weft") {
		t.Errorf("nodes have the annotations %s", left)
	}
	for node := 1; node <= 2; node++ {
		for _, c := range [][]string{
			{"ls", "/etc/cni/net.d"}, {"ls", "/opt/cni/bin"}, {"ls", "/run"}, {"ip", "-o", "link"}, {"ip", "rule"},
			{"nft", "list", "tables"},
		} {
			if left := l.onNode(t, node, c...); strings.Contains(left, "weft") || strings.Contains(left, "weave") {
				t.Errorf("node %d: %v prints\n%s", node, c, left)
			}
		}
		if left := l.onNode(t, node, "ls", "-A", "/var/lib/weft"); left != "" { // the folder is a mount of the lab
			t.Errorf("node %d: its state folder has\n%s", node, left)
		}
	}
	return fmt.Sprintf("after %.0f s no object, interface, rule, file or configuration is left", took.Seconds())
}

// manifestToHelm replaces an installation by the manifest by one with Helm. Pods stay and lose their network while none runs.
func (l *lab) manifestToHelm(t *recorder) string {
	load := l.underLoad(t, func() {
		l.kubectl(t, "delete", "-f", l.file(t, "weft.yaml", l.manifest(t, l.current())), "--wait=true")
		l.helm(t, "install", l.chart(), "--values", l.helmValues(t, ""))
		l.rolledOut(t)
	})
	return load.String()
}

// join connects the API host to the overlay, as a host without Kubernetes: the upstream tests reach pods from it.
func (l *lab) join(t testing.TB) {
	t.Helper()
	socket := filepath.Join(l.dir, "weft.sock")
	inside := func(args ...string) *exec.Cmd {
		weft := []string{"api", "env", "WEFT_SOCKET=" + socket, filepath.Join(l.root, "bin", "weft")}
		return l.command(l.all.Context(), append(weft, args...)...)
	}
	args := []string{"up", "--name", "api", "--state-dir", filepath.Join(l.dir, "state"), "--socket", socket, "--init-peers", "0",
		"--http-addr", "", "--no-dns"}
	for _, r := range strings.Split(l.addresses["POD_RANGE"], ",") {
		args = append(args, "--range", r)
	}
	if !l.setting.plain {
		args = append(args, "--secret-file", l.secretFile())
	}
	for node := 1; node <= 2; node++ {
		peer := l.nodeAddress(node, 0)
		if strings.Contains(peer, ":") {
			peer = "[" + peer + "]"
		}
		args = append(args, peer)
	}
	l.host = inside(args...)
	log, err := os.Create(filepath.Join(l.home, "cluster", "log", "weft-api.log"))
	if err != nil {
		t.Fatal(err)
	}
	l.host.Stdout, l.host.Stderr = log, log
	l.host.Cancel = func() error { return l.host.Process.Signal(os.Interrupt) }
	if err := l.host.Start(); err != nil {
		t.Fatal(err)
	}
	l.all.Cleanup(func() {
		_ = l.host.Process.Signal(os.Interrupt)
		_ = l.host.Wait()
		_ = log.Close()
	})
	for _, args := range [][]string{{"wait", "--timeout", "10s"}, {"expose"}} {
		until(t, func() error {
			out, err := inside(args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("weft %s: %w: %s", args[0], err, out)
			}
			return nil
		})
	}
}
