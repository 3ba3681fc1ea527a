package settings

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"weft/internal/hint"
	"weft/internal/identity"
)

// TestIdentityCA: the CAs of --identity-ca replace those in the identity file, which another program may write.
func TestIdentityCA(t *testing.T) {
	trusted, other := identity.GenerateCA(), identity.GenerateCA()
	now := time.Unix(1_800_000_000, 0)
	certificate, err := trusted.Sign([32]byte{1}, identity.Terms{NotBefore: now, NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := Config{IdentityFile: filepath.Join(dir, "identity"), IdentityCAFile: filepath.Join(dir, "ca.pub")}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(c.IdentityFile, identity.File{CAs: []identity.CAKey{other.Key()}, Certificate: certificate}.String())
	write(c.IdentityCAFile, trusted.Key().String())
	if f, err := c.LoadIdentity(); err != nil || len(f.CAs) != 1 || f.CAs[0] != trusted.Key() {
		t.Errorf("%v, %v", f, err)
	}
	write(c.IdentityCAFile, "x")
	_, err = c.LoadIdentity()
	if e, ok := errors.AsType[*hint.Error](err); !ok || e.Subject != "--identity-ca" {
		t.Errorf("%v", err)
	}
	c.IdentityFile = ""
	if e, ok := errors.AsType[*hint.Error](c.validateProtection()); !ok || e.Subject != "--identity-ca" {
		t.Error("--identity-ca alone is accepted")
	}
}
