package guard

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/api"
)

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guard.json")
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	a := Entry{Port: Port{Link: "vwefta", MAC: macA, Addrs: addrs("10.32.0.2", "fd32::2"), Allow: prefixes("10.50.0.0/24")}, Owner: "a"}
	b := Entry{Port: Port{Link: "vweftb", MAC: macB, Addrs: addrs("10.32.0.3")}, Owner: "b", Mode: api.GuardOff}
	for _, e := range []Entry{b, a} {
		if err := s.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.EquateEmpty(),
	}
	expect := func(want ...Entry) {
		t.Helper()
		again, err := OpenStore(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range [][]Entry{s.All(), again.All()} {
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		}
	}
	expect(a, b)
	if got, ok := s.Of("vweftb"); !ok || got.Mode != api.GuardOff {
		t.Errorf("Of = %+v, %t", got, ok)
	}
	for range 2 {
		if err := s.Delete("vweftb"); err != nil {
			t.Fatal(err)
		}
	}
	expect(a)

	// An entry that cannot be written is not kept in memory either.
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(b); err == nil {
		t.Error("Put without the folder succeeds")
	}
	if _, ok := s.Of("vweftb"); ok {
		t.Error("a failed Put is kept")
	}
}

func TestStoreDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guard.json")
	for _, text := range []string{"", "{", `[{"link":"we*","mac":"02:00:00:00:00:01"}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(path); err == nil {
			t.Errorf("OpenStore of %q succeeds", text)
		}
	}
}

func TestHarden(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ipv6/conf/vwefta/disable_ipv6", "0\n")
	write("ipv6/conf/other/disable_ipv6", "0\n")
	write("ipv4/conf/vwefta/accept_redirects", "0\n")
	for range 2 {
		if err := harden(root, "vwefta", portSettings); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"ipv6/conf/vwefta/disable_ipv6": "1", "ipv6/conf/other/disable_ipv6": "0\n", "ipv4/conf/vwefta/accept_redirects": "0\n",
	} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", name, got, err, want)
		}
	}
	write("ipv4/conf/bad/accept_redirects/file", "")
	if err := harden(root, "bad", portSettings); err == nil {
		t.Error("no error for a setting that cannot be read")
	}
}
