package bridgenf_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/kube/bridgenf"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// host returns a host with a bridge of pods, another bridge, and a way to call Restore.
func host(t *testing.T, dir string) (h *nettest.Host, restore func() ([]string, error)) {
	t.Helper()
	h = labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	for _, line := range []string{
		"ip link add weave type bridge", "ip link add other type bridge",
		"ip link add vweftabc type veth peer name p0", "ip link set vweftabc master weave",
		"ip link add else0 type veth peer name p1", "ip link set else0 master other",
	} {
		labtest.Run(t, h.Space, strings.Fields(line)...)
	}
	return h, func() (restored []string, err error) {
		doErr := h.Do(func() error {
			restored, err = bridgenf.Keeper{PortPrefix: "vweft", Dir: dir}.Restore()
			return nil
		})
		return restored, errors.Join(err, doErr)
	}
}

// option returns whether a bridge has an option, as ip prints it.
func option(t *testing.T, h *nettest.Host, bridge, name string) bool {
	t.Helper()
	return strings.Contains(labtest.Run(t, h.Space, "ip", "-d", "link", "show", bridge), name+" 1")
}

// TestRestore: sysctls and options that hide packets are turned on again and reported, only for bridges of pods.
func TestRestore(t *testing.T) {
	h, restore := host(t, bridgenf.Settings)
	set := func(args string) { labtest.Run(t, h.Space, strings.Fields(args)...) }
	set("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1")
	if restored, err := restore(); err != nil || len(restored) > 0 {
		t.Fatalf("at first: %v, %v", restored, err)
	}
	for _, name := range []string{"nf_call_iptables", "nf_call_ip6tables"} {
		if !option(t, h, "weave", name) || option(t, h, "other", name) {
			t.Errorf("%s: weave %v, other %v", name, option(t, h, "weave", name), option(t, h, "other", name))
		}
	}
	for _, c := range []struct {
		change string
		want   []string
	}{
		{"sysctl -qw net.bridge.bridge-nf-call-iptables=0", []string{"net.bridge.bridge-nf-call-iptables"}},
		{"sysctl -qw net.bridge.bridge-nf-call-ip6tables=0", []string{"net.bridge.bridge-nf-call-ip6tables"}},
		{"ip link set weave type bridge nf_call_iptables 0", nil}, // the sysctl still shows the packets
	} {
		set(c.change)
		if restored, err := restore(); err != nil || !slices.Equal(restored, c.want) {
			t.Errorf("%s: restored %v, want %v; %v", c.change, restored, c.want, err)
		}
		if !option(t, h, "weave", "nf_call_iptables") {
			t.Errorf("%s: the option is off", c.change)
		}
		if restored, err := restore(); err != nil || len(restored) > 0 {
			t.Errorf("%s: restored again: %v, %v", c.change, restored, err)
		}
	}
}

// TestReadOnly: where /proc/sys is read-only, the options of the bridge are enough. Without the module nothing helps.
func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bridge")
	h, restore := host(t, dir)
	if _, err := restore(); !errors.Is(err, bridgenf.ErrMissing) {
		t.Errorf("without the module: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		// Not 1, and not writable.
		if err := os.Symlink("/proc/sys/kernel/cap_last_cap", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	restored, err := restore()
	if err != nil || len(restored) != 2 {
		t.Errorf("restored %v, %v", restored, err)
	}
	if !option(t, h, "weave", "nf_call_iptables") {
		t.Error("the option of the bridge is off")
	}
	labtest.Run(t, h.Space, "ip", "link", "del", "weave")
	labtest.Run(t, h.Space, "ip", "link", "add", "weave", "type", "bridge")
	if restored, err := restore(); err != nil || len(restored) > 0 {
		t.Errorf("without a pod: %v, %v", restored, err)
	}
}
