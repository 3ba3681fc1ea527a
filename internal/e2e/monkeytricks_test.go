package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"weft/internal/health"
	"weft/internal/leases/holder"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// trick is one kind of change that the monkey makes.
type trick struct {
	name string
	only string // name of the network that it is for; empty: both
	// codes are the conditions that explain why the network is not whole until undo, for a change that is not weft's to undo. It may be
	// whole nevertheless. None: weft undoes the change.
	codes []health.Code
	do    func(m *victim)
	undo  func(m *victim) // nil: nothing to undo
}

// victim is the node that a trick is played on, and one of its pods.
type victim struct {
	t      *testing.T
	random *rand.Rand
	troop  *troop
	node   *cluster.Node
	pod    *pod
}

// run runs commands on the node's host. In them, PORT is the host end of the pod.
func (m *victim) run(lines ...string) {
	m.t.Helper()
	port := holder.ForNamespace(m.pod.Path(), "eth0").AttachLink()
	for _, line := range lines {
		labtest.Run(m.t, m.node.Space, strings.Fields(strings.ReplaceAll(line, "PORT", port))...)
	}
}

// commands is a trick of commands that weft repairs.
func commands(only string, lines ...string) trick {
	return trick{name: strings.Join(lines, "; "), only: only, do: func(m *victim) { m.run(lines...) }}
}

// filtered and routed are the conditions for packet filters and for routes of other programs.
var (
	filtered = []health.Code{health.PodTrafficFiltered, health.OutsideTrafficFiltered}
	routed   = []health.Code{health.RangeRoutedElsewhere}
)

// foreignChange is a trick of commands that weft must explain if they do harm, and of a command that undoes them.
func foreignChange(codes []health.Code, undo string, lines ...string) trick {
	return trick{
		name: strings.Join(lines, "; "), codes: codes,
		do: func(m *victim) { m.run(lines...) }, undo: func(m *victim) { m.run(undo) },
	}
}

// defaultRoute restores the route that vanishes with an address or with an interface that goes down.
const defaultRoute = "ip route replace default via 192.168.77.254"

var monkeyTricks = []trick{
	commands("", "ip addr flush dev weave"),
	commands("", "ip link set weave down"),
	commands("", "ip link del weave"),
	commands("", "ip link set weave mtu 1300"),
	commands("", "ip link set weave address 02:00:00:00:00:99"),
	commands("", "ip link set weave arp off"),
	commands("", "ip link set weave type bridge stp_state 1"),
	commands("", "ip route flush dev weave"),
	commands("", "ip link set weft0 down"),
	commands("", "ip link set weft0 nomaster"),
	commands("", "ip link set weft0 mtu 1300"),
	commands("", "ip link set weft0 type bridge_slave isolated off"),
	commands("plain", "ip link set weftvx6785 down"),
	commands("plain", "ip link set weftvx6785 nomaster"),
	commands("plain", "ip link del weftvx6785"),
	commands("plain", "bridge fdb flush dev weftvx6785"),
	commands("", "ip link set PORT down"),
	commands("", "ip link set PORT nomaster"),
	commands("", "ip link set PORT type bridge_slave isolated on"),
	commands("", "ip link set PORT type bridge_slave learning off flood off"),
	commands("", "ip link set PORT mtu 1300"),
	commands("", "sysctl -qw net.ipv4.ip_forward=0"),
	commands("", "sysctl -qw net.ipv4.conf.weave.forwarding=0"),
	commands("", "sysctl -qw net.ipv4.conf.weave.rp_filter=1"),
	commands("", "sysctl -qw net.ipv4.conf.all.arp_ignore=1"),
	commands("", "nft flush ruleset"),
	commands("", "iptables -t nat -F"),
	commands("", "iptables-legacy -t nat -F"),
	commands("", "conntrack -F"),
	commands("", "ip neigh flush all"),
	commands("", "bridge fdb flush dev weave"),
	commands("", "ip link set eth0 down", "ip link set eth0 up", defaultRoute),
	commands("", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"),
	foreignChange(filtered, "nft delete table inet other",
		"nft add table inet other", "nft add chain inet other forward { type filter hook forward priority 0; policy drop; }"),
	foreignChange(filtered, "iptables-legacy -P FORWARD ACCEPT", "iptables-legacy -P FORWARD DROP"),
	foreignChange(filtered, "iptables -D FORWARD -j REJECT", "iptables -A FORWARD -j REJECT"),
	foreignChange(routed, "ip route del blackhole 10.32.0.0/13", "ip route add blackhole 10.32.0.0/13"),
	foreignChange(routed, "ip route del 10.0.0.0/8", "ip route add 10.0.0.0/8 dev lo"),
	{name: "kill the daemon and start it", do: func(m *victim) {
		m.node.Process().Kill()
		m.troop.start(m.t, m.node)
		waitReady(m.t, []*cluster.Node{m.node}) // the kernel carries traffic before the daemon has its devices
	}},
	{name: "stop the daemon and start it", do: func(m *victim) {
		if err := m.node.Stop(); err != nil {
			m.t.Error(err)
		}
		m.troop.start(m.t, m.node)
		waitReady(m.t, []*cluster.Node{m.node}) // the kernel carries traffic before the daemon has its devices
	}},
	{name: "give the host another address on the underlay", do: func(m *victim) {
		m.troop.moved++
		m.readdress(m.node.Addr().String(), m.troop.otherAddr())
	}, undo: func(m *victim) {
		m.readdress(m.troop.otherAddr(), m.node.Addr().String())
	}},
}

// readdress replaces the host's address on the underlay, as DHCP does.
func (m *victim) readdress(from, to string) {
	m.t.Helper()
	m.run("ip addr del "+from+"/24 dev eth0", "ip addr add "+to+"/24 dev eth0", defaultRoute)
}

// otherAddr returns the address of the underlay that was given last. No host has it from the start.
func (r *troop) otherAddr() string { return fmt.Sprintf("192.168.77.%d", 100+r.moved%100) }
