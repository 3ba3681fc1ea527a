package live_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/hoststate"
	"weft/internal/hoststate/live"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestRestore: each change of a host is found, and undone by the actions for it. Nothing is found on a host that is right.
func TestRestore(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	run := func(line string) { labtest.Run(t, h.Space, strings.Fields(line)...) }
	for _, line := range []string{
		"ip link add weave address 02:00:00:00:00:01 mtu 1300 type bridge mcast_snooping 0",
		"ip link add br1 type bridge",
		"ip link add weft0 mtu 1400 address 02:00:00:00:00:02 type veth peer name far0",
		"ip link add vweft1 mtu 1400 type veth peer name far1",
		"ip link set far0 up", "ip link set far1 up",
		"ip link set weft0 master weave", "ip link set vweft1 master weave",
		"ip link set weave mtu 1400 alias weft", "ip link set weave up", "ip link set weft0 up", "ip link set vweft1 up",
		"ip link set weft0 type bridge_slave isolated on", "ip link set vweft1 type bridge_slave hairpin on",
		"ip addr add 10.40.0.1/12 dev weave", "ip addr add fd32::1/64 dev weave nodad", "sysctl -qw net.ipv4.ip_forward=1",
	} {
		run(line)
	}
	d := hoststate.Desired{
		Bridge:    hoststate.Bridge{Name: "weave", MTU: 1400, MAC: ether.Addr{2, 0, 0, 0, 0, 1}, Made: true, Alias: "weft"},
		Tunnels:   []hoststate.Tunnel{{Name: "weft0", MTU: 1400, MAC: ether.Addr{2, 0, 0, 0, 0, 2}}},
		Pods:      map[string]hoststate.Pod{"vweft1": {MTU: 1400, Hairpin: true}},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.40.0.1/12"), netip.MustParsePrefix("fd32::1/64")},
		Settings: []hoststate.Setting{
			{Path: "ipv4/ip_forward", Want: "1"}, {Path: "ipv4/conf/weave/forwarding", Want: "1"},
			{Path: "ipv6/conf/weave/disable_ipv6", Want: "0"},
			{Path: "ipv4/conf/weave/rp_filter", Want: "2", Wrong: "1", Above: "ipv4/conf/all/rp_filter"},
		},
	}
	var host *live.Host
	if err := h.Do(func() (err error) { host, err = live.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	look := func() (actions []hoststate.Action) {
		t.Helper()
		err := h.Do(func() error {
			o, err := host.Observe(d)
			actions = hoststate.Diff(d, o)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return actions
	}
	run("ip link set weave type bridge no_linklocal_learn 1")
	labtest.Until(t, 10*time.Second, func() error { // the kernel adds local routes of IPv6 later than addresses
		if found := look(); len(found) != 0 {
			return fmt.Errorf("the host is right, and lacks %v", found)
		}
		return nil
	})
	for _, line := range []string{
		// First: the kernel adds the local route of IPv6 later than the address.
		"ip -6 route del local fd32::1 dev weave table local", "ip route del local 10.40.0.1 dev weave table local",
		"ip route flush table local dev weave",
		"ip addr flush dev weave", "ip -4 addr flush dev weave", "ip addr del 10.40.0.1/12 dev weave", "ip addr del fd32::1/64 dev weave",
		"ip link set weave alias other",
		"ip route flush dev weave", "ip -6 route del fd32::/64 dev weave", "ip link set weave down",
		"ip link set weave mtu 1300", "ip link set weave arp off", "bridge fdb flush dev weave",
		"ip link set weave address 02:00:00:00:00:03", "ip link set weave type bridge stp_state 1",
		"ip link set weave type bridge mcast_snooping 1",
		"ip link set weave type bridge group_fwd_mask 8", "ip link set weave type bridge no_linklocal_learn 0",
		"ip link set weave type bridge ageing_time 0", //nolint:misspell // the kernel's name
		"ip link set weft0 down", "ip link set weft0 nomaster", "ip link set weft0 master br1", "ip link set weft0 mtu 1300",
		"ip link set weft0 address 02:00:00:00:00:03", "ip link set weft0 type bridge_slave isolated off",
		"ip link set weft0 type bridge_slave state 1", "ip link set weft0 type bridge_slave learning off",
		"ip link set vweft1 down", "ip link set vweft1 nomaster", "ip link set vweft1 mtu 1300",
		"ip link set vweft1 type bridge_slave isolated on", "ip link set vweft1 type bridge_slave hairpin off",
		"ip link set vweft1 type bridge_slave flood off", "ip link set vweft1 type bridge_slave mcast_flood off",
		"ip link set vweft1 type bridge_slave bcast_flood off", "ip link set vweft1 type bridge_slave locked on",
		"ip link set vweft1 type bridge_slave neigh_suppress on", "ip link set vweft1 type bridge_slave root_block on",
		"sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.conf.weave.forwarding=0", "sysctl -qw net.ipv4.conf.all.rp_filter=1",
		"sysctl -qw net.ipv4.conf.weave.rp_filter=1", "sysctl -qw net.ipv6.conf.weave.disable_ipv6=1",
	} {
		run(line)
		found := look()
		if len(found) == 0 {
			t.Errorf("%s: nothing is found", line)
		}
		for range 3 { // what was behind a change may be seen only after its repair
			err := h.Do(func() error {
				for _, a := range found {
					if err := host.Apply(a); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			if found = look(); len(found) == 0 {
				break
			}
		}
		if len(found) != 0 {
			t.Errorf("%s: not restored: %v", line, found)
		}
	}
}
