package hostwatch_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"weft/internal/hostwatch"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestWakes: each kind of change wakes the watcher of its kind, also a change of a port's flags.
func TestWakes(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	for _, line := range []string{
		"ip link add br0 type bridge", "ip link add wd0 type veth peer name wd1", "ip link set wd0 master br0",
		"ip link set br0 up", "ip link set wd0 up", "ip link set wd1 up",
	} {
		labtest.Run(t, h.Space, strings.Fields(line)...)
	}
	for _, c := range []struct {
		kind hostwatch.Kind
		line string
	}{
		{hostwatch.Links, "ip link set wd0 type bridge_slave isolated on"},
		{hostwatch.Links, "ip link set wd0 nomaster"},
		{hostwatch.Links, "ip link set wd0 mtu 1400"},
		{hostwatch.Links, "ip link set wd1 down"},
		{hostwatch.Addresses, "ip addr add 192.0.2.1/24 dev br0"},
		{hostwatch.Addresses, "ip -6 addr add fd32::1/64 dev br0 nodad"},
		{hostwatch.Routes, "ip route add 198.51.100.0/24 via 192.0.2.9"},
		{hostwatch.Routes, "ip -6 route add fd99::/64 via fd32::9"},
		{hostwatch.Routes, "ip rule add from 192.0.2.7 table 100"},
		{hostwatch.Filters, "nft add table inet other"},
		{hostwatch.Filters, "nft flush ruleset"},
	} {
		t.Run(c.line, func(t *testing.T) {
			var w *hostwatch.Watcher
			if err := h.Do(func() (err error) { w, err = hostwatch.Open(c.kind); return err }); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			labtest.Run(t, h.Space, strings.Fields(c.line)...)
			select {
			case <-w.Changed():
			case <-time.After(10 * time.Second):
				t.Error("no wake-up")
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}
