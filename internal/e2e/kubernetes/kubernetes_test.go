package kubernetes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/nettest/labtest"
)

// maxLoss is the maximum time without a ping reply during an upgrade of weft.
const maxLoss = time.Second

const pods = `
apiVersion: v1
kind: Pod
metadata: {name: p%[1]d, labels: {app: p}}
spec:
  nodeName: node%[1]d
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "docker.io/library/busybox:1.35", imagePullPolicy: IfNotPresent, command: [sleep, "1000000"]}
---
`

// TestKubernetes runs the steps in order. Each step depends on the earlier ones.
func TestKubernetes(t *testing.T) {
	l := open(t)
	report := &report{}
	step := func(name string, f func(t *testing.T) string) {
		ok := t.Run(name, func(t *testing.T) {
			outcome := f(t)
			t.Log(outcome)
			report.add(name, outcome)
		})
		if !ok {
			report.add(name, "**failed**")
		}
	}
	step("no Secret", l.withoutSecret)
	step("install", l.install)
	step("DNS and two pods", l.workload)
	step("what the token of a node may change", l.tokens)
	step("what the containers may do", l.containers)
	step("the Secret is deleted", l.secretGone)
	step("rolling upgrade under a ping", l.upgrade)
	step("rotation of the secret by the Secret object", l.rotate)
	step("signed identities beside the secret", l.identities)
	step("crash and reboot of a node", l.reboot)
	step("API server stopped for a while", l.apiAway)
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) { report.suite(t, l, s) })
	}
	step("a node is shut out", l.shutOut)
	step("a node is deleted", l.deleteNode)
	report.write(t, l)
}

// install applies the manifest as a user does, with a secret.
func (l *lab) install(t *testing.T) string {
	const status = `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`
	if ready := l.kubectl(t, "get", "nodes", "-o", status); strings.Contains(ready, "True") {
		t.Fatalf("nodes are ready without a network: %s", ready)
	}
	path := filepath.Join(l.dir, "secret")
	if err := os.WriteFile(path, []byte(l.local(t, "secret", "generate")), 0o600); err != nil {
		t.Fatal(err)
	}
	l.kubectl(t, "-n", "kube-system", "create", "secret", "generic", "weft", "--from-file=secret="+path)
	start := time.Now()
	l.kubectl(t, "apply", "-f", l.manifest(t))
	l.kubectl(t, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
	took := time.Since(start)
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "ds/weft", "--timeout=120s")
	until(t, func() error {
		states := l.kubectl(t, "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="NetworkUnavailable")].status}`)
		if states != "False False" {
			return fmt.Errorf("NetworkUnavailable is %q", states)
		}
		return nil
	})
	l.join(t, path)
	return fmt.Sprintf("nodes Ready %.0f s after `kubectl apply`", took.Seconds())
}

// workload starts cluster DNS and a pod on each node.
func (l *lab) workload(t *testing.T) string {
	l.kubectl(t, "apply", "-f", filepath.Join(l.home, "cl", "dns.yaml"))
	path := filepath.Join(l.dir, "pods.yaml")
	if err := os.WriteFile(path, []byte(fmt.Sprintf(pods, 1)+fmt.Sprintf(pods, 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.kubectl(t, "apply", "-f", path)
	l.kubectl(t, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s")
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	until(t, func() error { // kube-proxy learns of ready pods a moment later
		_, err := l.run(t.Context(), "k", "exec", "p1", "--", "nslookup", "kubernetes.default.svc.cluster.local")
		return err
	})
	return "running"
}

// ip returns the IP address of a pod.
func (l *lab) ip(t *testing.T, pod string) string {
	t.Helper()
	return l.kubectl(t, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
}

// netns returns the path of the network namespace of a pod on its node.
func (l *lab) netns(t *testing.T, node int, pod string) string {
	t.Helper()
	ip := l.ip(t, pod)
	for _, name := range strings.Fields(l.must(t, "nx", fmt.Sprint(node), "ls", "/run/netns")) {
		path := "/run/netns/" + name
		out, err := l.run(t.Context(), "nx", fmt.Sprint(node), "nsenter", "--net="+path, "ip", "-o", "addr")
		if err == nil && strings.Contains(out, " "+ip+"/") {
			return path
		}
	}
	t.Fatalf("no namespace with %s on node %d", ip, node)
	return ""
}

// pinging runs f during a ping from p1 to p2 and returns the longest time without a reply.
func (l *lab) pinging(t *testing.T, f func()) time.Duration {
	t.Helper()
	ping := exec.CommandContext(t.Context(), l.script,
		"nx", "1", "nsenter", "--net="+l.netns(t, 1, "p1"), "ping", "-D", "-i", "0.05", l.ip(t, "p2"))
	ping.Env = l.env
	var out bytes.Buffer
	ping.Stdout = &out
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	f()
	_ = ping.Process.Signal(os.Interrupt)
	_ = ping.Wait()
	var last, longest float64
	lines := bufio.NewScanner(&out)
	for lines.Scan() {
		var at float64
		if n, _ := fmt.Sscanf(lines.Text(), "[%f] 64 bytes", &at); n == 1 {
			if last > 0 {
				longest = max(longest, at-last)
			}
			last = at
		}
	}
	if last == 0 {
		t.Fatalf("no reply: %s", out.String())
	}
	return time.Duration(longest * float64(time.Second))
}

// upgrade restarts the DaemonSet, node by node.
func (l *lab) upgrade(t *testing.T) string {
	gap := l.pinging(t, func() {
		l.kubectl(t, "-n", "kube-system", "rollout", "restart", "ds/weft")
		l.kubectl(t, "-n", "kube-system", "rollout", "status", "ds/weft", "--timeout=180s")
	})
	if gap > maxLoss {
		t.Errorf("pods were unreachable for %v", gap)
	}
	return fmt.Sprintf("longest time without a reply %d ms (pings every 50 ms, encrypted)", gap.Milliseconds())
}

// rotate inserts a second secret before the first one, and waits until all nodes use it.
func (l *lab) rotate(t *testing.T) string {
	secrets, err := os.ReadFile(filepath.Join(l.dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	second := l.local(t, "secret", "generate")
	start := time.Now()
	gap := l.pinging(t, func() {
		patch := fmt.Sprintf(`{"stringData":{"secret":%q}}`, second+string(secrets))
		l.kubectl(t, "-n", "kube-system", "patch", "secret", "weft", "-p", patch)
		for node := 1; node <= 2; node++ {
			labtest.Until(t, 4*time.Minute, func() error {
				if n := l.status(t, node).Secrets; n != 2 {
					return fmt.Errorf("node %d has %d secrets", node, n)
				}
				return nil
			})
		}
	})
	if gap > maxLoss {
		t.Errorf("pods were unreachable for %v", gap)
	}
	return fmt.Sprintf("all nodes use it after %.0f s, longest time without a reply %d ms",
		time.Since(start).Seconds(), gap.Milliseconds())
}

// reboot crashes node 2 and starts it again, and checks that its pods run again and no leases of old pods are left.
func (l *lab) reboot(t *testing.T) string {
	start := time.Now()
	l.must(t, "reboot", "2")
	until(t, func() error {
		_, err := l.run(t.Context(), "k", "exec", "p1", "--", "ping", "-c1", "-W1", l.ip(t, "p2"))
		return err
	})
	took := time.Since(start)
	l.kubectl(t, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
	until(t, func() error {
		var leases []api.Lease
		if err := json.Unmarshal([]byte(l.weft(t, 2, "ip", "list", "--json")), &leases); err != nil {
			return err
		}
		ips := l.kubectl(t, "get", "pods", "-A", "--field-selector=spec.nodeName=node2", "-o", "jsonpath={.items[*].status.podIP}")
		living := strings.Fields(ips)
		for _, lease := range leases {
			if strings.HasPrefix(lease.Owner, "cni/") && !slices.Contains(living, lease.IP.Addr().String()) {
				return fmt.Errorf("%s is leased to %s", lease.IP, lease.Owner)
			}
		}
		return nil
	})
	return fmt.Sprintf("a pod of the node answers after %.0f s, no lease of an old pod is left", took.Seconds())
}

// apiAway stops the API server for a while. Pods still reach each other, and policies that are created afterwards are
// enforced.
func (l *lab) apiAway(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(l.home, "cl", "run", "apiserver.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(text))
	const away = time.Minute
	gap := l.pinging(t, func() {
		if out, err := exec.CommandContext(t.Context(), "kill", "-STOP", pid).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		l.must(t, "nx", "1", "sleep", fmt.Sprint(away.Seconds()))
		if out, err := exec.CommandContext(t.Context(), "kill", "-CONT", pid).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	if gap > maxLoss {
		t.Errorf("pods were unreachable for %v", gap)
	}
	const isolate = `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"isolate"},` +
		`"spec":{"podSelector":{"matchLabels":{"app":"p"}}}}`
	path := filepath.Join(l.dir, "policy.json")
	if err := os.WriteFile(path, []byte(isolate), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, func() error { _, err := l.run(t.Context(), "k", "apply", "-f", path); return err })
	reach := func() error {
		_, err := l.run(t.Context(), "k", "exec", "p1", "--", "ping", "-c1", "-W1", l.ip(t, "p2"))
		return err
	}
	until(t, func() error {
		if reach() == nil {
			return fmt.Errorf("the ping gets a reply")
		}
		return nil
	})
	l.kubectl(t, "delete", "-f", path)
	until(t, reach)
	return fmt.Sprintf("for %v: longest time without a reply %d ms; a policy created afterwards is enforced", away, gap.Milliseconds())
}

// deleteNode deletes node 2 permanently: another node takes over its address space. The space of the host without Kubernetes
// does not change.
func (l *lab) deleteNode(t *testing.T) string {
	id := l.status(t, 2).ID
	stop := exec.CommandContext(t.Context(), filepath.Join(l.home, "cl", "stopnode.sh"), "2")
	stop.Env = l.env
	if out, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("stopping node 2: %v: %s", err, out)
	}
	start := time.Now()
	l.kubectl(t, "delete", "node", "node2")
	until(t, func() error {
		var ipam api.IPAM
		if err := json.Unmarshal([]byte(l.weft(t, 1, "ipam", "--json")), &ipam); err != nil {
			return err
		}
		for _, o := range ipam.Ranges[0].Owners {
			if o.ID == id && o.Addresses > 0 {
				return fmt.Errorf("%s owns %d addresses", o.Name, o.Addresses)
			}
		}
		return nil
	})
	return fmt.Sprintf("another node owns its addresses after %.0f s", time.Since(start).Seconds())
}
