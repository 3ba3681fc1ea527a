package kubernetes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"weft/internal/netspace"
)

// agnhost is the image of pods that serve or fetch: it has curl, ping and a server that shows the client's address.
const agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// podText describes a pod that serves HTTP on port 8080: name, node, labels, and further fields of its metadata and its spec.
const podText = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {name: %[1]s%[3]s}%[4]s}
spec:
  nodeName: node%[2]d
  terminationGracePeriodSeconds: 1
%[5]s
  containers:
  - {name: c, image: "` + agnhost + `", imagePullPolicy: Never, args: [netexec, --http-port=8080, --udp-port=-1]%[6]s}
---
`

// pod is a pod that a test creates.
type pod struct {
	name      string
	node      int
	labels    string // further labels, each with a comma before it
	metadata  string // further metadata, with a comma before it
	spec      string // further fields, indented by two
	container string // further fields of the container, with a comma before them
}

func (p pod) text() string {
	return fmt.Sprintf(podText, p.name, p.node, p.labels, p.metadata, p.spec, p.container)
}

// createPods creates pods and waits until they are ready. They are deleted at the end of the test, if t is that of a step.
func (l *lab) createPods(t testing.TB, pods ...pod) {
	t.Helper()
	var text strings.Builder
	names := make([]string, 0, len(pods))
	for _, p := range pods {
		text.WriteString(p.text())
		names = append(names, p.name)
	}
	if len(pods) > 0 {
		l.apply(t, text.String())
	}
	l.kubectl(t, append([]string{"wait", "--for=condition=Ready", "--timeout=120s", "pod"}, names...)...)
}

// createTemporary creates pods that are deleted at the end of the step.
func (l *lab) createTemporary(t testing.TB, pods ...pod) {
	t.Helper()
	names := make([]string, 0, len(pods))
	for _, p := range pods {
		names = append(names, p.name)
	}
	t.Cleanup(func() {
		_, _ = l.run(l.all.Context(), append([]string{"k", "delete", "pod", "--ignore-not-found", "--wait=true", "--timeout=60s"}, names...)...)
	})
	l.createPods(t, pods...)
}

// applyTemporary applies objects that are deleted at the end of the step.
func (l *lab) applyTemporary(t testing.TB, name, text string) {
	t.Helper()
	path := l.file(t, name, text)
	l.kubectl(t, "apply", "-f", path)
	t.Cleanup(func() { _, _ = l.run(l.all.Context(), "k", "delete", "--ignore-not-found", "--wait=true", "-f", path) })
}

// workload starts cluster DNS, a pod on each node, and a Service of the second one.
func (l *lab) workload(t *recorder) string {
	text, err := os.ReadFile(filepath.Join(l.root, "internal", "e2e", "kubernetes", "lab", "cluster", "dns.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(l.addresses["DNS_ADDRESSES"], ",")
	l.apply(t, strings.ReplaceAll(string(text), "DNS_ADDRESS", address))
	l.createPods(t, pod{name: "p1", node: 1, labels: ", app: p"}, pod{name: "p2", node: 2, labels: ", app: p"})
	l.apply(t, `{apiVersion: v1, kind: Service, metadata: {name: p2},
  spec: {ipFamilyPolicy: PreferDualStack, selector: {name: p2}, ports: [{port: 80, targetPort: 8080}]}}`)
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
	until(t, func() error { // kube-proxy learns of ready pods a moment later
		_, err := l.exec(t, "p1", "dig", "+short", "+timeout=1", "+tries=1", "kubernetes.default.svc.cluster.local")
		return err
	})
	for _, service := range l.ips(t, "service", "p2") {
		until(t, func() error {
			_, err := l.exec(t, "p1", "curl", "-sSg", "-m1", "http://"+hostPort(service, 80)+"/hostname")
			return err
		})
	}
	until(t, func() error {
		_, err := l.exec(t, "p1", "curl", "-sS", "-m2", "http://p2.default.svc.cluster.local/hostname")
		return err
	})
	return "a name of a Service leads to a pod on another node"
}

// exec runs a command in a pod, and returns its output.
func (l *lab) exec(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	return l.run(t.Context(), append([]string{"k", "exec", name, "--"}, args...)...)
}

// addressesOf returns the addresses of a pod or a Service, the primary one first; an error while it does not have one of each family.
func (l *lab) addressesOf(t testing.TB, kind, name string) (all []netip.Addr, err error) {
	t.Helper()
	path := "jsonpath={.status.podIPs[*].ip}"
	if kind == "service" {
		path = "jsonpath={.spec.clusterIPs[*]}"
	}
	out, err := l.run(t.Context(), "k", "get", kind, name, "-o", path)
	if err != nil {
		return nil, err
	}
	for _, text := range strings.Fields(out) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	if len(all) != len(l.families()) {
		return nil, fmt.Errorf("%s %s has the addresses %v in a cluster of family %s", kind, name, all, l.setting.family)
	}
	return all, nil
}

// ips returns the addresses of a pod or a Service, the primary one first.
func (l *lab) ips(t testing.TB, kind, name string) []netip.Addr {
	t.Helper()
	all, err := l.addressesOf(t, kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ip returns the primary address of a pod.
func (l *lab) ip(t testing.TB, name string) netip.Addr {
	t.Helper()
	return l.ips(t, "pod", name)[0]
}

// hostPort joins an address and a port, as URLs have them.
func hostPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// reach returns an error if a pod does not get a reply from another one at each of its addresses.
func (l *lab) reach(t testing.TB, from, to string) error {
	t.Helper()
	addresses, err := l.addressesOf(t, "pod", to)
	all := []error{err}
	for _, a := range addresses {
		_, err := l.exec(t, from, "ping", "-c1", "-W1", a.String())
		all = append(all, err)
	}
	return errors.Join(all...)
}

// podSpace opens the network namespace of a pod on its node. It is closed at the end of the test.
func (l *lab) podSpace(t testing.TB, node int, name string) netns.NsHandle {
	t.Helper()
	want := l.ip(t, name)
	folder, err := os.ReadDir(filepath.Join(l.nodeRoot(t, node), "run", "netns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range folder {
		ns := l.netspace(t, node, entry.Name())
		found := false
		err := netspace.Do(ns, func() error {
			addrs, err := net.InterfaceAddrs()
			for _, a := range addrs {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == want {
					found = true
				}
			}
			return err
		})
		if err == nil && found {
			return ns
		}
	}
	t.Fatalf("no namespace with %s on node %d", want, node)
	return netns.None()
}
