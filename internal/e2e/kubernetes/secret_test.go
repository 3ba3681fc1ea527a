package kubernetes

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
)

// refused waits until "weft-kube prepare" on a node has refused to start with a message that the pod shows.
func (l *lab) refused(t testing.TB, node int, message string) {
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
func (l *lab) withoutSecret(t *recorder) string {
	path := l.file(t, "weft.yaml", l.manifest(t, l.current()))
	l.kubectl(t, "apply", "-f", path)
	for node := 1; node <= 2; node++ {
		l.refused(t, node, "nothing says that nodes communicate without encryption")
	}
	l.kubectl(t, "delete", "-f", path, "--wait=true")
	return "no node starts, the pods show the reason and the remedy"
}

// secretGone deletes the Secret of a running cluster. Running nodes keep it; a node that starts again refuses, until the Secret
// is back.
func (l *lab) secretGone(t *recorder) string {
	l.kubectl(t, "-n", "kube-system", "delete", "secret", "weft")
	l.kubectl(t, "-n", "kube-system", "delete", "pod", l.weftPod(t, 2))
	l.refused(t, 2, "this node has had one")
	if out := l.weft(t, 1, "status"); !strings.Contains(out, "Encryption") || strings.Contains(out, "Encryption  off") {
		t.Errorf("node 1 is not encrypted any more:\n%s", out)
	}
	l.createSecret(t)
	l.kubectl(t, "-n", "kube-system", "delete", "pod", l.weftPod(t, 2))
	l.rolledOut(t)
	until(t, func() error { return l.reach(t, "p1", "p2") })
	return "a node that starts again refuses, and starts when the Secret is back"
}

// rotate inserts a second secret before the first one, and waits until all nodes use it.
func (l *lab) rotate(t *recorder) string {
	secrets, err := os.ReadFile(l.secretFile())
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
	return fmt.Sprintf("all nodes use it after %.0f s, longest time without a reply %d ms", time.Since(start).Seconds(), gap.Milliseconds())
}
