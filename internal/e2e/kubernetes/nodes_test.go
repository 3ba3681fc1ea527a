package kubernetes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
)

// restart replaces all pods of weft, node by node, under load.
func (l *lab) restart(t *recorder) string {
	load := l.underLoad(t, func() {
		l.kubectl(t, "-n", "kube-system", "rollout", "restart", "ds/weft")
		l.rolledOut(t)
	})
	load.check(t)
	return load.String()
}

// reboot crashes node 2 and starts it again, and checks that its pods run again and no leases of old pods are left.
func (l *lab) reboot(t *recorder) string {
	start := time.Now()
	l.must(t, "reboot", "2")
	until(t, func() error { return l.reach(t, "p1", "p2") })
	took := time.Since(start)
	l.kubectl(t, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
	until(t, func() error { return l.onlyLivingLeases(t, 2) })
	return fmt.Sprintf("a pod of the node answers after %.0f s, no lease of an old pod is left", took.Seconds())
}

// podLeases returns the leases of pods on a node.
func (l *lab) podLeases(t testing.TB, node int) []api.Lease {
	t.Helper()
	var leases []api.Lease
	if err := json.Unmarshal([]byte(l.weft(t, node, "ip", "list", "--json")), &leases); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(leases, func(lease api.Lease) bool { return !strings.HasPrefix(lease.Owner, "cni/") })
}

// onlyLivingLeases returns an error while a node has a lease of a pod that does not exist.
func (l *lab) onlyLivingLeases(t testing.TB, node int) error {
	t.Helper()
	living := strings.Fields(l.kubectl(t, "get", "pods", "-A", "--field-selector=spec.nodeName=node"+strconv.Itoa(node),
		"-o", "jsonpath={.items[*].status.podIPs[*].ip}"))
	for _, lease := range l.podLeases(t, node) {
		if !slices.Contains(living, lease.IP.Addr().String()) {
			return fmt.Errorf("%s is leased to %s", lease.IP, lease.Owner)
		}
	}
	return nil
}

// apiAway stops the API server for a while. Pods still reach each other, and policies that are created afterwards are enforced.
func (l *lab) apiAway(t *recorder) string {
	text, err := os.ReadFile(filepath.Join(l.home, "cluster", "run", "apiserver.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(text))
	signal := func(name string) {
		if out, err := exec.CommandContext(t.Context(), "kill", name, pid).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const away = time.Minute
	gap := l.pinging(t, func() {
		signal("-STOP")
		l.onNode(t, 1, "sleep", fmt.Sprint(away.Seconds()))
		signal("-CONT")
	})
	if gap > maxLoss {
		t.Errorf("pods were unreachable for %v", gap)
	}
	until(t, func() error { _, err := l.run(t.Context(), "k", "get", "--raw", "/readyz"); return err })
	l.applyTemporary(t, "isolate.yaml", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: isolate},
  spec: {podSelector: {matchLabels: {app: p}}}}`)
	until(t, func() error {
		if l.reach(t, "p1", "p2") == nil {
			return fmt.Errorf("the ping gets a reply")
		}
		return nil
	})
	l.kubectl(t, "delete", "networkpolicy", "isolate")
	until(t, func() error { return l.reach(t, "p1", "p2") })
	return fmt.Sprintf("for %v: longest time without a reply %d ms; a policy created afterwards is enforced", away, gap.Milliseconds())
}

// deleteNode deletes node 2 permanently: another node takes over its address space. The space of the API host does not change.
func (l *lab) deleteNode(t *recorder) string {
	id := l.status(t, 2).ID
	l.must(t, "kill", "2")
	start := time.Now()
	l.kubectl(t, "delete", "node", "node2")
	until(t, func() error {
		var ipam api.IPAM
		if err := json.Unmarshal([]byte(l.weft(t, 1, "ipam", "--json")), &ipam); err != nil {
			return err
		}
		for _, r := range ipam.Ranges {
			for _, o := range r.Owners {
				if o.ID == id && o.Addresses > 0 {
					return fmt.Errorf("%s owns %d addresses of %s", o.Name, o.Addresses, r.CIDR)
				}
			}
		}
		return nil
	})
	return fmt.Sprintf("another node owns its addresses after %.0f s", time.Since(start).Seconds())
}
