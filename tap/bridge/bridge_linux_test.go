package bridge_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"weft/internal/ether"
	"weft/tap/bridge"
	"weft/tap/taptest"
)

// add makes a link and returns it as the kernel reports it.
func add(t *testing.T, link netlink.Link) netlink.Link {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("add %s: %v", link.Attrs().Name, err)
	}
	return byName(t, link.Attrs().Name)
}

func byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return link
}

func veth(name string) *netlink.Veth {
	return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
}

func ensure(t *testing.T, cfg bridge.Config) *bridge.Bridge {
	t.Helper()
	b, err := bridge.Ensure(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func inspect(t *testing.T, name string) bridge.Info {
	t.Helper()
	info, err := bridge.Inspect(name)
	if err != nil {
		t.Fatal(err)
	}
	info.Index = 0
	return info
}

func TestCreate(t *testing.T) {
	taptest.InNamespace(t)
	if info := inspect(t, "weave"); info.State != bridge.Absent {
		t.Fatalf("before: %+v", info)
	}
	mac := ether.Addr{0x0a, 1, 2, 3, 4, 5}
	b := ensure(t, bridge.Config{Name: "weave", MTU: 1422, MAC: mac})
	want := bridge.Info{State: bridge.Found, Kind: "bridge", MTU: 1422, MAC: mac, Ours: true}
	if diff := cmp.Diff(want, inspect(t, "weave")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	link := byName(t, "weave").(*netlink.Bridge)
	if link.RawFlags&1 == 0 || link.MulticastSnooping == nil || *link.MulticastSnooping {
		t.Errorf("flags %x, snooping %v; want up and off", link.RawFlags, link.MulticastSnooping)
	}
	// Ports with lower addresses and another MTU are added: the bridge keeps its own.
	low := veth("wd-low")
	low.HardwareAddr = []byte{2, 0, 0, 0, 0, 1}
	low.MTU = 1300
	add(t, low)
	if err := b.AddPort("wd-low"); err != nil {
		t.Fatal(err)
	}
	if got, err := b.MAC(); err != nil || got != mac {
		t.Errorf("MAC = %s, %v; want %s", got, err, mac)
	}
	if info := inspect(t, "weave"); info.MTU != 1422 || !cmp.Equal(info.Ports, []string{"wd-low"}) {
		t.Errorf("with a port: %+v", info)
	}
	if err := b.SetMTU(1400); err != nil || inspect(t, "weave").MTU != 1400 {
		t.Errorf("SetMTU: %v, %+v", err, inspect(t, "weave"))
	}
}

// TestAgain: a second Ensure, after a restart, finds the bridge, and Remove deletes it.
func TestAgain(t *testing.T) {
	taptest.InNamespace(t)
	first := ensure(t, bridge.Config{Name: "weave", MTU: 1422})
	mac, err := first.MAC()
	if err != nil || mac.IsZero() || mac.IsMulticast() || mac[0]&2 == 0 {
		t.Fatalf("random MAC %s, %v", mac, err)
	}
	again := ensure(t, bridge.Config{Name: "weave", MTU: 1438, MAC: ether.Addr{2}})
	if now, err := again.MAC(); err != nil || now != mac {
		t.Errorf("MAC %s, %v; want that of the first time, %s", now, err, mac)
	}
	if info := inspect(t, "weave"); info.MTU != 1438 || !info.Ours {
		t.Errorf("%+v", info)
	}
	for range 2 {
		if err := bridge.Remove("weave"); err != nil {
			t.Fatal(err)
		}
	}
	if info := inspect(t, "weave"); info.State != bridge.Absent {
		t.Errorf("after Remove: %+v", info)
	}
}

// TestNotOurs: a bridge that weft did not make is used, and otherwise not changed.
func TestNotOurs(t *testing.T) {
	taptest.InNamespace(t)
	foreign := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	port := add(t, veth("wd-other"))
	if err := netlink.LinkSetMaster(port, foreign); err != nil {
		t.Fatal(err)
	}
	b := ensure(t, bridge.Config{Name: "br0", MTU: 1422})
	add(t, veth("wd-tap"))
	for range 2 { // the second time it is there already
		if err := b.AddPort("wd-tap"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"wd-tap": true, "wd-other": false} {
		state, err := netlink.LinkGetProtinfo(byName(t, name))
		if err != nil || state.Isolated != want {
			t.Errorf("%s isolated %v, %v; want %v", name, state.Isolated, err, want)
		}
	}
	if link := byName(t, "br0").(*netlink.Bridge); !*link.MulticastSnooping {
		t.Error("snooping of a foreign bridge was turned off")
	}
	if byName(t, "wd-other").Attrs().RawFlags&1 != 0 {
		t.Error("a foreign port was brought up")
	}
	if err := bridge.Remove("br0"); !errors.Is(err, bridge.ErrNotOurs) {
		t.Errorf("Remove: %v, want ErrNotOurs", err)
	}
}

func TestRefused(t *testing.T) {
	taptest.InNamespace(t)
	add(t, veth("weave"))
	_, err := bridge.Ensure(bridge.Config{Name: "weave", MTU: 1422})
	if !errors.Is(err, bridge.ErrNotBridge) || !strings.Contains(err.Error(), "weave") || !strings.Contains(err.Error(), "veth") {
		t.Errorf("Ensure: %v", err)
	}
	if err := bridge.Remove("weave"); !errors.Is(err, bridge.ErrNotBridge) {
		t.Errorf("Remove: %v", err)
	}
	if info := inspect(t, "weave"); info.State != bridge.Other || info.Kind != "veth" {
		t.Errorf("Inspect: %+v", info)
	}
	b := ensure(t, bridge.Config{Name: "wd-br", MTU: 1422})
	other := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	if err := netlink.LinkSetMaster(byName(t, "weave"), other); err != nil {
		t.Fatal(err)
	}
	if err := b.AddPort("weave"); !errors.Is(err, bridge.ErrPortTaken) || !strings.Contains(err.Error(), "br0") {
		t.Errorf("AddPort of another's port: %v", err)
	}
	if err := b.AddPort("wd-none"); err == nil || !strings.Contains(err.Error(), "wd-none") {
		t.Errorf("AddPort of nothing: %v", err)
	}
}

// TestNothingLeftBehind: a bridge that cannot be set up is removed.
func TestNothingLeftBehind(t *testing.T) {
	taptest.InNamespace(t)
	if b, err := bridge.Ensure(bridge.Config{Name: "weave", MTU: 1 << 20}); err == nil {
		b.Close()
		t.Fatal("an MTU of 1 MiB was taken")
	}
	if info := inspect(t, "weave"); info.State != bridge.Absent {
		t.Errorf("%+v is left behind", info)
	}
}

// TestRename: a bridge of weft that was renamed gets its name back, by its MAC, unless another link has the name.
func TestRename(t *testing.T) {
	taptest.InNamespace(t)
	mac := ether.Addr{0x0a, 1, 2, 3, 4, 5}
	ensure(t, bridge.Config{Name: "weave", MTU: 1422, MAC: mac})
	rename := func(from, to string) {
		t.Helper()
		if err := netlink.LinkSetName(byName(t, from), to); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		mac  ether.Addr
		want bridge.State
	}{{ether.Addr{0x0a, 9}, bridge.Absent}, {mac, bridge.Found}} {
		if step.want == bridge.Absent {
			if err := netlink.LinkSetDown(byName(t, "weave")); err != nil {
				t.Fatal(err)
			}
			rename("weave", "br9")
		}
		if err := bridge.Rename("weave", step.mac); err != nil {
			t.Fatal(err)
		}
		if got := inspect(t, "weave"); got.State != step.want {
			t.Errorf("MAC %s: %+v", step.mac, got)
		}
	}
	rename("weave", "br9")
	add(t, veth("weave"))
	if err := bridge.Rename("weave", mac); err != nil {
		t.Fatal(err)
	}
	if got := inspect(t, "weave"); got.State != bridge.Other {
		t.Errorf("beside another link: %+v", got)
	}
}
