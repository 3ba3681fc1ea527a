package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sign runs sign.sh on a folder, with variables beside those of the test, and returns its output.
func sign(t *testing.T, dir string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "./sign.sh", dir, "weft v1.2.3")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// verify does what the README says: it checks the signature of SHA256SUMS, then the sums.
func verify(t *testing.T, dir, key string) error {
	t.Helper()
	minisign, err := filepath.Abs("../bin/tools/minisign")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{minisign, "-V", "-p", key, "-m", "SHA256SUMS"}, {"sha256sum", "--check", "--quiet", "SHA256SUMS"}} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...) //nolint:gosec // a test
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", filepath.Base(args[0]), err, out)
			return err
		}
	}
	return nil
}

// release makes a folder with the files of a small release.
func release(t *testing.T) (dir string, put func(name, text string)) {
	t.Helper()
	dir = t.TempDir()
	put = func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("weft-1.2.3-linux-amd64.tar.gz", "archive")
	put("weft_1.2.3_amd64.deb", "package")
	put("weft-1.2.3-image-amd64.tar.digest", "localhost/weft@sha256:01")
	return dir, put
}

// TestSignatureFindsChanges: a release is verified by its public key, and neither a changed file, nor changed sums, nor the signature
// of another release pass.
func TestSignatureFindsChanges(t *testing.T) {
	dir, put := release(t)
	out, err := sign(t, dir, "WEFT_SIGN_KEY=")
	if err != nil || !strings.Contains(out, "A TEST RELEASE") {
		t.Fatalf("%v: %s", err, out)
	}
	key := filepath.Join(dir, "SHA256SUMS.test.pub")
	if err := verify(t, dir, key); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(sums), "\n"); n != 3 {
		t.Errorf("%d sums of 3 files:\n%s", n, sums)
	}
	put("weft_1.2.3_amd64.deb", "another package")
	if verify(t, dir, key) == nil {
		t.Error("a changed file passes")
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", `cd "$0" && sha256sum weft* >SHA256SUMS`, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if verify(t, dir, key) == nil {
		t.Error("changed sums pass")
	}
	other, _ := release(t)
	if out, err := sign(t, other, "WEFT_SIGN_KEY="); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if verify(t, other, key) == nil {
		t.Error("the signature of another key passes")
	}
}

// TestSignatureByAKey: with WEFT_SIGN_KEY the release is signed if its public key is known, and not otherwise.
func TestSignatureByAKey(t *testing.T) {
	dir, _ := release(t)
	if out, err := sign(t, dir, "WEFT_SIGN_KEY="); err != nil { // builds minisign
		t.Fatalf("%v: %s", err, out)
	}
	keys := t.TempDir()
	make := func(name string) (key, pub string) {
		key, pub = filepath.Join(keys, name), filepath.Join(keys, name+".pub")
		if out, err := exec.CommandContext(t.Context(), "../bin/tools/minisign", "-G", "-W", "-s", key, "-p", pub).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return key, pub
	}
	key, pub := make("a")
	_, foreign := make("b")
	if out, err := sign(t, dir, "WEFT_SIGN_KEY="+key, "WEFT_SIGN_PUB="+pub); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := verify(t, dir, pub); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS.test.pub")); err == nil {
		t.Error("the key of the test release before is still there")
	}
	for _, other := range []string{foreign, filepath.Join(keys, "none")} {
		if out, err := sign(t, dir, "WEFT_SIGN_KEY="+key, "WEFT_SIGN_PUB="+other); err == nil {
			t.Errorf("signed although users cannot verify by %s: %s", other, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS.minisig")); err == nil {
			t.Error("a signature that users cannot verify is left")
		}
	}
}
