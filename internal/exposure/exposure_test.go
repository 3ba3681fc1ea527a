package exposure_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/api"
	"weft/internal/exposure"
)

// TestStore: what was asked for is there after a restart, and nothing else.
func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exposed.json")
	first, second := netip.MustParsePrefix("10.32.5.1/24"), netip.MustParsePrefix("fd32::1/120")
	open := func() *exposure.Store {
		t.Helper()
		s, err := exposure.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if got := s.Inward(); got != api.InwardOff {
		t.Errorf("an empty store has the mode %q", got)
	}
	for _, err := range []error{
		s.SetPrefix(netip.MustParsePrefix("10.32.5.1/16")), s.SetPrefix(first), s.SetPrefix(second), s.SetInward(api.InwardKeep),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for given, want := range map[string]netip.Prefix{
			"10.32.5.1/12": first, "fd32::1/64": second, "10.32.5.2/12": netip.MustParsePrefix("10.32.5.2/12"),
		} {
			if got := s.Prefix(netip.MustParsePrefix(given)); got != want {
				t.Errorf("%s has the prefix %s, want %s", given, got, want)
			}
		}
		if got := s.Inward(); got != api.InwardKeep {
			t.Errorf("the mode is %q", got)
		}
		s = open()
	}
	if err := s.KeepOnly([]netip.Addr{second.Addr()}); err != nil {
		t.Fatal(err)
	}
	whole := netip.MustParsePrefix("10.32.5.1/12")
	if s = open(); s.Prefix(whole) != whole || s.Prefix(netip.MustParsePrefix("fd32::1/64")) != second {
		t.Error("KeepOnly kept the wrong address")
	}
}

// TestErrors: a file that cannot be understood is refused, and a failed write changes nothing.
func TestErrors(t *testing.T) {
	for _, text := range []string{"", "[]", `{"inward":"always"}`, `{"addresses":["10.32.5.1"]}`} {
		path := filepath.Join(t.TempDir(), "exposed.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := exposure.Open(path); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	s, err := exposure.Open(filepath.Join(t.TempDir(), "gone", "exposed.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetInward(api.InwardNAT); err == nil || s.Inward() != api.InwardOff {
		t.Errorf("without the folder: %v, and the mode is %q", err, s.Inward())
	}
}
