package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest/labtest"
)

// TestSecretTakenOut: a node that has had a secret starts without one only with --plain, and a reload never drops the last one.
func TestSecretTakenOut(t *testing.T) {
	labtest.RequireRoot(t)
	t.Parallel()
	n := newNodes(t, "a")[0]
	writeSecret(t, n, newSecret(t))
	config := filepath.Join(n.Dir(), "weft.yaml")
	configure := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("secret-file: " + secretFile(n) + "\n")
	refused(t, n, nil, "--plain: it contradicts "+secretFile(n), "--config", config, "--plain")
	upAlone(t, n, "--config", config)

	configure("")
	if out, err := n.Do(testContext(t), "reload"); err == nil || !strings.Contains(err.Error(), secretFile(n)) {
		t.Errorf("a reload without the secret: %v, %s", err, out)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	refused(t, n, nil, "this node was protected by "+secretFile(n), "--config", config)
	refused(t, n, []string{"WEFT_SECRET_FILE="}, "this node was protected by "+secretFile(n))
	if out, err := n.Do(testContext(t), "doctor", "--state-dir", n.StateDir()); err == nil || !strings.Contains(out, secretFile(n)) {
		t.Errorf("weft doctor: %v\n%s", err, out)
	}

	configure("plain: true\n")
	upAlone(t, n, "--config", config)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	configure("secret-file: " + secretFile(n) + "\n")
	upAlone(t, n, "--config", config)
}
