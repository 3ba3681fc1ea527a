package teardown_test

import (
	"slices"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/teardown"
)

// TestHost: what weft made is removed, what other programs made stays, and a second call finds nothing.
func TestHost(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	run := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			labtest.Run(t, h.Space, strings.Fields(line)...)
		}
	}
	state := func() string {
		t.Helper()
		var out []string
		for _, line := range []string{"ip -o link", "nft list ruleset", "ip rule", "ip route show table all", "ip -6 route show table all"} {
			text := labtest.Run(t, h.Space, strings.Fields(line)...)
			if line == "ip -o link" {
				text = names(text)
			}
			out = append(out, text)
		}
		return strings.Join(out, "\n")
	}
	run(
		"ip link add docker0 type bridge", "ip link add veth0 type veth peer name veth1", "ip link set veth0 master docker0",
		"ip link add vx9 type vxlan id 9 dstport 4789 dev lo", "nft add table inet filter", "nft add table ip weftlike",
	)
	before := state()
	run(
		"ip link add weave type bridge", "ip link set weave alias weft", "ip link set weave up", "ip addr add 10.32.0.1/12 dev weave",
		"ip link add vweftabc type veth peer name p0", "ip link set vweftabc master weave",
		"ip link add weftvx6785 type vxlan id 7 dstport 6785 dev lo", "ip link set weftvx6785 alias weft", "ip link set weftvx6785 master weave",
		"nft add table inet weft", "nft add table bridge weft-policy", "nft add table ip weft-inward", "nft add table inet weft-weftvx6785",
	)
	clear := func() (r teardown.Report) {
		t.Helper()
		if err := h.Do(func() (err error) {
			r, err = teardown.Host(t.Context())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	run("ip link add veth2 type veth peer name veth3", "ip link set veth2 master weave")
	if r := clear(); !slices.Equal(r.Kept, []string{"weave"}) || r.Pods != 1 {
		t.Errorf("%+v: the bridge has a port of another program, and one of a pod", r)
	}
	run("ip link del veth2")
	for range 2 {
		if r := clear(); len(r.Kept) > 0 || r.Pods > 0 {
			t.Errorf("%+v", r)
		}
		if after := state(); after != before {
			t.Errorf("after:\n%s\nbefore:\n%s", after, before)
		}
	}
}

// names returns the names of the links in the output of "ip -o link".
func names(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, strings.Fields(line)[1])
	}
	return strings.Join(out, " ")
}
