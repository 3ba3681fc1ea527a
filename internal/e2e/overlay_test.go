package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

func TestEveryPairOfPodsPings(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	var pods []*pod
	for _, n := range nodes {
		for i := range 2 {
			pods = append(pods, attach(t, n, fmt.Sprintf("p%d", i)))
		}
	}
	seen := map[netip.Addr]bool{}
	for _, p := range pods {
		if seen[p.addr] {
			t.Errorf("address %s was assigned twice", p.addr)
		}
		seen[p.addr] = true
	}
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	if t.Failed() {
		return
	}
	status := query[api.Status](t, nodes[0], "status")
	if !status.Ready || status.Peers[api.PeerAlive] != 3 || status.MTU != 1438 || status.Bridge != "weave" {
		t.Errorf("status at the end: %+v", status)
	}
}

func TestSharesAreEqual(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	ipam := query[api.IPAM](t, nodes[1], "ipam")
	if ipam.State != api.IPAMReady || len(ipam.Ranges) != 1 || len(ipam.Ranges[0].Owners) != 3 {
		t.Fatalf("ipam %+v", ipam)
	}
	var least, most uint64 = 1 << 62, 0
	for _, o := range ipam.Ranges[0].Owners {
		least, most = min(least, o.Addresses), max(most, o.Addresses)
	}
	if most-least > 1 {
		t.Errorf("the shares are between %d and %d addresses", least, most)
	}
}

// TestTwoNodesAtOneInstant bootstraps several times with two nodes that propose a division at the same time.
func TestTwoNodesAtOneInstant(t *testing.T) {
	t.Parallel()
	for range 3 {
		nodes := newNodes(t, "a", "b")
		start(t, nodes)
		p, q := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
		if p.addr == q.addr {
			t.Errorf("both leased %s", p.addr)
		}
		p.reaches(t, q.addr)
		for _, n := range nodes {
			if i := query[api.IPAM](t, n, "ipam"); len(i.Ranges[0].Owners) != 2 {
				t.Errorf("%s sees the owners %+v", n.Label(), i.Ranges[0].Owners)
			}
		}
	}
}

// TestGroupFramesArriveOnce: each pod receives a broadcast or multicast frame exactly once.
func TestGroupFramesArriveOnce(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	var pods []*pod
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
	}
	for _, to := range []string{"ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03", "33:33:00:00:00:fb"} {
		t.Run(to, func(t *testing.T) {
			sockets := openAll(t, pods)
			sockets[0].send(t, mac(t, to), "once "+to)
			sockets[0].send(t, mac(t, to), "after "+to)
			for i, s := range sockets[1:] {
				// Frames of one source stay in order: all copies of the first arrive before the second.
				got := s.receiveUntil(t, "after "+to)
				if diff := cmp.Diff([]string{"once " + to, "after " + to}, got); diff != "" {
					t.Errorf("the pod on %s: %s", nodes[i+1].Label(), diff)
				}
			}
		})
	}
}

func TestLinkLocalFramesStay(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	sockets := openAll(t, []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")})
	sockets[0].send(t, mac(t, "01:80:c2:00:00:0e"), "LLDP")
	sockets[0].send(t, mac(t, "ff:ff:ff:ff:ff:ff"), "marker")
	if got := sockets[1].receiveUntil(t, "marker"); !slices.Equal(got, []string{"marker"}) {
		t.Errorf("the other node's pod received %q", got)
	}
}

// TestMACMoves: a MAC address moves between two nodes, and a third node updates its table, by whatever its peers are carried.
func TestMACMoves(t *testing.T) {
	t.Parallel()
	for _, datapath := range []api.Datapath{api.DatapathKernel, api.DatapathUserspace} {
		t.Run(string(datapath), func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b", "c")
			start(t, nodes, "--datapath", string(datapath))
			for _, n := range nodes {
				for _, other := range nodes {
					if n != other {
						waitDatapath(t, n, other.Label(), datapath)
					}
				}
			}
			testMACMoves(t, nodes)
		})
	}
}

func testMACMoves(t *testing.T, nodes []*cluster.Node) {
	t.Helper()
	sockets := openAll(t, []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")})
	const movingMAC = "02:00:00:00:00:77"
	for i, name := range []string{"a", "b", "a"} {
		text := fmt.Sprintf("hello %d", i)
		s := sockets[slices.Index([]string{"a", "b"}, name)]
		s.sendFrom(t, mac(t, movingMAC), mac(t, "ff:ff:ff:ff:ff:ff"), text)
		sockets[2].receiveUntil(t, text)
		where := ""
		for _, e := range query[[]api.FDBEntry](t, nodes[2], "fdb") {
			if e.MAC == mac(t, movingMAC) {
				where = e.Name
			}
		}
		if where != name {
			t.Errorf("after a frame from %s, the MAC is behind %q in the table of c", name, where)
		}
	}
}

// TestNodeDiesAndReturns kills a daemon. The pods of its node still reach each other, and the other nodes see it dead. After
// a restart the node has its leases again, and its pods reach the others.
func TestNodeDiesAndReturns(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	far, near, other := attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[1], "q")
	far.reaches(t, near.addr)
	before := do(t, nodes[1], "ip", "list", "--json")

	nodes[1].Process().Kill()
	waitState(t, nodes[0], "b", api.PeerDead)
	near.reaches(t, other.addr)
	for _, e := range query[[]api.FDBEntry](t, nodes[0], "fdb") {
		if e.Name == "b" {
			t.Errorf("%s is still behind the dead b in the table of a", e.MAC)
		}
	}

	up(t, nodes[1], others(nodes, nodes[1])...)
	waitReady(t, nodes)
	far.reaches(t, near.addr)
	if diff := cmp.Diff(before, do(t, nodes[1], "ip", "list", "--json")); diff != "" {
		t.Errorf("leases after the restart: %s", diff)
	}
	late := attach(t, nodes[1], "late")
	if late.addr == near.addr || late.addr == other.addr {
		t.Errorf("%s was assigned again after the restart", late.addr)
	}
}

// TestStopAndStart stops and starts a daemon as an upgrade does: bridge, pods and addresses stay.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p, q, far := attach(t, nodes[0], "p"), attach(t, nodes[0], "q"), attach(t, nodes[1], "p")
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	p.reaches(t, q.addr)
	if got := links(t, nodes[0].Host); slices.Contains(got, "weft0") {
		t.Errorf("the TAP still exists after the daemon has stopped: %v", got)
	}
	up(t, nodes[0], others(nodes, nodes[0])...)
	waitReady(t, nodes)
	far.reaches(t, p.addr)
}

func TestAttachAndDetachLeaveNothing(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	n := nodes[0]
	do(t, n, "expose")
	hostBefore, leasesBefore := links(t, n.Host), do(t, n, "ip", "list", "--json")

	p := attach(t, n, "p")
	again, err := n.Attach(testContext(t), p.Pod)
	if err != nil || again[0] != p.addr {
		t.Errorf("attaching again: %v, %v; want %s", again, err, p.addr)
	}
	if route := labtest.Run(t, p.Space, "ip", "route", "show", "default"); !strings.HasPrefix(route, "default via 10.32.0.1 ") {
		t.Errorf("the pod's default route: %q", route)
	}
	for range 2 { // the second call changes nothing
		do(t, n, "detach", "--netns", p.Path())
	}
	if diff := cmp.Diff(hostBefore, links(t, n.Host)); diff != "" {
		t.Errorf("links of the host: %s", diff)
	}
	if diff := cmp.Diff(leasesBefore, do(t, n, "ip", "list", "--json")); diff != "" {
		t.Errorf("leases: %s", diff)
	}
	if out := labtest.Run(t, p.Space, "ip", "-brief", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the pod still has eth0: %s", out)
	}
}

// TestPodReachesBeyondTheOverlay: a pod pings the underlay address of another host, which has no route to pods. This works
// only with masquerading.
func TestPodReachesBeyondTheOverlay(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p := attach(t, nodes[0], "p")
	p.reaches(t, nodes[1].Addr())
}

// TestExposeAndHide assigns an overlay address to a host and removes it again.
func TestExposeAndHide(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p := attach(t, nodes[1], "p")
	first := do(t, nodes[0], "expose")
	if again := do(t, nodes[0], "expose", "auto"); again != first {
		t.Errorf("exposed as %s, then as %s", first, again)
	}
	host := netip.MustParsePrefix(first)
	p.reaches(t, host.Addr())
	// The kernel removes this one together with the first of its subnet.
	labtest.Run(t, nodes[0].Space, "ip", "addr", "add", "10.47.255.200/12", "dev", "weave")
	do(t, nodes[0], "hide")
	if s := query[api.Status](t, nodes[0], "status"); len(s.Exposed) != 0 {
		t.Errorf("still exposed as %v", s.Exposed)
	}
	if out := labtest.Run(t, nodes[0].Space, "ip", "-4", "-brief", "addr", "show", "weave"); out != "" {
		t.Errorf("the bridge still has an address: %s", out)
	}
}

// TestExposedPrefixLength: "weft expose CIDR" keeps its prefix length when the bridge is made anew, and over a restart without the bridge.
func TestExposedPrefixLength(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	n := nodes[0]
	start(t, nodes)
	if got := do(t, n, "expose", "10.32.5.1"); got != "10.32.5.1/12" {
		t.Errorf("exposed as %s", got)
	}
	const want = "10.32.5.1/24"
	if got := do(t, n, "expose", want); got != want {
		t.Errorf("exposed as %s, want %s", got, want)
	}
	has := func() error {
		out, err := n.Run(testContext(t), "ip", "-4", "-brief", "addr", "show", "weave")
		if fields := strings.Fields(out); err == nil && (len(fields) != 3 || fields[2] != want) { // empty without an address
			err = fmt.Errorf("the bridge has %s, want %s", out, want)
		}
		return err
	}
	if err := has(); err != nil {
		t.Error(err)
	}
	labtest.Run(t, n.Space, "ip", "link", "del", "weave")
	labtest.Until(t, patience, has)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, n.Space, "ip", "link", "del", "weave")
	up(t, n)
	waitReady(t, nodes)
	labtest.Until(t, patience, has)
	if list := do(t, n, "ip", "list"); !strings.Contains(list, want) {
		t.Errorf("weft ip list:\n%s", list)
	}
	// As the gateway of a pod it comes back after "weft hide". A pod of the whole range gets another gateway.
	near := attach(t, n, "near", "--ip", "10.32.5.2/24")
	near.reaches(t, netip.MustParsePrefix(want).Addr())
	do(t, n, "hide")
	do(t, n, "expose")
	labtest.Until(t, patience, has)
	far := attach(t, n, "far")
	far.reaches(t, far.gateway(t), n.Addr())
	near.reaches(t, netip.MustParsePrefix(want).Addr())
}

// TestLeaveHandsTheAddressesOver: after "weft leave", the other node owns all addresses, and nothing is left on the host.
func TestLeaveHandsTheAddressesOver(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p := attach(t, nodes[1], "p")
	do(t, nodes[1], "leave")
	if out := labtest.Run(t, p.Space, "ip", "-brief", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the pod kept its interface, with an address that now belongs to another node: %s", out)
	}
	if err := nodes[1].Process().Wait(); err != nil {
		t.Errorf("the daemon after leave: %v", err)
	}
	waitState(t, nodes[0], "b", api.PeerLeft)
	labtest.Until(t, patience, func() error {
		i := query[api.IPAM](t, nodes[0], "ipam")
		if n := len(i.Ranges[0].Owners); n != 1 {
			return fmt.Errorf("%d owners", n)
		}
		return nil
	})
	if got := links(t, nodes[1].Host); slices.Contains(got, "weave") {
		t.Errorf("the bridge still exists: %v", got)
	}
}

// TestLoneNodesConnectLater starts two nodes without peers and connects them later. They form one network.
func TestLoneNodesConnectLater(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	up(t, nodes[0])
	up(t, nodes[1])
	for _, n := range nodes {
		do(t, n, "wait") // ready, but the range is not divided yet
	}
	do(t, nodes[1], "connect", nodes[0].Addr().String())
	waitReady(t, nodes)
	attach(t, nodes[0], "p").reaches(t, attach(t, nodes[1], "p").addr)
}

// TestDeletedBridgeComesBack deletes the bridge of a running daemon. The daemon creates it again and attaches the pods.
func TestDeletedBridgeComesBack(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p, q, far := attach(t, nodes[0], "p"), attach(t, nodes[0], "q"), attach(t, nodes[1], "p")
	p.reaches(t, far.addr)
	labtest.Run(t, nodes[0].Space, "ip", "link", "del", "weave")
	p.reaches(t, far.addr)
	p.reaches(t, q.addr)
	p.reaches(t, nodes[1].Addr()) // through the bridge's address
	attach(t, nodes[0], "late").reaches(t, far.addr)
}

// TestPartitionHeals cuts the link between two nodes until each sees the other as dead, and restores it. Meanwhile both
// lease different addresses; at the end they are one network again.
func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	p, q := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
	p.reaches(t, q.addr)
	if err := nodes[0].Cut(testContext(t), nodes[1].Host); err != nil {
		t.Fatal(err)
	}
	waitState(t, nodes[0], "b", api.PeerDead)
	waitState(t, nodes[1], "a", api.PeerDead)
	here, there := attach(t, nodes[0], "q"), attach(t, nodes[1], "q")
	if here.addr == there.addr {
		t.Errorf("both sides of the partition leased %s", here.addr)
	}
	if err := nodes[0].Heal(testContext(t), nodes[1].Host); err != nil {
		t.Fatal(err)
	}
	waitReady(t, nodes)
	here.reaches(t, there.addr)
	p.reaches(t, q.addr)
}

// TestOneOwnerOneAttachment: attaching a second namespace for the same owner fails, because the two would share an address.
func TestOneOwnerOneAttachment(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	n := nodes[0]
	first := attach(t, n, "p", "--owner", "x")
	second := labtest.AddPod(t, n.Host, "q")
	if addrs, err := n.Attach(testContext(t), second, "--owner", "x", "--ifname", "eth1"); err == nil {
		t.Errorf("a second namespace got the addresses of the first: %v", addrs)
	}
	if _, err := n.Do(testContext(t), "detach", "--netns", second.Path(), "--owner", "x", "--ifname", "eth1"); err == nil {
		t.Error("the second namespace was detached with the owner of the first")
	}
	if out := do(t, n, "ip", "lookup", "x"); !strings.HasPrefix(out, first.addr.String()) {
		t.Errorf("the first attachment's lease is now %q", out)
	}
	do(t, n, "detach", "--netns", first.Path(), "--owner", "x")
	for _, args := range [][]string{
		{"ip", "release", "weft:expose"}, {"ip", "allocate", "weft:expose"}, {"attach", "--netns", second.Path(), "--owner", "weft:expose"},
	} {
		if _, err := n.Do(testContext(t), args...); err == nil {
			t.Errorf("weft %v changed a lease of the daemon", args)
		}
	}
}
