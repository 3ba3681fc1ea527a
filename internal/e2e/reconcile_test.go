package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// restoreTime is the timeout for repairs. It is shorter than the period of full looks, so a repair in time follows a notification.
const restoreTime = 10 * time.Second

// hostEnd returns the name of the only pod's host end on a node.
func hostEnd(t *testing.T, n *cluster.Node) string {
	t.Helper()
	for _, name := range links(t, n.Host) {
		if strings.HasPrefix(name, "vweft") {
			return name
		}
	}
	t.Fatalf("%s has no pod", n.Label())
	return ""
}

// shows waits until a command on a node shows what it should.
func shows(t *testing.T, n *cluster.Node, command, want string) {
	t.Helper()
	pattern := regexp.MustCompile(want)
	labtest.Until(t, restoreTime, func() error {
		out, err := n.Run(testContext(t), strings.Fields(command)...)
		if err == nil && !pattern.MatchString(out) {
			err = fmt.Errorf("%s shows %q, want %q", command, out, want)
		}
		return err
	})
}

// change is a change of a host by another program.
type change struct {
	command string // %s: the pod's host end
	show    string // shows the state
	want    string // a pattern of the right state
}

// linkChanges are changes of what every node has.
var linkChanges = []change{
	{"ip addr flush dev weave", "ip addr show weave", `10\.\d+\.\d+\.\d+/12`},
	{"ip link set weave down", "ip link show weave", `,UP`},
	{"ip route flush dev weave", "ip route", `10\.32\.0\.0/12 dev weave`},
	{"ip route flush table local dev weave", "ip route list table local", `local 10\.\d+\.\d+\.\d+ dev weave`},
	{"ip link set weave name br9", "ip link show weave", `,UP`},
	{"ip link set weave alias other", "ip link show weave", `alias weft`},
	{"ip link set weft0 name tap9", "ip link show weft0", `,UP`},
	{"ip link set %s name veth9", "ip link show %s", `,UP`},
	{"ip link set %s alias other", "ip link show %s", `alias weft: pod`},
	{"ip link set weave mtu 1280", "ip link show weave", `mtu 14\d\d`},
	{"ip link set weave arp off", "ip link show weave", `^[^>]*weave: <BROADCAST,MULTICAST,UP`},
	{"ip link set weave address 02:00:00:00:00:01", "ip link show weave", `ether 06:57`},
	{"ip link set weave type bridge stp_state 1", "ip -d link show weave", `stp_state 0`},
	{"ip link set weave type bridge mcast_snooping 1", "ip -d link show weave", `mcast_snooping 0`},
	{"ip link set weave type bridge group_fwd_mask 8", "ip -d link show weave", `group_fwd_mask 0 `},
	{"ip link set weave type bridge ageing_time 0", "ip -d link show weave", `ageing_time 30000`}, //nolint:misspell // the kernel's name
	{"ip link set weft0 down", "ip link show weft0", `,UP`},
	{"ip link set weft0 nomaster", "ip -d link show weft0", `master weave(.|\n)* isolated on`},
	{"ip link set weft0 mtu 1280", "ip link show weft0", `mtu 14\d\d`},
	{"ip link set weft0 type bridge_slave isolated off", "ip -d link show weft0", ` isolated on`},
	{"ip link set weft0 type bridge_slave hairpin on", "ip -d link show weft0", ` hairpin off`},
	{"ip link set weft0 type bridge_slave flood off", "ip -d link show weft0", ` flood on`},
	{"ip link set %s down", "ip link show %s", `,UP`},
	{"ip link set %s nomaster", "ip -d link show %s", `master weave(.|\n)* hairpin off`},
	{"ip link set %s mtu 1280", "ip link show %s", `mtu 14\d\d`},
	{"ip link set %s type bridge_slave isolated on", "ip -d link show %s", ` isolated off`},
	{"ip link set %s type bridge_slave hairpin on", "ip -d link show %s", ` hairpin off`},
	{"ip link set %s type bridge_slave learning off", "ip -d link show %s", ` learning on`},
	{"ip link del weave", "ip -d link show %s", `master weave`},
	{"sysctl -qw net.ipv4.ip_forward=0", "sysctl -n net.ipv4.ip_forward", `1`},
	{"sysctl -qw net.ipv4.conf.weave.forwarding=0", "sysctl -n net.ipv4.conf.weave.forwarding", `1`},
	{"sysctl -qw net.ipv4.conf.weave.arp_ignore=8", "sysctl -n net.ipv4.conf.weave.arp_ignore", `0`},
	{"sysctl -qw net.ipv4.conf.weave.rp_filter=1", "sysctl -n net.ipv4.conf.weave.rp_filter", `2`},
	{"nft flush ruleset", "nft list table inet weft", `masquerade`},
	{"nft delete table inet weft", "nft list table inet weft", `masquerade`},
	{"nft flush chain inet weft postrouting", "nft list table inet weft", `masquerade`},
	{"nft flush set inet weft overlay4", "nft list table inet weft", `10\.32\.0\.0/12`},
}

// kernelChanges are changes of the kernel path.
var kernelChanges = []change{
	{"ip link set weftvx6785 down", "ip link show weftvx6785", `,UP`},
	{"ip link set weftvx6785 nomaster", "ip -d link show weftvx6785", `master weave(.|\n)* isolated on`},
	{"ip link set weftvx6785 mtu 1280", "ip link show weftvx6785", `mtu 14\d\d`},
	{"ip link set weftvx6785 address 02:00:00:00:00:01", "ip link show weftvx6785", `ether fe`},
	{"ip link set weftvx6785 type bridge_slave isolated off", "ip -d link show weftvx6785", ` isolated on`},
	{"ip link set weftvx6785 name vx9", "ip -d link show weftvx6785", `master weave(.|\n)* isolated on`},
	{"ip link del weftvx6785", "ip -d link show weftvx6785", `master weave(.|\n)* isolated on`},
	{"nft flush ruleset", "nft list table inet weft-weftvx6785", `udp dport 6785`},
	{"nft flush set inet weft-weftvx6785 peers4", "nft list table inet weft-weftvx6785", `elements`},
}

// change6 are changes of a node with an IPv6 range.
var changes6 = []change{
	{"ip addr flush dev weave", "ip addr show weave", `fd32::`},
	{"ip link set weave down", "ip -6 addr show weave", `fd32::`},
	{"ip -6 route flush table local dev weave", "ip -6 route list table local", `local fd32::\S* dev weave`},
	{"ip -6 route flush dev weave", "ip -6 route", `fd32::/64 dev weave`},
	{"sysctl -qw net.ipv6.conf.weave.disable_ipv6=1", "ip -6 addr show weave", `fd32::`},
	{"sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -n net.ipv6.conf.all.forwarding", `1`},
	{"sysctl -qw net.ipv6.conf.weave.forwarding=0", "sysctl -n net.ipv6.conf.weave.forwarding", `1`},
}

// makes makes changes on the host of a node, one after the other. After each, the node restores its host, counts that, and the pods
// reach each other again.
func makes(t *testing.T, changes []change, nodes []*cluster.Node, pods []*pod) {
	t.Helper()
	pod := strings.NewReplacer("%s", hostEnd(t, nodes[0]))
	for _, c := range changes {
		before := repaired(t, nodes[0])
		labtest.Run(t, nodes[0].Space, strings.Fields(pod.Replace(c.command))...)
		shows(t, nodes[0], pod.Replace(c.show), c.want)
		pods[0].reaches(t, pods[1].addrs...)
		labtest.Until(t, restoreTime, func() error { // a repair is counted when it is done
			if after := repaired(t, nodes[0]); after <= before {
				return fmt.Errorf("%s: %d repairs before, %d after", c.command, before, after)
			}
			return nil
		})
	}
	if found := conditions(t, nodes[0], health.BridgeRepaired); len(found) != 1 || found[0].Remedy == "" {
		t.Errorf("conditions: %+v", found)
	}
	for _, code := range []health.Code{health.BridgeBroken, health.HostSetting} {
		if found := conditions(t, nodes[0], code); len(found) != 0 {
			t.Errorf("conditions: %+v", found)
		}
	}
}

// repaired returns how many repairs a node has counted.
func repaired(t *testing.T, n *cluster.Node) (count int) {
	t.Helper()
	for line := range strings.Lines(labtest.Run(t, n.Space, "curl", "-s", "http://127.0.0.1:6782/metrics")) {
		var value int
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, err := fmt.Sscan(number, &value); err == nil && strings.HasPrefix(name, "weft_repairs_total{") {
			count += value
		}
	}
	return count
}

// TestHostIsRestored: what another program changes on a host is restored at once.
func TestHostIsRestored(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes []change
		args    []string
		sealed  bool
	}{
		"userspace":   {changes: linkChanges, args: []string{"--datapath", "userspace"}},
		"sealed":      {changes: linkChanges, sealed: true},
		"kernel path": {changes: append(kernelChanges, linkChanges...)},
		"IPv6":        {changes: changes6, args: []string{"--range", "10.32.0.0/12", "--range", range6}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			if c.sealed {
				startSealed(t, nodes, newSecret(t))
			} else {
				start(t, nodes, c.args...)
			}
			pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
			pods[0].reaches(t, pods[1].addrs...)
			if name == "kernel path" {
				waitDatapath(t, nodes[0], "b", api.DatapathKernel)
			}
			makes(t, c.changes, nodes, pods)
			if name == "kernel path" {
				waitDatapath(t, nodes[0], "b", api.DatapathKernel)
			}
		})
	}
}

// TestForeignBridgeKeepsItsOptions: options of a bridge that weft did not make are not changed.
func TestForeignBridgeKeepsItsOptions(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	for _, line := range []string{
		"ip link add weave type bridge", "ip link set weave type bridge forward_delay 200 stp_state 1 group_fwd_mask 8", // 2 s
	} {
		labtest.Run(t, nodes[0].Space, strings.Fields(line)...)
	}
	start(t, nodes)
	attach(t, nodes[0], "p")
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", "weave", "down")
	shows(t, nodes[0], "ip -d link show weave", `,UP(.|\n)*stp_state 1(.|\n)*group_fwd_mask 0x?8`)
	shows(t, nodes[0], "bridge link show dev weft0", "state forwarding")
	if found := conditions(t, nodes[0], health.BridgeBroken); len(found) != 0 {
		t.Errorf("conditions: %+v", found)
	}
}

// TestHideIsNotUndone: an address that the operator hides stays away, and one that is exposed again is restored.
func TestHideIsNotUndone(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	do(t, nodes[0], "expose")
	do(t, nodes[0], "hide")
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", "weave", "mtu", "1280") // wakes the node
	shows(t, nodes[0], "ip link show weave", `mtu 14`)
	if out := labtest.Run(t, nodes[0].Space, "ip", "-4", "addr", "show", "weave"); strings.Contains(out, "inet ") {
		t.Errorf("after \"weft hide\": %s", out)
	}
	do(t, nodes[0], "expose")
	labtest.Run(t, nodes[0].Space, "ip", "addr", "flush", "dev", "weave")
	shows(t, nodes[0], "ip -4 addr show weave", `inet 10\.`)
}

// TestMovedPod: a pod's port in another bridge is left there, and a condition names it until it is back.
func TestMovedPod(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	attach(t, nodes[0], "p")
	port := hostEnd(t, nodes[0])
	labtest.Run(t, nodes[0].Space, "ip", "link", "add", "br9", "type", "bridge")
	expect := func(want int) {
		t.Helper()
		labtest.Until(t, restoreTime, func() error {
			if found := conditions(t, nodes[0], health.PodPortMoved); len(found) != want {
				return fmt.Errorf("conditions %+v, want %d", found, want)
			}
			return nil
		})
	}
	expect(0)
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", port, "down")
	shows(t, nodes[0], "ip link show "+port, ",UP") // the node knows the port
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", port, "master", "br9")
	expect(1)
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, nodes)
	expect(1) // the pod has a lease
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", port, "master", "weave")
	expect(0)
}

// TestContestedRepair: another program undoes each repair. The node repairs with pauses, and says so; "weft doctor" shows the
// difference. The node restores the host when the other program stops.
func TestContestedRepair(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t, "--datapath", "userspace")
	p := labtest.Start(t, nodes[0].Host, nettest.ProcessConfig{
		Argv: []string{"sh", "-c", "while :; do ip link set weft0 down; sleep 0.05; done"},
	})
	labtest.Until(t, patience, func() error {
		if found := conditions(t, nodes[0], health.RepairContested); len(found) == 0 {
			return errors.New("no condition says that a repair is contested")
		}
		return nil
	})
	labtest.Until(t, patience, func() error {
		if found, _ := doctor(t, nodes[0]); found["host"].Result != api.CheckWarn || !strings.Contains(found["host"].Detail, "weft0 is down") {
			return fmt.Errorf("weft doctor shows %+v", found["host"])
		}
		return nil
	})
	p.Kill()
	pods[0].reaches(t, pods[1].addr)
}

// TestLostTap: a daemon that lost its TAP ends with an error that names it, so that the service manager starts it again; then the
// pods reach each other.
func TestLostTap(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"ip link del weft0", "ip link set weft0 netns away"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			nodes, pods := pair(t)
			command := strings.ReplaceAll(command, "away", labtest.AddPod(t, nodes[0].Host, "away").Name())
			labtest.Run(t, nodes[0].Space, strings.Fields(command)...)
			select {
			case <-nodes[0].Process().Done():
			case <-time.After(patience):
				t.Fatal("the daemon runs without its TAP")
			}
			if logs := nodes[0].Process().Logs(); !strings.Contains(logs, "weft0") || !strings.Contains(logs, "deleted") {
				t.Errorf("no message names the TAP: %s", logs)
			}
			up(t, nodes[0], nodes[1].Addr().String())
			pods[0].reaches(t, pods[1].addr)
		})
	}
}

// TestFlushUnderInjection: while another program flushes all rules again and again, no frame of a foreign host reaches a pod.
func TestFlushUnderInjection(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "foreign")
	foreign := nodes[2]
	nodes = nodes[:2]
	start(t, nodes)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	sockets := openAll(t, pods)
	f := newForger(t, foreign.Host)
	from, to := netip.AddrPortFrom(foreign.Addr(), vxlanSource), netip.AddrPortFrom(nodes[0].Addr(), vxlanPort)
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 9, 9, 9, 9, 9, testType >> 8, testType & 0xff}, "foreign"...)
	datagram := slices.Concat(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vniOf(t, nodes[0])<<8), frame, make([]byte, 60))
	for range 5 {
		labtest.Run(t, nodes[0].Space, "nft", "flush", "ruleset")
		for range 400 {
			f.send(t, from, to, datagram)
		}
		shows(t, nodes[0], "nft list table inet weft-weftvx6785", `saddr != @peers4 .*drop`)
	}
	sockets[1].send(t, mac(t, "ff:ff:ff:ff:ff:ff"), "end")
	for _, text := range sockets[0].receiveUntil(t, "end") {
		if text != "end" {
			t.Fatalf("the pod got a frame of a foreign host: %q", text)
		}
	}
}

// TestNotRestored: what the node cannot restore is a condition with the cause, as long as that is so.
func TestNotRestored(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	attach(t, nodes[0], "p")
	labtest.Run(t, nodes[0].Space, "ip", "link", "del", "weave")
	labtest.Run(t, nodes[0].Space, "sh", "-c", "while ! ip link add weave type veth peer name far9; do ip link del weave; done")
	labtest.Until(t, patience, func() error {
		found := conditions(t, nodes[0], health.BridgeBroken)
		if len(found) != 1 || !strings.Contains(found[0].Text, "veth") || found[0].Remedy == "" {
			return fmt.Errorf("conditions: %+v", found)
		}
		return nil
	})
	labtest.Run(t, nodes[0].Space, "ip", "link", "del", "weave")
	shows(t, nodes[0], "ip -d link show "+hostEnd(t, nodes[0]), `master weave`)
	labtest.Until(t, restoreTime, func() error {
		if found := conditions(t, nodes[0], health.BridgeBroken); len(found) != 0 {
			return fmt.Errorf("conditions: %+v", found)
		}
		return nil
	})
}

// TestBridgeChangedWhileStopped: a node that starts without its bridge puts the pods of its earlier run on the new one. A bridge that
// was renamed gets its name back.
func TestBridgeChangedWhileStopped(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"ip link del weave", "ip link set weave name br9", "ip link set weave alias other"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			nodes, pods := pair(t)
			if err := nodes[0].Stop(); err != nil {
				t.Fatal(err)
			}
			labtest.Run(t, nodes[0].Space, strings.Fields(command)...)
			up(t, nodes[0], nodes[1].Addr().String())
			pods[0].reaches(t, pods[1].addr)
			pods[0].reaches(t, nodes[1].Addr()) // through the bridge's address
			shows(t, nodes[0], "ip -d link show "+hostEnd(t, nodes[0]), `master weave`)
			shows(t, nodes[0], "ip link show weave", `alias weft`)
		})
	}
}

// TestPodPortChangedWhileStopped: the port of a pod that has a lease is restored at the start.
func TestPodPortChangedWhileStopped(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	port := hostEnd(t, nodes[0])
	for _, change := range []string{"nomaster", "down", "type bridge_slave isolated on"} {
		if err := nodes[0].Stop(); err != nil {
			t.Fatal(err)
		}
		labtest.Run(t, nodes[0].Space, strings.Fields("ip link set "+port+" "+change)...)
		up(t, nodes[0], nodes[1].Addr().String())
		pods[0].reaches(t, pods[1].addr)
	}
}
