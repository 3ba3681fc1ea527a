package kube

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestSettingsOnHost: the settings of a host that Prepare has changed are as before after a removal.
func TestSettingsOnHost(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	labtest.Run(t, h.Space, "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0",
		"net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=1", "net.ipv6.conf.eth0.accept_ra=1")
	relevant := regexp.MustCompile(`^net\.(bridge\.|ipv4\.ip_forward |ipv[46]\.conf\.)`)
	settings := func() (list []string) {
		t.Helper()
		for line := range strings.Lines(labtest.Run(t, h.Space, "sysctl", "-a")) {
			if relevant.MatchString(line) {
				list = append(list, strings.TrimSpace(line))
			}
		}
		return list
	}
	before := settings()
	b := newBench(t, newNode("node1", "172.30.0.11", 1))
	dir := filepath.Join(t.TempDir(), "weft")
	p := Prepare{
		API: b.api, Node: "node1", ConfigFile: filepath.Join(dir, "kube.yaml"), SecretFile: filepath.Join(dir, "none"), Plain: true,
		Timeout: time.Second, Log: b.cfg.Log, Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd32::/64")},
	}
	for range 2 {
		if err := h.Do(func() error { return p.Run(t.Context()) }); err != nil {
			t.Fatal(err)
		}
	}
	prepared := settings()
	if len(before) < 50 || cmp.Equal(before, prepared) {
		t.Fatalf("nothing has changed in %d settings: the test has no effect", len(before))
	}
	for range 2 {
		if err := h.Do(func() error { return RestoreSettings(dir, b.cfg.Log) }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, settings()); diff != "" {
			t.Errorf("settings (-before +after the removal):\n%s", diff)
		}
	}
}
