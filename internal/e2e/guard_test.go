package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/guard/guardtest"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/cnitest"
	"weft/internal/nettest/labtest"
)

// station is a pod with a socket that sends any frame and sees all that arrive.
type station struct {
	*pod
	guardtest.Station
	socket *guardtest.Socket
}

// newStation opens a socket in a pod.
func newStation(t *testing.T, p *pod) *station {
	t.Helper()
	s := &station{pod: p}
	if err := p.Do(func() (err error) {
		if s.MAC, err = guardtest.Hardware("eth0"); err == nil {
			s.socket, err = guardtest.Open("eth0")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.socket.Close() })
	for _, a := range p.addrs {
		if a.Is4() {
			s.IP4 = a
		} else {
			s.IP6 = a
		}
	}
	return s
}

// bridgeStation returns the bridge of a node, as pods see it.
func bridgeStation(t *testing.T, n *cluster.Node) (s guardtest.Station) {
	t.Helper()
	if err := n.Host.Do(func() (err error) { s.MAC, err = guardtest.Hardware("weave"); return err }); err != nil {
		t.Fatal(err)
	}
	for _, p := range query[api.Status](t, n, "status").Exposed {
		if p.Addr().Is4() {
			s.IP4 = p.Addr()
		} else {
			s.IP6 = p.Addr()
		}
	}
	return s
}

// markers numbers the markers of all tests.
var markers = make(chan byte, 1)

func init() { markers <- 0 }

// seen sends frames from one pod and returns which of their destinations another one has seen, after a marker has arrived there.
func (s *station) seen(t *testing.T, at *station, frames []guardtest.Frame) map[ether.Addr]bool {
	t.Helper()
	n := <-markers
	markers <- (n + 1) % 100
	marker := guardtest.Marker(s.Station, at.Station, n)
	if err := s.socket.Send(append(slices.Clone(frames), marker)...); err != nil {
		t.Fatal(err)
	}
	seen, err := at.socket.Until(marker, patience)
	if err != nil {
		t.Fatalf("from %s at %s: %v", s.Name(), at.Name(), err)
	}
	return seen
}

// sends checks that another pod sees all frames of a pod, or none.
func (s *station) sends(t *testing.T, at *station, want bool, frames []guardtest.Frame) {
	t.Helper()
	seen := s.seen(t, at, frames)
	for _, f := range frames {
		if seen[f.To()] != want {
			t.Errorf("from %s at %s: %s: seen %t, want %t", s.Name(), at.Name(), f.Name, !want, want)
		}
	}
}

// warmUp waits until frames pass from one pod to another.
func (s *station) warmUp(t *testing.T, at ...*station) {
	t.Helper()
	for _, other := range at {
		s.reaches(t, other.addrs...)
		other.reaches(t, s.addrs...)
	}
}

// TestGuard: a bound pod sends only with its MAC and its addresses, to pods of its node and of another, over both datapaths, with and
// without IPv6; what bound pods need works.
func TestGuard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"IPv4, userspace", []string{"--datapath", "userspace"}},
		{"dual stack, kernel", []string{"--range", "10.32.0.0/12", "--range", range6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a", "b")
			start(t, nodes, append(tt.args, "--guard", "pods")...)
			bound, near := newStation(t, attach(t, nodes[0], "bound")), newStation(t, attach(t, nodes[0], "near", "--guard", "off"))
			other, far := newStation(t, attach(t, nodes[1], "other")), newStation(t, attach(t, nodes[1], "far", "--guard", "off"))
			bound.warmUp(t, near, far, other)
			other.warmUp(t, near, far)
			gateway := bridgeStation(t, nodes[0])
			for _, at := range []*station{near, far} {
				for _, as := range []guardtest.Station{near.Station, far.Station, other.Station, gateway} {
					bound.sends(t, at, false, guardtest.Forbidden(bound.Station, as))
					bound.sends(t, at, false, guardtest.Evasions(bound.Station, as))
				}
			}
			bound.sends(t, near, true, slices.DeleteFunc(guardtest.Allowed(bound.Station, near.Station), func(f guardtest.Frame) bool {
				return strings.Contains(f.Name, "fragment") // the host's connection tracking reassembles them; large pings below have some
			}))

			// What others send: no tag reaches a bound pod, and no IPv6 one without an IPv6 address.
			for _, from := range []*station{near, far} {
				var frames []guardtest.Frame
				for _, f := range guardtest.Forbidden(from.Station, other.Station) {
					if f.Reason == guard.ReasonTag {
						frames = append(frames, f)
					}
				}
				from.sends(t, bound, false, frames)
				if !from.IP6.IsValid() {
					as := from.Station
					as.IP6 = netip.MustParseAddr("fd32::99")
					frames = slices.DeleteFunc(guardtest.Allowed(as, as), func(f guardtest.Frame) bool { return f.Data[12] != 0x86 })
					from.sends(t, bound, false, frames)
				}
			}
			// Router advertisements and answers of DHCP servers of an open pod stay on its node.
			far.sends(t, near, false, guardtest.FromPeers(far.Station))
			// No bound pod gets them at all.
			near.sends(t, bound, false, guardtest.Unasked(near.Station))

			// The status counts.
			s := query[api.Status](t, nodes[0], "status").Guard
			if s.Bound != 1 || s.Open != 1 {
				t.Errorf("status: %+v, want 1 bound and 1 open", s)
			}
			labtest.Until(t, patience, func() error {
				s := query[api.Status](t, nodes[0], "status").Guard
				for _, reason := range []guard.Reason{guard.ReasonMAC, guard.ReasonAddress, guard.ReasonARP, guard.ReasonTag, guard.ReasonDHCP} {
					if s.Dropped[string(reason)] == 0 {
						return fmt.Errorf("status: %+v, nothing dropped as %s", s, reason)
					}
				}
				return nil
			})
			bound.ordinary(t, other)
		})
	}
}

// ordinary checks what pods do every day: large pings, link-local IPv6 and duplicate address detection.
func (s *station) ordinary(t *testing.T, to *station) {
	t.Helper()
	for _, a := range to.addrs {
		labtest.Run(t, s.Space, "ping", "-c", "1", "-W", "5", "-s", "4000", a.String())
	}
	if s.IP6.IsValid() {
		local := to.MAC.LinkLocal().String() + "%eth0"
		labtest.Run(t, s.Space, "ping", "-c", "1", "-W", "5", "-s", "4000", local)
		// Duplicate address detection finds that the address is free, or taken by the other.
		labtest.Run(t, s.Space, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.dad_transmits=1")
		labtest.Run(t, s.Space, "ip", "addr", "del", s.IP6.String()+"/64", "dev", "eth0")
		labtest.Run(t, s.Space, "ip", "addr", "add", s.IP6.String()+"/64", "dev", "eth0")
		labtest.Until(t, patience, func() error {
			if out := labtest.Run(t, s.Space, "ip", "-6", "addr", "show", "dev", "eth0"); strings.Contains(out, "tentative") {
				return errors.New("the address is tentative")
			}
			return nil
		})
		s.reaches(t, to.IP6)
	}
	s.reaches(t, to.addrs...)
}

// TestGuardHost: without --guard, pods do as they like among themselves, but neither they nor peers send as the bridge, and no host
// takes routes or addresses from them.
func TestGuardHost(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for _, n := range nodes {
		labtest.Run(t, n.Space, "sysctl", "-qw", "net.ipv6.conf.default.accept_ra=2", "net.ipv6.conf.all.accept_ra=2")
	}
	start(t, nodes, "--range", "10.32.0.0/12", "--range", range6)
	near, other, far := newStation(t, attach(t, nodes[0], "near")), newStation(t, attach(t, nodes[0], "other")),
		newStation(t, attach(t, nodes[1], "far"))
	near.warmUp(t, other, far)
	gateway := bridgeStation(t, nodes[0])
	claims := guardtest.Claims(near.Station, gateway)
	near.sends(t, other, false, claims)
	near.sends(t, far, false, claims)
	far.sends(t, other, false, guardtest.Claims(far.Station, gateway))
	near.sends(t, far, false, guardtest.Disguises(near.Station, gateway))
	far.sends(t, other, false, guardtest.Disguises(far.Station, gateway))
	near.sends(t, other, true, guardtest.VIP(near.Station, other.Station, netip.MustParseAddr("10.32.200.1")))

	state := func(n *cluster.Node) string {
		var lines []string
		for _, what := range [][]string{{"-6", "route"}, {"-6", "addr"}, {"-4", "route"}} {
			for line := range strings.Lines(labtest.Run(t, n.Space, append([]string{"ip"}, what...)...)) {
				if !strings.Contains(line, "lft") {
					lines = append(lines, line)
				}
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "")
	}
	before := []string{state(nodes[0]), state(nodes[1])}
	for _, value := range []string{"", "2"} {
		if value != "" { // the rules alone, until the daemon restores the setting
			for _, n := range nodes {
				labtest.Run(t, n.Space, "sysctl", "-qw", "net.ipv6.conf.weave.accept_ra="+value)
			}
		}
		if err := near.socket.Send(guardtest.Attacks(near.Station)...); err != nil {
			t.Fatal(err)
		}
		for _, to := range []*station{near, far} { // whatever was sent before has arrived
			near.reaches(t, to.addrs...)
			to.reaches(t, bridgeStation(t, to.node).IP6)
		}
		for i, n := range nodes {
			if after := state(n); after != before[i] {
				t.Errorf("accept_ra %q: %s: before\n%s\nafter\n%s", value, n.Label(), before[i], after)
			}
		}
	}
	for _, n := range nodes {
		for name, want := range map[string]string{
			"ipv6.conf.weave.accept_ra": "0", "ipv6.conf.weave.autoconf": "0", "ipv6.conf.weave.accept_redirects": "0",
			"ipv4.conf.weave.accept_redirects": "0", "ipv6.conf.weft0.disable_ipv6": "1",
			"ipv6.conf.default.accept_ra": "2", // it is the host's
		} {
			labtest.Until(t, patience, func() error {
				if got := strings.TrimSpace(labtest.Run(t, n.Space, "sysctl", "-n", "net."+name)); got != want {
					return fmt.Errorf("%s: %s is %s, want %s", n.Label(), name, got, want)
				}
				return nil
			})
		}
	}
}

// TestGuardStays: guards of pods, with further addresses, outlive the daemon and a flush of all rules, and end with the pod.
func TestGuardStays(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	vip := netip.MustParseAddr("10.32.0.200")
	bound := newStation(t, attach(t, nodes[0], "bound", "--guard", "pods", "--allow-address", vip.String(), "--allow-address", "10.50.0.0/24"))
	open := newStation(t, attach(t, nodes[0], "open"))
	bound.warmUp(t, open)
	check := func(what string) {
		t.Helper()
		t.Log(what)
		bound.sends(t, open, false, guardtest.Forbidden(bound.Station, open.Station))
		for _, a := range []netip.Addr{vip, netip.MustParseAddr("10.50.0.7")} {
			bound.sends(t, open, true, guardtest.VIP(bound.Station, open.Station, a))
		}
		bound.sends(t, open, false, guardtest.VIP(bound.Station, open.Station, netip.MustParseAddr("10.51.0.7")))
	}
	check("attached")
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	check("without the daemon")
	labtest.Run(t, nodes[0].Space, "nft", "flush", "ruleset")
	start(t, nodes)
	check("after a restart")
	labtest.Run(t, nodes[0].Space, "nft", "flush", "ruleset")
	labtest.Until(t, patience, func() error {
		_, err := nodes[0].Run(testContext(t), "nft", "list", "set", "bridge", guard.Table, "bound")
		return err
	})
	check("after a flush")
	do(t, nodes[0], "attach", "--netns", bound.Path(), "--guard", "off")
	bound.sends(t, open, true, guardtest.VIP(bound.Station, open.Station, netip.MustParseAddr("10.51.0.7")))
	do(t, nodes[0], "attach", "--netns", bound.Path(), "--guard", "pods")
	bound.sends(t, open, false, guardtest.VIP(bound.Station, open.Station, vip))
	do(t, nodes[0], "detach", "--netns", bound.Path())
	if s := query[api.Status](t, nodes[0], "status").Guard; s.Bound != 0 || s.Open != 0 {
		t.Errorf("after detach: %+v", s)
	}
	do(t, nodes[0], "leave")
	if out := labtest.Run(t, nodes[0].Space, "nft", "list", "ruleset"); strings.Contains(out, guard.Table) {
		t.Errorf("after leave:\n%s", out)
	}
}

// TestGuardedContainer: the CNI plugin binds a container before its interface exists, also with addresses of another plugin, and ends it.
func TestGuardedContainer(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	start(t, nodes)
	r := newRuntime(t, nodes[0])
	for name, ipam := range map[string]string{
		"own": `{}`, "delegated": `{"type": "host-local", "dataDir": "` + t.TempDir() + `", "ranges": [[{"subnet": "10.99.0.0/24"}]]}`,
	} {
		conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "weft", "socket": %q, "guard": "pods", "ipam": %s}]}`,
			name, nodes[0].Socket(), ipam)
		if err := r.Configure(name, conf); err != nil {
			t.Fatal(err)
		}
		p := labtest.AddPod(t, nodes[0].Host, name)
		result, err := r.Add(testContext(t), name, p.Path(), cnitest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		bound := newStation(t, &pod{Pod: p, node: nodes[0], addr: addr.Unmap(), addrs: []netip.Addr{addr.Unmap()}})
		open := newStation(t, attach(t, nodes[0], "open-"+name))
		bound.sends(t, open, false, guardtest.Forbidden(bound.Station, open.Station))
		bound.sends(t, open, true, guardtest.Allowed(bound.Station, open.Station))
		if err := r.Del(testContext(t), name, p.Path(), cnitest.Options{}); err != nil {
			t.Fatal(err)
		}
		if s := query[api.Status](t, nodes[0], "status").Guard; s.Bound != 0 {
			t.Errorf("%s: after DEL: %+v", name, s)
		}
	}
}

// TestGuardWithoutNFT: on a host without nft a guarded pod is refused, a condition says why, and a pod without a guard works.
func TestGuardWithoutNFT(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	argv := []string{
		filepath.Join(bin, "weft"), "up", "--name", n.Label(), "--state-dir", n.StateDir(), "--socket", n.Socket(), "--datapath", "userspace",
		"--guard", "pods",
	}
	labtest.Start(t, n.Host, nettest.ProcessConfig{Name: "weft", Argv: argv, Env: []string{"PATH=/nonexistent"}})
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	if c := conditions(t, n, health.GuardFailed); len(c) != 1 || !strings.Contains(c[0].Remedy, "nftables") {
		t.Errorf("conditions: %+v", c)
	}
	p := labtest.AddPod(t, n.Host, "p")
	_, err := n.Attach(testContext(t), p)
	if err == nil || !strings.Contains(err.Error(), "nftables") {
		t.Errorf("attach with a guard: %v", err)
	}
	for _, link := range links(t, n.Host) {
		if strings.HasPrefix(link, "vweft") {
			t.Errorf("link left behind: %s", link)
		}
	}
	if _, err := n.Attach(testContext(t), p, "--guard", "off"); err != nil {
		t.Error(err)
	}
}

// TestBroadcastLimit: a pod that scans the range reaches no other node with what is beyond the limit, and a condition says so. Other pods
// of its node go on.
func TestBroadcastLimit(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--broadcast-limit", "20")
	scanner, near, far := newStation(t, attach(t, nodes[0], "scanner")), attach(t, nodes[0], "near"), attach(t, nodes[1], "far")
	near.reaches(t, far.addr)
	if found := conditions(t, nodes[0], health.PodBroadcasts); len(found) != 0 {
		t.Errorf("before the scan: %+v", found)
	}
	if err := scanner.socket.Send(guardtest.Scan(scanner.Station, 1000)...); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		if found := conditions(t, nodes[0], health.PodBroadcasts); len(found) != 1 || !strings.Contains(found[0].Text, "20 a second") {
			return fmt.Errorf("conditions %+v", found)
		}
		return nil
	})
	if n := query[api.Status](t, nodes[0], "status").Guard.Dropped[string(guard.ReasonBroadcast)]; n < 500 {
		t.Errorf("%d of 1000 broadcasts were dropped", n)
	}
	near.reaches(t, far.addr)
}
