package linktest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/ether"
	"weft/internal/podlink"
)

// Fixture is a host for tests of a Linker.
type Fixture struct {
	Linker podlink.Linker
	// Bridge is the name of a bridge on the host.
	Bridge string
	// NewNetns creates an empty namespace and returns its path. RemoveNetns removes it.
	NewNetns    func() string
	RemoveNetns func(path string)
	// AddOther adds an interface that the Linker did not create to a namespace.
	AddOther func(path, ifname string)
	// Run starts a process in a namespace, which runs until the test ends.
	Run func(path string)
	// HostLinks returns the names of the host ends that start with podlink.HostPrefix, sorted.
	HostLinks func() []string
}

// TestLinker runs the suite. open returns a new host for each test.
func TestLinker(t *testing.T, open func(t *testing.T) Fixture) {
	for name, test := range map[string]func(*testing.T, Fixture){
		"Attach":          testAttach,
		"Bare":            testBare,
		"Adopt":           testAdopt,
		"Second":          testSecond,
		"Multicast":       testMulticast,
		"Exists":          testExists,
		"Refused":         testRefused,
		"DetachGone":      testDetachGone,
		"DetachByPod":     testDetachByPod,
		"DetachOther":     testDetachOther,
		"CheckDiffers":    testCheckDiffers,
		"AddressesAbsent": testAddressesAbsent,
		"Pairs":           testPairs,
		"Canceled":        testCanceled,
		"Concurrent":      testConcurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// spec returns a full, dual-stack Spec for a pod in the namespace.
func spec(f Fixture, netns string) podlink.Spec {
	return podlink.Spec{
		Netns: netns, Ifname: "eth0", HostName: podlink.HostLinkName(netns, "eth0"), Bridge: f.Bridge, MTU: 1400,
		Addresses: []podlink.Address{
			{Prefix: netip.MustParsePrefix("10.32.0.2/12"), Gateway: netip.MustParseAddr("10.32.0.1")},
			{Prefix: netip.MustParsePrefix("fd32::2/64"), Gateway: netip.MustParseAddr("fd32::1")},
		},
		Hairpin: true, DefaultRoute: true,
		Routes: []podlink.Route{
			{Dst: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("10.32.0.9")},
			{Dst: netip.MustParsePrefix("198.51.100.0/24")},
		},
	}
}

func attach(t *testing.T, f Fixture, s podlink.Spec) podlink.Result {
	t.Helper()
	res, err := f.Linker.Attach(t.Context(), s)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return res
}

func detach(t *testing.T, f Fixture, netns, ifname, hostName string) {
	t.Helper()
	if err := f.Linker.Detach(t.Context(), netns, ifname, hostName); err != nil {
		t.Errorf("Detach(%q, %q, %q): %v", netns, ifname, hostName, err)
	}
}

func wantHostLinks(t *testing.T, f Fixture, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, f.HostLinks(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("host ends (-want +got):\n%s", diff)
	}
}

func testAttach(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	res := attach(t, f, s)
	mac := ether.FromIP(s.Addresses[0].Prefix.Addr())
	want := podlink.Result{
		HostName: s.HostName, HostMAC: podlink.HostLinkMAC(s.HostName), MAC: mac, MTU: 1400,
		Addresses: []netip.Prefix{s.Addresses[0].Prefix, s.Addresses[1].Prefix},
		Routes: append([]podlink.Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: s.Addresses[0].Gateway},
			{Dst: netip.MustParsePrefix("::/0"), Gateway: s.Addresses[1].Gateway},
		}, s.Routes...),
	}
	if diff := cmp.Diff(want, res, cmp.Comparer(samePrefix), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if err := f.Linker.Check(s); err != nil {
		t.Errorf("Check: %v", err)
	}
	addrs, gotMAC, err := f.Linker.Addresses(s.Netns, s.Ifname)
	if err != nil || gotMAC != mac || !slices.Equal(addrs, want.Addresses) {
		t.Errorf("Addresses = %v, %v, %v", addrs, gotMAC, err)
	}
	wantHostLinks(t, f, s.HostName)
	detach(t, f, s.Netns, s.Ifname, s.HostName)
	wantHostLinks(t, f)
	if _, _, err := f.Linker.Addresses(s.Netns, s.Ifname); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("Addresses after Detach: %v, want ErrNoLink", err)
	}
	detach(t, f, s.Netns, s.Ifname, s.HostName)
	attach(t, f, s)
}

// testBare: a Spec without gateway, routes, MTU and second family, but with a MAC.
func testBare(t *testing.T, f Fixture) {
	mac := ether.Addr{0x02, 0, 0, 0, 0, 7}
	s := podlink.Spec{
		Netns: f.NewNetns(), Ifname: "net1", HostName: podlink.HostLinkName("bare", "net1"), Bridge: f.Bridge, MAC: mac,
		Addresses: []podlink.Address{{Prefix: netip.MustParsePrefix("10.32.0.2/12")}}, DefaultRoute: true,
	}
	res := attach(t, f, s)
	if res.MAC != mac || res.MTU == 0 || len(res.Routes) != 0 {
		t.Errorf("result %+v, want MAC %s, an MTU and no route", res, mac)
	}
	if err := f.Linker.Check(s); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// testAdopt: a pair that exists takes over another MTU, MAC, address and gateway, and a pair that is not the one of s is left alone.
func testAdopt(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	if err := f.Linker.Adopt(t.Context(), s, nil); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("Adopt without a pair: %v, want ErrNoLink", err)
	}
	attach(t, f, s)
	if err := f.Linker.Adopt(t.Context(), s, nil); err != nil {
		t.Errorf("Adopt of the same: %v", err)
	}
	next := spec(f, s.Netns)
	next.MTU = 1300
	next.Addresses[0] = podlink.Address{Prefix: netip.MustParsePrefix("10.32.0.77/12"), Gateway: netip.MustParseAddr("10.32.0.66")}
	if err := f.Linker.Check(next); err == nil {
		t.Error("Check accepts what is not so yet")
	}
	if err := f.Linker.Adopt(t.Context(), next, []netip.Addr{s.Addresses[0].Prefix.Addr()}); err != nil {
		t.Fatalf("Adopt: %v", err)
	}
	next.MAC = ether.FromIP(next.Addresses[0].Prefix.Addr())
	if err := f.Linker.Check(next); err != nil {
		t.Errorf("Check after Adopt: %v", err)
	}
	addrs, _, err := f.Linker.Addresses(s.Netns, s.Ifname)
	want := []netip.Prefix{next.Addresses[0].Prefix, next.Addresses[1].Prefix}
	if err != nil || !slices.Equal(addrs, want) {
		t.Errorf("addresses %v, %v, want %v", addrs, err, want)
	}
	f.AddOther(s.Netns, "eth9")
	other := next
	other.Ifname = "eth9"
	if err := f.Linker.Adopt(t.Context(), other, nil); !errors.Is(err, podlink.ErrExists) {
		t.Errorf("Adopt of an interface that is not the other end: %v, want ErrExists", err)
	}
}

func testSecond(t *testing.T, f Fixture) {
	first := spec(f, f.NewNetns())
	attach(t, f, first)
	second := podlink.Spec{
		Netns: first.Netns, Ifname: "net1", HostName: podlink.HostLinkName(first.Netns, "net1"), Bridge: f.Bridge,
		Addresses: []podlink.Address{{Prefix: netip.MustParsePrefix("10.32.0.3/12")}},
	}
	attach(t, f, second)
	detach(t, f, first.Netns, first.Ifname, first.HostName)
	wantHostLinks(t, f, second.HostName)
	if err := f.Linker.Check(second); err != nil {
		t.Errorf("Check of the other interface: %v", err)
	}
}

// testMulticast: the route for multicast is added where another interface has the default route, by Adopt as by Attach, and nowhere else.
func testMulticast(t *testing.T, f Fixture) {
	first := spec(f, f.NewNetns())
	first.MulticastRoute = true
	if res := attach(t, f, first); slices.ContainsFunc(res.Routes, isMulticast) {
		t.Errorf("the interface with the default route got the routes %v", res.Routes)
	}
	second := podlink.Spec{
		Netns: first.Netns, Ifname: "net1", HostName: podlink.HostLinkName(first.Netns, "net1"), Bridge: f.Bridge, DefaultRoute: true,
		Addresses: []podlink.Address{{Prefix: netip.MustParsePrefix("10.33.0.3/16"), Gateway: netip.MustParseAddr("10.33.0.1")}},
	}
	if res := attach(t, f, second); len(res.Routes) > 0 {
		t.Errorf("the second interface got the routes %v", res.Routes)
	}
	second.MulticastRoute = true
	if err := f.Linker.Check(second); err == nil || !strings.Contains(err.Error(), "224.0.0.0/4") {
		t.Errorf("Check without the route: %v", err)
	}
	for range 2 {
		if err := f.Linker.Adopt(t.Context(), second, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Linker.Check(second); err != nil {
			t.Errorf("Check after Adopt: %v", err)
		}
	}
	detach(t, f, second.Netns, second.Ifname, second.HostName)
	if res := attach(t, f, second); len(res.Routes) != 1 || !isMulticast(res.Routes[0]) {
		t.Errorf("the second interface got the routes %v", res.Routes)
	}
}

func isMulticast(r podlink.Route) bool {
	return r.Dst == netip.MustParsePrefix("224.0.0.0/4") && !r.Gateway.IsValid()
}

func testExists(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	f.AddOther(s.Netns, s.Ifname)
	_, err := f.Linker.Attach(t.Context(), s)
	if !errors.Is(err, podlink.ErrExists) || !strings.Contains(err.Error(), s.Ifname) {
		t.Errorf("Attach over another interface: %v, want ErrExists that names it", err)
	}
	wantHostLinks(t, f)

	s = spec(f, f.NewNetns())
	attach(t, f, s)
	if _, err := f.Linker.Attach(t.Context(), s); !errors.Is(err, podlink.ErrExists) {
		t.Errorf("Attach twice: %v, want ErrExists", err)
	}
	other := s
	other.Netns = f.NewNetns()
	_, err = f.Linker.Attach(t.Context(), other)
	if !errors.Is(err, podlink.ErrExists) || !strings.Contains(err.Error(), s.HostName) {
		t.Errorf("Attach with a host end in use: %v, want ErrExists that names it", err)
	}
	if err := f.Linker.Check(s); err != nil {
		t.Errorf("Check of the first: %v", err)
	}
}

func testRefused(t *testing.T, f Fixture) {
	for name, c := range map[string]struct {
		change func(*podlink.Spec)
		want   error
	}{
		"no namespace":      {func(s *podlink.Spec) { s.Netns += "-gone" }, podlink.ErrNetns},
		"empty namespace":   {func(s *podlink.Spec) { s.Netns = "" }, podlink.ErrNetns},
		"no bridge":         {func(s *podlink.Spec) { s.Bridge = "nobridge" }, podlink.ErrNoBridge},
		"no name":           {func(s *podlink.Spec) { s.Ifname = "" }, podlink.ErrBadName},
		"long name":         {func(s *podlink.Spec) { s.Ifname = "sixteen-symbols-" }, podlink.ErrBadName},
		"slash":             {func(s *podlink.Spec) { s.Ifname = "a/b" }, podlink.ErrBadName},
		"dots":              {func(s *podlink.Spec) { s.Ifname = ".." }, podlink.ErrBadName},
		"long host name":    {func(s *podlink.Spec) { s.HostName = "sixteen-symbols-" }, podlink.ErrBadName},
		"small MTU":         {func(s *podlink.Spec) { s.MTU = 67 }, podlink.ErrBadSpec},
		"group MAC":         {func(s *podlink.Spec) { s.MAC = ether.Broadcast }, podlink.ErrBadSpec},
		"no address":        {func(s *podlink.Spec) { s.Addresses = []podlink.Address{{}} }, podlink.ErrBadSpec},
		"address twice":     {func(s *podlink.Spec) { s.Addresses = append(s.Addresses, s.Addresses[0]) }, podlink.ErrBadSpec},
		"gateway's family":  {func(s *podlink.Spec) { s.Addresses[0].Gateway = s.Addresses[1].Gateway }, podlink.ErrBadSpec},
		"route's family":    {func(s *podlink.Spec) { s.Routes[0].Gateway = s.Addresses[1].Gateway }, podlink.ErrBadSpec},
		"multicast address": {func(s *podlink.Spec) { s.Addresses[0].Prefix = netip.MustParsePrefix("224.0.0.1/4") }, podlink.ErrBadSpec},
	} {
		s := spec(f, f.NewNetns())
		c.change(&s)
		if _, err := f.Linker.Attach(t.Context(), s); !errors.Is(err, c.want) {
			t.Errorf("%s: Attach = %v, want %v", name, err, c.want)
		}
		wantHostLinks(t, f)
	}
}

func testDetachGone(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	attach(t, f, s)
	f.RemoveNetns(s.Netns)
	detach(t, f, s.Netns, s.Ifname, s.HostName)
	wantHostLinks(t, f)
	detach(t, f, s.Netns, s.Ifname, s.HostName)
	detach(t, f, s.Netns, s.Ifname, "")
	detach(t, f, "", "", s.HostName)
	detach(t, f, "", "eth0", "")
	if err := f.Linker.Check(s); !errors.Is(err, podlink.ErrNetns) {
		t.Errorf("Check = %v, want ErrNetns", err)
	}
}

func testDetachByPod(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	attach(t, f, s)
	detach(t, f, s.Netns, "net1", "") // does not exist
	wantHostLinks(t, f, s.HostName)
	detach(t, f, s.Netns, s.Ifname, "")
	wantHostLinks(t, f)
}

func testDetachOther(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	f.AddOther(s.Netns, s.Ifname)
	detach(t, f, s.Netns, s.Ifname, s.HostName)
	detach(t, f, s.Netns, s.Ifname, "")
	if _, _, err := f.Linker.Addresses(s.Netns, s.Ifname); err != nil {
		t.Errorf("the other interface was removed: %v", err)
	}
}

func testCheckDiffers(t *testing.T, f Fixture) {
	s := spec(f, f.NewNetns())
	if err := f.Linker.Check(s); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("Check before Attach = %v, want ErrNoLink", err)
	}
	attach(t, f, s)
	loose := s
	loose.MTU, loose.MAC = 0, ether.Addr{}
	if err := f.Linker.Check(loose); err != nil {
		t.Errorf("Check for any MTU and MAC: %v", err)
	}
	for name, change := range map[string]func(*podlink.Spec){
		"MTU":      func(s *podlink.Spec) { s.MTU = 1399 },
		"MAC":      func(s *podlink.Spec) { s.MAC = ether.Addr{0x02, 1} },
		"bridge":   func(s *podlink.Spec) { s.Bridge = "nobridge" },
		"host end": func(s *podlink.Spec) { s.HostName = podlink.HostLinkName("other", "eth0") },
		"address":  func(s *podlink.Spec) { s.Addresses[0].Prefix = netip.MustParsePrefix("10.32.0.3/12") },
		"length":   func(s *podlink.Spec) { s.Addresses[0].Prefix = netip.MustParsePrefix("10.32.0.2/13") },
		"route":    func(s *podlink.Spec) { s.Routes[0].Dst = netip.MustParsePrefix("192.0.2.0/25") },
		"gateway":  func(s *podlink.Spec) { s.Routes[0].Gateway = netip.MustParseAddr("10.32.0.8") },
	} {
		other := spec(f, s.Netns)
		change(&other)
		if err := f.Linker.Check(other); err == nil {
			t.Errorf("Check accepts another %s", name)
		}
	}
}

func testAddressesAbsent(t *testing.T, f Fixture) {
	if _, _, err := f.Linker.Addresses("/nowhere", "eth0"); !errors.Is(err, podlink.ErrNetns) {
		t.Errorf("Addresses in no namespace: %v, want ErrNetns", err)
	}
	if _, _, err := f.Linker.Addresses(f.NewNetns(), "eth0"); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("Addresses of no interface: %v, want ErrNoLink", err)
	}
}

func testCanceled(t *testing.T, f Fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := spec(f, f.NewNetns())
	if _, err := f.Linker.Attach(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("Attach = %v, want context.Canceled", err)
	}
	wantHostLinks(t, f)
}

// testConcurrent: several pods are attached and detached at once, as at the start of a host.
func testConcurrent(t *testing.T, f Fixture) {
	var specs []podlink.Spec
	for range 8 {
		specs = append(specs, spec(f, f.NewNetns()))
	}
	var wg sync.WaitGroup
	for _, s := range specs {
		wg.Go(func() {
			if _, err := f.Linker.Attach(t.Context(), s); err != nil {
				t.Errorf("Attach: %v", err)
			}
			if err := f.Linker.Check(s); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
	wg.Wait()
	if got := f.HostLinks(); len(got) != len(specs) {
		t.Errorf("%d host ends, want %d", len(got), len(specs))
	}
	for _, s := range specs {
		wg.Go(func() { detach(t, f, s.Netns, s.Ifname, s.HostName) })
	}
	wg.Wait()
	wantHostLinks(t, f)
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func sameAddr(a, b netip.Addr) bool { return a == b }

// testPairs: pairs are listed with what was recorded about them, and whether a process is in the namespace.
func testPairs(t *testing.T, f Fixture) {
	quiet, busy := spec(f, f.NewNetns()), spec(f, f.NewNetns())
	quiet.Origin = podlink.Origin{Pending: true, Runtime: "/usr/bin/podman"}
	for _, s := range []podlink.Spec{quiet, busy} {
		if _, err := f.Linker.Attach(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	f.Run(busy.Netns)
	for _, pending := range []bool{true, false} {
		quiet.Origin.Pending = pending
		pairs, err := f.Linker.Pairs()
		if err != nil {
			t.Fatal(err)
		}
		want := []podlink.Pair{{HostName: quiet.HostName, Origin: quiet.Origin}, {HostName: busy.HostName, Running: true}}
		byName := cmpopts.SortSlices(func(a, b podlink.Pair) bool { return a.HostName < b.HostName })
		if diff := cmp.Diff(want, pairs, byName); diff != "" {
			t.Errorf("pairs (-want +got):\n%s", diff)
		}
		if err := f.Linker.Confirm(quiet.HostName); err != nil {
			t.Error(err)
		}
	}
	if err := f.Linker.Confirm("vweftnone"); !errors.Is(err, podlink.ErrNoLink) {
		t.Errorf("Confirm of no pair: %v, want ErrNoLink", err)
	}
}
