package vxlan_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
	"weft/tap/taptest"
)

func config() vxlan.Config {
	return vxlan.Config{
		Name: "weftvx", Bridge: "weave", Tap: "weft0", Port: port, VNI: vni, MTU: mtu,
		Local: netip.MustParseAddr("192.0.2.1"), Self: peer.ID{1},
	}
}

func links(t *testing.T) (names []string) {
	t.Helper()
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func TestOpen(t *testing.T) {
	taptest.InNamespace(t)
	for range 2 { // the second Open replaces the device of a crashed run
		d, err := vxlan.Open(t.Context(), config())
		if err != nil {
			t.Fatal(err)
		}
		link, err := netlink.LinkByName("weftvx")
		if err != nil {
			t.Fatal(err)
		}
		v := link.(*netlink.Vxlan)
		if v.VxlanId != vni || v.Port != port || !v.Learning || !v.UDPCSum || v.MTU != mtu || v.HardwareAddr.String() != d.MAC().String() ||
			v.Flags&net.FlagUp != 0 || v.Alias != "weft" || v.TOS != 0 {
			t.Errorf("%+v", v)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		if addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL); err != nil || len(addrs) != 0 {
			t.Errorf("addresses %v, %v", addrs, err)
		}
		if got := vxlan.KeptVNI("weftvx"); got != vni {
			t.Errorf("the VNI of the device is %d", got)
		}
		if err := vxlan.Check("weftvx", port); err != nil {
			t.Errorf("Check beside a device of ours: %v", err)
		}
		if s, err := d.Sample(); err != nil || s.Ready {
			t.Errorf("Sample of a device that is no port: %+v, %v", s, err)
		}
		if err := d.Send(carrier.Probe{To: peer.ID{7}}); !errors.Is(err, carrier.ErrUnknownPeer) {
			t.Errorf("Send to an unknown peer: %v", err)
		}
	}
	for _, name := range []string{"weftvx0", "lo"} {
		if got := vxlan.KeptVNI(name); got != 0 {
			t.Errorf("the VNI of %s is %d", name, got)
		}
	}
	for _, want := range []bool{true, false} {
		if removed, err := vxlan.Remove(t.Context(), "weftvx"); err != nil || removed != want {
			t.Errorf("Remove: %v, %v", removed, err)
		}
	}
	if diff := cmp.Diff([]string{"lo"}, links(t)); diff != "" {
		t.Error(diff)
	}
}

// TestRemoveUnfiltered: what a stopped daemon leaves goes on if it has its filter, and is removed without.
func TestRemoveUnfiltered(t *testing.T) {
	taptest.InNamespace(t)
	d, err := vxlan.Open(t.Context(), config())
	if err != nil {
		t.Fatal(err)
	}
	d.Keep()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true, false} {
		if removed, err := vxlan.RemoveUnfiltered(t.Context(), "weftvx"); err != nil || removed != want {
			t.Errorf("removed: %v, %v; want %v", removed, err, want)
		}
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if diff := cmp.Diff([]string{"lo"}, links(t)); diff != "" {
		t.Error(diff)
	}
}

func TestInTheWay(t *testing.T) {
	foreign := func(name string, vni, port int) func(t *testing.T) {
		return func(t *testing.T) {
			t.Helper()
			if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, VxlanId: vni, Port: port}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T)
		want error
		say  []string
	}{
		"same port and VNI":    {foreign("other", vni, port), vxlan.ErrNotOurs, []string{"other", "6785", "--port", "ip -d link"}},
		"same port":            {foreign("other", 1, port), vxlan.ErrNotOurs, []string{"other"}},
		"other port, same VNI": {foreign("other", vni, 4789), nil, nil},
		"our name":             {foreign("weftvx", 1, 4789), vxlan.ErrNotOurs, []string{"weftvx", "ip link del"}},
		"our name, another kind": {func(t *testing.T) {
			t.Helper()
			mustAdd(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "weftvx"}})
		}, vxlan.ErrNotOurs, []string{"bridge"}},
		"a program holds the port": {func(t *testing.T) {
			t.Helper()
			c, err := net.ListenPacket("udp4", fmt.Sprintf("0.0.0.0:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, vxlan.ErrPortInUse, []string{"6785", "ss -lnup"}},
	} {
		t.Run(name, func(t *testing.T) {
			taptest.InNamespace(t)
			c.make(t)
			before := links(t)
			err := vxlan.Check("weftvx", port)
			if !errors.Is(err, c.want) {
				t.Fatalf("Check: %v, want %v", err, c.want)
			}
			d, err := vxlan.Open(t.Context(), config())
			if !errors.Is(err, c.want) {
				t.Fatalf("Open: %v, want %v", err, c.want)
			}
			if err == nil {
				err = d.Close()
			} else if errors.Is(err, vxlan.ErrNotOurs) && strings.HasPrefix(name, "our name") {
				if _, err := vxlan.Remove(t.Context(), "weftvx"); !errors.Is(err, vxlan.ErrNotOurs) {
					t.Errorf("Remove: %v", err)
				}
			}
			for _, word := range c.say {
				if !strings.Contains(fmt.Sprint(err), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
			if diff := cmp.Diff(before, links(t)); diff != "" {
				t.Errorf("links (-before +after):\n%s", diff)
			}
		})
	}
}

func mustAdd(t *testing.T, link netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
}

func TestNoNFT(t *testing.T) {
	taptest.InNamespace(t)
	t.Setenv("PATH", t.TempDir())
	if _, err := vxlan.Open(t.Context(), config()); !errors.Is(err, vxlan.ErrNoFilter) {
		t.Errorf("Open: %v", err)
	}
	if diff := cmp.Diff([]string{"lo"}, links(t)); diff != "" {
		t.Error(diff)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*vxlan.Config){
		"Name":         func(c *vxlan.Config) { c.Name = "weft vx" },
		"Bridge":       func(c *vxlan.Config) { c.Bridge = "we*" },
		"Tap":          func(c *vxlan.Config) { c.Tap = c.Name },
		"Port":         func(c *vxlan.Config) { c.Port = 0 },
		"VNI 0":        func(c *vxlan.Config) { c.VNI = 0 },
		"VNI 16777216": func(c *vxlan.Config) { c.VNI = 1 << 24 },
		"MTU":          func(c *vxlan.Config) { c.MTU = 10 },
		"Local":        func(c *vxlan.Config) { c.Local = netip.MustParseAddr("fe80::1") },
		"Self":         func(c *vxlan.Config) { c.Self = peer.ID{} },
	} {
		c := config()
		change(&c)
		if _, err := vxlan.Open(t.Context(), c); !errors.Is(err, carrier.ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := config()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// TestCopyDSCP: the device inherits the DSCP of frames, over both families; the next Open without CopyDSCP replaces it.
func TestCopyDSCP(t *testing.T) {
	taptest.InNamespace(t)
	for _, local := range []string{"192.0.2.1", "2001:db8::1"} {
		for want, dscp := range []bool{false, true, false} {
			c := config()
			c.Local, c.CopyDSCP = netip.MustParseAddr(local), dscp
			d, err := vxlan.Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			link, err := netlink.LinkByName(c.Name)
			if err != nil {
				t.Fatal(err)
			}
			if got := link.(*netlink.Vxlan).TOS; got != want%2 {
				t.Errorf("from %s, copy %v: TOS %d", local, dscp, got)
			}
			if dscp {
				d.Keep()
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAdmissible: peers that the device cannot distinguish or cannot reach are left out.
func TestAdmissible(t *testing.T) {
	taptest.InNamespace(t)
	d, err := vxlan.Open(t.Context(), config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	addr := netip.MustParseAddr
	got, err := d.SetPeers(t.Context(), []carrier.Peer{
		{ID: peer.ID{2}, Addr: addr("::ffff:192.0.2.2")},
		{ID: peer.ID{1}, Addr: addr("192.0.2.9")},                // this node
		{ID: peer.ID{3}, Addr: addr("192.0.2.1")},                // this node's address
		{ID: peer.ID{4}, Addr: addr("192.0.2.2")},                // the first one's address
		{ID: peer.ID{2, 0, 0, 0, 0, 1}, Addr: addr("192.0.2.4")}, // the first one's MAC
		{ID: peer.ID{5}, Addr: addr("2001:db8::5")},              // of the other family
		{ID: peer.ID{6}}, {Addr: addr("192.0.2.6")}, {ID: peer.ID{7}, Addr: addr("192.0.2.7")},
	})
	want := []carrier.Peer{{ID: peer.ID{2}, Addr: addr("192.0.2.2")}, {ID: peer.ID{7}, Addr: addr("192.0.2.7")}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	// Entries that another program removes are restored.
	link, err := netlink.LinkByName("weftvx")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Carry(peer.ID{7}, true, nil); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		entries, err := netlink.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := netlink.NeighDel(&e); err != nil {
				t.Fatal(err)
			}
		}
		return len(entries)
	}
	for range 2 { // two for probes, one for floods
		if n := count(); n != 3 {
			t.Errorf("%d entries", n)
		}
		if err := d.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Carry(peer.ID{5}, true, nil); !errors.Is(err, carrier.ErrUnknownPeer) {
		t.Errorf("Carry: %v", err)
	}
}
