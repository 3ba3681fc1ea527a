package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// identities gives each node a signed identity beside the secret, under a ping. A request that is not of weft's pod is denied.
func (l *lab) identities(t *recorder) string {
	ca := filepath.Join(l.dir, "ca")
	l.local(t, "ca", "init", "--dir", ca)
	l.kubectl(t, "-n", "kube-system", "create", "secret", "generic", "weft-ca", "--from-file=ca.key="+filepath.Join(ca, "ca.key"))
	l.kubectl(t, "-n", "kube-system", "create", "configmap", "weft-ca", "--from-file=ca.pub="+filepath.Join(ca, "ca.pub"))
	l.kubectl(t, "label", "node", "node1", "node-role.kubernetes.io/control-plane=")
	l.kubectl(t, "apply", "-f", filepath.Join(l.root, "deploy", "kubernetes-identities.yaml"))
	l.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/weft-signer", "--timeout=120s")
	gap := l.pinging(t, func() {
		l.kubectl(t, "-n", "kube-system", "set", "env", "ds/weft", "-c", "prepare", "WEFT_IDENTITIES=true")
		l.rolledOut(t)
	})
	if gap > maxLoss {
		t.Errorf("pods were unreachable for %v", gap)
	}
	issued := l.kubectl(t, "-n", "kube-system", "get", "configmap", "weft-issued", "-o", "jsonpath={.data}")
	for node := 1; node <= 2; node++ {
		s := l.status(t, node)
		if s.Identity == nil || s.Identity.Name != fmt.Sprintf("node%d", node) || !strings.Contains(issued, s.ID.String()) {
			t.Errorf("node %d has the identity %+v, %s is issued", node, s.Identity, issued)
		}
	}

	// The administrator may create requests, but the signer signs only those of a node for itself.
	first := l.kubectl(t, "get", "csr", "-o", `jsonpath={.items[?(@.spec.signerName=="weft.network/node")].spec.request}`)
	text := fmt.Sprintf(`{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: forged},
  spec: {signerName: weft.network/node, usages: [client auth], request: %s}}`, strings.Fields(first)[0])
	l.kubectl(t, "create", "-f", l.file(t, "csr.yaml", text))
	l.kubectl(t, "wait", "--for=condition=Denied", "csr/forged", "--timeout=60s")
	warnings := l.kubectl(t, "get", "validatingadmissionpolicy", "weft-identities", "-o", "jsonpath={.status.typeChecking.expressionWarnings}")
	if warnings != "" {
		t.Errorf("the expressions have faults: %s", warnings)
	}
	return fmt.Sprintf("each node has a certificate of the signer; longest time without a reply meanwhile %d ms", gap.Milliseconds())
}

// shutOut revokes node 2 as docs/KUBERNETES.md says.
func (l *lab) shutOut(t *recorder) string {
	id := l.status(t, 2).ID.String()
	l.kubectl(t, "-n", "kube-system", "patch", "configmap", "weft-ca", "--type", "merge", "-p", `{"data":{"denied":"node2\n"}}`)
	l.kubectl(t, "-n", "kube-system", "rollout", "restart", "deployment/weft-signer")
	list := filepath.Join(l.dir, "list")
	l.local(t, "revoke", id, "--dir", filepath.Join(l.dir, "ca"), "--out", list)
	lines, err := os.Open(list)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lines.Close() }()
	send := l.command(t.Context(), "k", "-n", "kube-system", "exec", "-i", l.weftPod(t, 1), "-c", "weft", "--",
		"weft", "revoke", "--list", "/dev/stdin")
	send.Stdin = lines
	if out, err := send.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until(t, func() error {
		if l.reach(t, "p1", "p2") == nil {
			return fmt.Errorf("a pod of the node answers")
		}
		return nil
	})
	if s := l.status(t, 1); s.Identity == nil || len(s.Identity.CAs) != 1 || s.Identity.CAs[0].Revoked != 1 {
		t.Errorf("node 1 knows of %+v", s.Identity)
	}
	return "pods of the node are not reached any more"
}
