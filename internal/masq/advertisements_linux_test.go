package masq_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/masq"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestKeepAdvertisements: a host keeps the advertisements that it relies on when it becomes a router, and takes none from elsewhere.
func TestKeepAdvertisements(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	h := labtest.AddHost(t, l, "a")
	for _, line := range []string{
		"link add route type veth peer name slaac", "link add plain type veth peer name port",
		"link add weave type bridge", "link set weave alias weft", "link set port master weave",
		"link set route up", "link set slaac up", "link set plain up", "link set weave up",
		"-6 route add 2001:db8:5::/48 via fe80::1 dev route proto ra", "-6 route add 2001:db8::/32 via fe80::1 dev weave proto ra",
		"-6 addr add 2001:db8:1::5/64 dev slaac valid_lft 1000 preferred_lft 1000",
	} {
		labtest.Run(t, h.Space, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	names := []string{"route", "slaac", "plain", "port", "weave", "all", "default"}
	got := map[string]string{}
	err := h.Do(func() error {
		path := func(name string) string { return filepath.Join("/proc/sys/net/ipv6/conf", name, "accept_ra") }
		for _, name := range names {
			if err := os.WriteFile(path(name), []byte("1"), 0); err != nil {
				return err
			}
		}
		if err := masq.EnableForwarding(false, true); err != nil {
			return err
		}
		for _, name := range names {
			text, err := os.ReadFile(path(name))
			if err != nil {
				return err
			}
			got[name] = strings.TrimSpace(string(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"route": "2", "slaac": "2", "plain": "1", "port": "1", "weave": "1", "all": "1", "default": "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accept_ra (-want +got):\n%s", diff)
	}
}
