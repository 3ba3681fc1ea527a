package hairpin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/hairpin"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestKernel: of the frames of a pod, none comes back but packets to itself that were rewritten, for a service of either family.
func TestKernel(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "a")
	ip := func(s *nettest.Space, lines ...string) {
		t.Helper()
		for _, line := range lines {
			labtest.Run(t, s, append([]string{"ip"}, strings.Fields(line)...)...)
		}
	}
	ip(h.Space, "link add weave type bridge", "addr add 10.32.0.1/12 dev weave", "addr add fd32::1/64 dev weave nodad", "link set weave up")
	var pods []*nettest.Pod
	for i, name := range []string{"p", "q"} {
		p := labtest.AddPod(t, h, name)
		pods = append(pods, p)
		ip(h.Space, "link add vweft"+name+" master weave type veth peer name eth0 netns "+p.Name(), "link set vweft"+name+" up")
		labtest.Run(t, h.Space, "bridge", "link", "set", "dev", "vweft"+name, "hairpin", "on")
		ip(p.Space, fmt.Sprintf("addr add 10.32.0.%d/12 dev eth0", i+2), fmt.Sprintf("addr add fd32::%d/64 dev eth0 nodad", i+2),
			"link set eth0 up", "link set lo up", "route add default via 10.32.0.1", "-6 route add default via fd32::1")
	}
	labtest.Run(t, h.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		"net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
	labtest.Run(t, h.Space, "nft", `table inet service {
		chain prerouting { type nat hook prerouting priority dstnat
			ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.32.0.2:80
			ip6 daddr fd96::1 tcp dport 80 dnat ip6 to [fd32::2]:80
		}
		chain postrouting { type nat hook postrouting priority srcnat
			ct status dnat masquerade
		}
	}`)
	serve(t, pods[0])

	echoes := func() string { return counted(t, pods[0].Space) }
	ask := func() { // a broadcast of the pod
		_, _ = pods[0].Run(t.Context(), "ping", "-c1", "-W1", "10.32.0.99")
	}
	countEchoes(t, pods[0].Space)
	ask()
	if echoes() == "0" {
		t.Fatal("without the rules, no broadcast comes back: the test tests nothing")
	}
	with := func(f func(*hairpin.NFT) error) {
		t.Helper()
		err := h.Do(func() error {
			rules, err := hairpin.New()
			if err != nil {
				return err
			}
			return f(rules)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		with(func(rules *hairpin.NFT) error { return rules.Apply(t.Context(), "vweft") })
	}
	countEchoes(t, pods[0].Space)
	ask()
	if n := echoes(); n != "0" {
		t.Errorf("%s of the pod's own frames came back", n)
	}
	labtest.Run(t, pods[0].Space, "ping", "-c1", "-W2", "10.32.0.3")
	labtest.Run(t, pods[0].Space, "ping", "-c1", "-W2", "fd32::3")
	for _, service := range []string{"10.96.0.1", "fd96::1"} {
		for _, p := range pods {
			labtest.Until(t, 5*time.Second, func() error { return read(t, p, service) })
		}
	}
	labtest.Until(t, 5*time.Second, func() error { // a pod leaves nothing in the ruleset
		if out := labtest.Run(t, h.Space, "nft", "list", "table", "bridge", hairpin.Table); strings.Contains(out, "elements") {
			return fmt.Errorf("rules with elements:\n%s", out)
		}
		return nil
	})
	for range 2 {
		with(func(rules *hairpin.NFT) error { return rules.Remove(t.Context()) })
	}
	if out := labtest.Run(t, h.Space, "nft", "list", "tables"); strings.Contains(out, hairpin.Table) {
		t.Errorf("tables after Remove:\n%s", out)
	}
}
