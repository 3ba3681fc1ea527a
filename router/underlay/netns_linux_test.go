package underlay_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"weft/tap/taptest"
)

// ip runs a command of iproute2 in the test's namespace.
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// smallLoopback moves the test into a namespace with a loopback interface of mtu bytes.
func smallLoopback(t *testing.T, mtu int) {
	t.Helper()
	taptest.InNamespace(t)
	ip(t, fmt.Sprintf("link set lo mtu %d up", mtu))
}

// neighbor moves the test into a namespace with the interface wul0 of mtu bytes. 10.77.1.2 and fd77::2 have neighbor
// entries there, 10.77.1.9 has none.
func neighbor(t *testing.T, mtu int) {
	t.Helper()
	taptest.InNamespace(t)
	ip(t, "link set lo up")
	ip(t, fmt.Sprintf("link add wul0 mtu %d type veth peer name wul1 mtu %[1]d", mtu))
	ip(t, "link set wul0 up")
	ip(t, "link set wul1 up")
	ip(t, "addr add 10.77.1.1/24 dev wul0")
	ip(t, "addr add fd77::1/64 dev wul0 nodad")
	ip(t, "neigh add 10.77.1.2 lladdr 02:00:00:00:00:02 dev wul0")
	ip(t, "neigh add fd77::2 lladdr 02:00:00:00:00:02 dev wul0")
}

// narrow moves the test into a namespace from which 10.77.2.3 is reached through a router, 10.77.1.2, with a link of
// mtu bytes behind it.
func narrow(t *testing.T, mtu int) {
	t.Helper()
	taptest.InNamespace(t)
	router := fmt.Sprintf("wul%dr", os.Getpid())
	ip(t, "netns add "+router)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", router).Run() }) //nolint:noctx // t's has ended
	ip(t, "link set lo up")
	ip(t, "link add wul0 type veth peer name wul1 netns "+router)
	ip(t, "link set wul0 up")
	ip(t, "addr add 10.77.1.1/24 dev wul0")
	ip(t, "route add 10.77.2.0/24 via 10.77.1.2")
	in := "-n " + router + " "
	ip(t, in+"link set lo up")
	ip(t, in+"link set wul1 up")
	ip(t, in+"addr add 10.77.1.2/24 dev wul1")
	ip(t, in+fmt.Sprintf("link add wul2 mtu %d type veth peer name wul3", mtu))
	ip(t, in+"link set wul2 up")
	ip(t, in+"link set wul3 up")
	ip(t, in+"addr add 10.77.2.2/24 dev wul2")
	ip(t, in+"neigh add 10.77.2.3 lladdr 02:00:00:00:00:03 dev wul2")
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("forwarding: %v: %s", err, out)
	}
}

// twoHosts makes two namespaces with a link of 1,500 bytes between them, and returns their files. The first has
// 10.77.1.1 and fd77::1, the other 10.77.1.2 and fd77::2.
func twoHosts(t *testing.T) (a, b string) {
	t.Helper()
	taptest.RequireRoot(t)
	names := [2]string{fmt.Sprintf("wul%da", os.Getpid()), fmt.Sprintf("wul%db", os.Getpid())}
	for _, name := range names {
		ip(t, "netns add "+name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() }) //nolint:noctx // t's has ended
	}
	ip(t, fmt.Sprintf("-n %s link add wul0 address 02:00:00:00:00:01 type veth peer name wul0 address 02:00:00:00:00:02 netns %s",
		names[0], names[1]))
	for i, name := range names {
		own, other := i+1, 2-i
		ip(t, fmt.Sprintf("-n %s link set lo up", name))
		ip(t, fmt.Sprintf("-n %s link set wul0 up", name))
		ip(t, fmt.Sprintf("-n %s addr add 10.77.1.%d/24 dev wul0", name, own))
		ip(t, fmt.Sprintf("-n %s addr add fd77::%d/64 dev wul0 nodad", name, own))
		ip(t, fmt.Sprintf("-n %s neigh add 10.77.1.%d lladdr 02:00:00:00:00:0%[2]d dev wul0", name, other))
		ip(t, fmt.Sprintf("-n %s neigh add fd77::%d lladdr 02:00:00:00:00:0%[2]d dev wul0", name, other))
	}
	return "/run/netns/" + names[0], "/run/netns/" + names[1]
}
