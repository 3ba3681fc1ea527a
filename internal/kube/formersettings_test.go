package kube

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// newSysctls returns settings in a folder of the test.
func newSysctls(t *testing.T, boot string, values map[string]string) sysctls {
	t.Helper()
	dir := t.TempDir()
	s := sysctls{net: filepath.Join(dir, "net"), boot: filepath.Join(dir, "boot_id")}
	write := func(path, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(s.boot, boot)
	for name, value := range values {
		write(filepath.Join(s.net, name), value)
	}
	return s
}

// set returns a function that writes a setting, as those do that Prepare calls.
func (s sysctls) set(name, value string) func() error {
	return func() error { return os.WriteFile(filepath.Join(s.net, name), []byte(value), 0o600) }
}

func (s sysctls) get(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.net, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestFormerSettings: settings that weft changed get the value of before its first start since the boot, unless another program has
// changed them.
func TestFormerSettings(t *testing.T) {
	const forward, iptables, advertisements = "ipv4/ip_forward", "bridge/bridge-nf-call-iptables", "ipv6/conf/eth0.5/accept_ra"
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "kube")
	s := newSysctls(t, "boot1", map[string]string{forward: "0", iptables: "1", advertisements: "1"})
	if restored, err := s.restore(dir); err != nil || len(restored) > 0 {
		t.Errorf("without a file: %v, %v", restored, err)
	}
	errChange := errors.New("change")
	for _, change := range []func() error{
		s.set(forward, "1"), s.set(iptables, "1"), s.set(advertisements, "0"), s.set(advertisements, "2"),
		func() error { return errChange },
	} {
		if err := s.recordChanges(dir, b.cfg.Log, change); err != nil && !errors.Is(err, errChange) {
			t.Fatal(err)
		}
	}
	if err := s.set(advertisements, "1")(); err != nil { // another program
		t.Fatal(err)
	}
	restored, err := s.restore(dir)
	if err != nil || !slices.Equal(restored, []string{"net.ipv4.ip_forward"}) || s.get(t, forward) != "0" {
		t.Errorf("restored %v, %v; forwarding %s", restored, err, s.get(t, forward))
	}
	if err := s.set(advertisements, "2")(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.restore(dir); err != nil || s.get(t, advertisements) != "1" {
		t.Errorf("%v; the first value is lost: %s", err, s.get(t, advertisements))
	}
	if err := s.set(forward, "1")(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.boot, []byte("boot2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if restored, err := s.restore(dir); err != nil || len(restored) > 0 {
		t.Errorf("after a reboot: %v, %v", restored, err)
	}
}
