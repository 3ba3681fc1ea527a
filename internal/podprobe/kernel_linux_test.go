package podprobe_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/podprobe"
)

var ranges = []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd32::/64")}

// probe probes on a host until the ranges that pass are the wanted ones.
func probe(t *testing.T, h *nettest.Host, p *podprobe.Prober, what string, want ...bool) {
	t.Helper()
	labtest.Until(t, 20*time.Second, func() error {
		return h.Do(func() error {
			results, err := p.Probe(t.Context())
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			for i, r := range results {
				if r.Passed != want[i] {
					return fmt.Errorf("%s: %s passed %v, want %v", what, r.Range, r.Passed, want[i])
				}
			}
			return nil
		})
	})
}

// TestProbe: a probe passes exactly if the host's filters let frames between pods pass, also after the bridge was made again, and it
// leaves by no other port.
func TestProbe(t *testing.T) {
	labtest.RequireRoot(t)
	labtest.Needs(t, "iptables-legacy")
	l := labtest.New(t, nettest.Config{})
	h := labtest.AddHost(t, l, "a")
	run := func(line string) { labtest.Run(t, h.Space, strings.Fields(line)...) }
	addBridge := func() {
		run("ip link add weave type bridge mcast_snooping 0")
		run("ip link set weave up")
		run("ip link add other type veth peer name far")
		run("ip link set other master weave up")
		run("ip link set far up")
	}
	addBridge()
	run("nft add table netdev seen")
	watch := func() {
		run("nft add chain netdev seen far { type filter hook ingress device far priority 0; }")
		run("nft add rule netdev seen far ether saddr fe:57:ff:00:00:01 counter")
	}
	watch()
	var p *podprobe.Prober
	if err := h.Do(func() (err error) {
		p, err = podprobe.Open(podprobe.Config{Bridge: "weave", Port: 6783, MTU: 1422, Ranges: ranges})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := labtest.Run(t, h.Space, "ip", "-brief", "link", "show", "weave")
	probe(t, h, p, "without rules", true, true)
	if after := labtest.Run(t, h.Space, "ip", "-brief", "link", "show", "weave"); strings.Fields(after)[2] != strings.Fields(before)[2] {
		t.Errorf("the address of the bridge was %s, and is %s", before, after)
	}
	run("iptables-legacy -P FORWARD DROP")
	probe(t, h, p, "with a policy of iptables-legacy", false, true)
	run("ip6tables-legacy -A FORWARD -j REJECT")
	probe(t, h, p, "with a final rule of ip6tables-legacy", false, false)
	run("iptables-legacy -I FORWARD -i weave -j ACCEPT")
	run("ip6tables-legacy -F")
	probe(t, h, p, "with an accept", true, true)
	run("nft add table inet f")
	run("nft add chain inet f forward { type filter hook forward priority 0; policy drop; }")
	probe(t, h, p, "with a policy of nftables", false, false)
	run("nft delete table inet f")
	if out := labtest.Run(t, h.Space, "nft", "list", "chain", "netdev", "seen", "far"); !strings.Contains(out, "counter packets 0") {
		t.Errorf("probes left by another port:\n%s", out)
	}
	run("ip link del weave")
	run("ip link del other")
	if err := h.Do(func() error { _, err := p.Probe(t.Context()); return err }); err == nil {
		t.Error("a probe without a bridge reports a result")
	}
	addBridge()
	probe(t, h, p, "on a new bridge", true, true)
	run("ip link del weave")
	run("ip link del other")
	addBridge()
	run("ip link set weave type bridge stp_state 1 forward_delay 200") // 2 s, the shortest
	if err := h.Do(func() error { _, err := p.Probe(t.Context()); return err }); !errors.Is(err, podprobe.ErrWaits) {
		t.Errorf("with STP: %v, want %v", err, podprobe.ErrWaits)
	}
	probe(t, h, p, "after twice the forward delay", true, true)
}
