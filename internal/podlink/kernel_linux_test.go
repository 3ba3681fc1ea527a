package podlink_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
	"weft/internal/podlink/linktest"
)

// inside is the kernel's Linker, called in the namespace of a test host.
type inside struct{ host *nettest.Host }

func (i inside) Attach(ctx context.Context, s podlink.Spec) (res podlink.Result, err error) {
	err = i.host.Do(func() (err error) { res, err = podlink.New().Attach(ctx, s); return err })
	return res, err
}

func (i inside) Adopt(ctx context.Context, s podlink.Spec, drop []netip.Addr) error {
	return i.host.Do(func() error { return podlink.New().Adopt(ctx, s, drop) })
}

func (i inside) Detach(ctx context.Context, netns, ifname, hostName string) error {
	return i.host.Do(func() error { return podlink.New().Detach(ctx, netns, ifname, hostName) })
}

func (i inside) Check(s podlink.Spec) error {
	return i.host.Do(func() error { return podlink.New().Check(s) })
}

func (i inside) Addresses(netns, ifname string) (p []netip.Prefix, mac ether.Addr, err error) {
	err = i.host.Do(func() (err error) { p, mac, err = podlink.New().Addresses(netns, ifname); return err })
	return p, mac, err
}

func (i inside) Confirm(hostName string) error {
	return i.host.Do(func() error { return podlink.New().Confirm(hostName) })
}

func (i inside) Pairs() (p []podlink.Pair, err error) {
	err = i.host.Do(func() (err error) { p, err = podlink.New().Pairs(); return err })
	return p, err
}

// newHost returns a host with a bridge that is up.
func newHost(t *testing.T) *nettest.Host {
	t.Helper()
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "a")
	labtest.Run(t, h.Space, "ip", "link", "add", "weave", "type", "bridge")
	labtest.Run(t, h.Space, "ip", "addr", "add", "10.32.0.1/12", "dev", "weave")
	labtest.Run(t, h.Space, "ip", "addr", "add", "fd32::1/64", "dev", "weave", "nodad")
	labtest.Run(t, h.Space, "ip", "link", "set", "weave", "up")
	return h
}

func hostLinks(t *testing.T, h *nettest.Host) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(labtest.Run(t, h.Space, "ip", "-br", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		if strings.HasPrefix(name, podlink.HostPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestKernel(t *testing.T) {
	linktest.TestLinker(t, func(t *testing.T) linktest.Fixture {
		h := newHost(t)
		spaces := map[string]*nettest.Pod{}
		return linktest.Fixture{
			Linker: inside{h}, Bridge: "weave",
			NewNetns: func() string {
				p := labtest.AddPod(t, h, fmt.Sprintf("pod%d", len(spaces)))
				spaces[p.Path()] = p
				return p.Path()
			},
			RemoveNetns: func(path string) {
				if out, err := h.Run(t.Context(), "ip", "netns", "del", filepath.Base(path)); err != nil {
					t.Fatal(out, err)
				}
			},
			AddOther: func(path, ifname string) {
				// A pair as Attach creates it, but for the name of its host end.
				labtest.Run(t, h.Space, "ip", "link", "add", "other0", "master", "weave", "type", "veth", "peer", "name", "other1")
				labtest.Run(t, h.Space, "ip", "link", "set", "other1", "netns", filepath.Base(path), "name", ifname)
			},
			Run:       func(path string) { labtest.Occupy(t, spaces[path].Space) },
			HostLinks: func() []string { return hostLinks(t, h) },
		}
	})
}

// podSpec returns a dual-stack Spec with gateways.
func podSpec(p *nettest.Pod, n int) podlink.Spec {
	return podlink.Spec{
		Netns: p.Path(), Ifname: "eth0", HostName: podlink.HostLinkName(p.Name(), "eth0"), Bridge: "weave", MTU: 1400, DefaultRoute: true,
		Addresses: []podlink.Address{
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.32.0.%d/12", n)), Gateway: netip.MustParseAddr("10.32.0.1")},
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd32::%d/64", n)), Gateway: netip.MustParseAddr("fd32::1")},
		},
	}
}

func mustAttach(t *testing.T, h *nettest.Host, s podlink.Spec) {
	t.Helper()
	if _, err := (inside{h}).Attach(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// TestPing: a pod reaches the bridge and another pod at the first attempt. Nothing waits for duplicate address detection, and no
// frame is dropped because the port is not open yet.
func TestPing(t *testing.T) {
	h := newHost(t)
	a, b := labtest.AddPod(t, h, "a"), labtest.AddPod(t, h, "b")
	mustAttach(t, h, podSpec(a, 2))
	mustAttach(t, h, podSpec(b, 3))
	for _, to := range []string{"10.32.0.3", "fd32::3", "10.32.0.1", "fd32::1", h.Addr().String()} {
		labtest.Run(t, a.Space, "ping", "-c1", "-W2", to)
	}
}

// TestInterface: flags, sysctls and port settings, which only the kernel has.
func TestInterface(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "a")
	labtest.Run(t, p.Space, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv6.conf.default.accept_ra=1")
	s := podSpec(p, 2)
	s.Hairpin = true
	mustAttach(t, h, s)
	out := labtest.Run(t, p.Space, "ip", "addr", "show", "dev", "eth0")
	if strings.Contains(out, "tentative") || !strings.Contains(out, "fd32::2/64") {
		t.Errorf("addresses:\n%s", out)
	}
	out = labtest.Run(t, p.Space, "sysctl", "-n", "net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.accept_dad")
	if out != "0\n0\n" {
		t.Errorf("accept_ra and accept_dad are %q", out)
	}
	port := labtest.Run(t, h.Space, "ip", "-d", "link", "show", s.HostName)
	for _, want := range []string{"master weave", "hairpin on", "isolated off", "state UP", "mtu 1400", "addrgenmode none"} {
		if !strings.Contains(port, want) {
			t.Errorf("the port is not %q:\n%s", want, port)
		}
	}
	if out := labtest.Run(t, h.Space, "ip", "addr", "show", "dev", s.HostName); strings.Contains(out, "inet") {
		t.Errorf("the host end has addresses:\n%s", out)
	}
}

// TestAnnounced: the bridge receives announcements when a pod is attached.
func TestAnnounced(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "a")
	dump := labtest.Start(t, h, nettest.ProcessConfig{Argv: []string{
		"tcpdump", "-i", "weave", "-n", "-l", "-e", "--immediate-mode", "arp or icmp6[0] = 136",
	}})
	logged := func(want string) func() error {
		return func() error {
			if got := dump.Logs(); !strings.Contains(got, want) {
				return fmt.Errorf("tcpdump printed no %q:\n%s", want, got)
			}
			return nil
		}
	}
	labtest.Until(t, 5*time.Second, logged("listening on"))
	mustAttach(t, h, podSpec(p, 2))
	labtest.Until(t, 5*time.Second, logged("> ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 60: Request who-has 10.32.0.2 tell 10.32.0.2"))
	labtest.Until(t, 5*time.Second, logged("neighbor advertisement, tgt is fd32::2"))
}

// TestDefaultRouteStays: Attach keeps a default route of the namespace, also one with a metric.
func TestDefaultRouteStays(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "a")
	labtest.Run(t, p.Space, "ip", "link", "add", "other", "type", "veth", "peer", "name", "other2")
	labtest.Run(t, p.Space, "ip", "link", "set", "other", "up")
	labtest.Run(t, p.Space, "ip", "route", "add", "default", "dev", "other", "metric", "100")
	s := podSpec(p, 2)
	mustAttach(t, h, s)
	out := labtest.Run(t, p.Space, "ip", "route", "show", "default")
	if strings.Count(out, "default") != 1 || !strings.Contains(out, "dev other") {
		t.Errorf("IPv4 default routes:\n%s", out)
	}
	if out := labtest.Run(t, p.Space, "ip", "-6", "route", "show", "default"); !strings.Contains(out, "via fd32::1 dev eth0") {
		t.Errorf("IPv6 default routes:\n%s", out)
	}
	if err := (inside{h}).Check(s); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestGatewayElsewhere: a gateway may be outside of the pod's subnet, as delegated address managers return it.
func TestGatewayElsewhere(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "a")
	s := podSpec(p, 2)
	s.Addresses[0].Prefix = netip.MustParsePrefix("10.32.0.2/32")
	s.Addresses[1].Prefix = netip.MustParsePrefix("fd32::2/128")
	mustAttach(t, h, s)
	labtest.Run(t, p.Space, "ping", "-c1", "-W2", h.Addr().String())
	labtest.Run(t, p.Space, "ping", "-c1", "-W2", "fd32::1")
}

// TestUndo: Attach removes the pair when one of its last steps fails.
func TestUndo(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "a")
	for name, change := range map[string]func(*podlink.Spec){
		"route twice": func(s *podlink.Spec) {
			r := podlink.Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("10.32.0.1")}
			s.Routes = []podlink.Route{r, r}
		},
		"MTU too small for IPv6": func(s *podlink.Spec) { s.MTU = 1279 },
	} {
		s := podSpec(p, 2)
		change(&s)
		if _, err := (inside{h}).Attach(t.Context(), s); err == nil {
			t.Errorf("%s: Attach succeeded", name)
		}
		if left := hostLinks(t, h); len(left) > 0 {
			t.Errorf("%s: %v left on the host", name, left)
		}
		if _, _, err := (inside{h}).Addresses(s.Netns, s.Ifname); !errors.Is(err, podlink.ErrNoLink) {
			t.Errorf("%s: the pod's interface: %v, want ErrNoLink", name, err)
		}
	}
}

// TestDetachKeepsOthers: Detach keeps a link with the name of the host end that is not a veth.
func TestDetachKeepsOthers(t *testing.T) {
	h := newHost(t)
	name := podlink.HostLinkName("bridge", "eth0")
	labtest.Run(t, h.Space, "ip", "link", "add", name, "type", "bridge")
	if err := (inside{h}).Detach(t.Context(), "", "", name); err != nil {
		t.Error(err)
	}
	if got := hostLinks(t, h); len(got) != 1 {
		t.Errorf("the other link was removed: %v", got)
	}
}

func TestNotANetns(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, t.TempDir(), "/proc/self/status", "/proc/self/ns/mnt", h.Path(), "/run/netns/\x00"} {
		s := podSpec(&nettest.Pod{Space: h.Space}, 2)
		s.Netns = path
		if _, err := (inside{h}).Attach(t.Context(), s); !errors.Is(err, podlink.ErrNetns) {
			t.Errorf("Attach to %q = %v, want ErrNetns", path, err)
		}
		if err := (inside{h}).Detach(t.Context(), path, "eth0", ""); err != nil {
			t.Errorf("Detach from %q: %v", path, err)
		}
	}
	s := podSpec(labtest.AddPod(t, h, "a"), 2)
	s.Bridge = "eth0"
	if _, err := (inside{h}).Attach(t.Context(), s); !errors.Is(err, podlink.ErrNoBridge) {
		t.Errorf("Attach to a bridge that is a veth = %v, want ErrNoBridge", err)
	}
}
