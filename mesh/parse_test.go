package mesh

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// unusedAddr is an address at which no node is.
var unusedAddr = netip.MustParseAddrPort("127.0.0.1:9")

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadIdentity(dir)
	if err != nil || again != first {
		t.Fatalf("second load: %v, %v; want %v", again.ID, err, first.ID)
	}
	path := filepath.Join(dir, KeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	for _, bad := range []string{"", "hello", "weft-node-key-1 ", "weft-node-key-1 AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); !errors.Is(err, ErrBadKey) {
			t.Errorf("key file %q: %v, want ErrBadKey", bad, err)
		}
		if text, _ := os.ReadFile(path); string(text) != bad {
			t.Errorf("a bad key file was overwritten with %q", text)
		}
	}
}
