package guard_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/guard/guardtest"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

const patience = 10 * time.Second

// bench is a host with a bridge and stations on it: two bound pods, one of IPv4 alone, an open one, and a peer behind an uplink.
type bench struct {
	host     *nettest.Host
	fw       *guard.NFT
	rules    guard.Ruleset
	stations map[string]guardtest.Station
	sockets  map[string]*guardtest.Socket
	markers  byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	l := labtest.New(t, nettest.Config{})
	b := &bench{host: labtest.AddHost(t, l, "a"), stations: map[string]guardtest.Station{}, sockets: map[string]*guardtest.Socket{}}
	run := func(line string) { labtest.Run(t, b.host.Space, append([]string{"ip"}, strings.Fields(line)...)...) }
	run("link add weave type bridge")
	run("link set weave address 06:57:01:02:03:04 up")
	bridge := guardtest.Station{MAC: mac(t, "06:57:01:02:03:04"), IP4: netip.MustParseAddr("10.32.0.1"), IP6: netip.MustParseAddr("fd32::1")}
	b.stations["bridge"] = bridge
	for i, name := range []string{"bound4", "bound", "open", "peer"} {
		station := guardtest.Station{MAC: ether.Addr{2, 0, 0, 0, 1, byte(i)}, IP4: netip.AddrFrom4([4]byte{10, 32, 0, byte(10 + i)})}
		if name != "bound4" {
			station.IP6 = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x32, 15: byte(10 + i)})
		}
		port := "vweft" + name
		if name == "peer" {
			port = "weft0"
		}
		p := labtest.AddPod(t, b.host, name)
		run("link add " + port + " type veth peer name eth0 address " + station.MAC.String() + " netns " + p.Name())
		run("link set " + port + " master weave up")
		labtest.Run(t, p.Space, "ip", "link", "set", "eth0", "up")
		b.stations[name] = station
		if err := p.Do(func() (err error) { b.sockets[name], err = guardtest.Open("eth0"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.sockets[name].Close() })
	}
	b.rules = guard.Ruleset{
		Uplinks: []string{"weft0"}, PodPrefix: "vweft", Strict: true, Unbound: true,
		BridgeMAC: bridge.MAC, BridgeAddrs: []netip.Addr{bridge.IP4, bridge.IP6, bridge.MAC.LinkLocal()},
		Bound: []guard.Port{b.port("bound4"), b.port("bound")},
	}
	b.apply(t)
	return b
}

func mac(t *testing.T, text string) ether.Addr {
	t.Helper()
	a, err := ether.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// port returns the port of a bound pod.
func (b *bench) port(name string, allow ...netip.Prefix) guard.Port {
	s := b.stations[name]
	p := guard.Port{Link: "vweft" + name, MAC: s.MAC, Addrs: []netip.Addr{s.IP4}, Allow: allow}
	if s.IP6.IsValid() {
		p.Addrs = append(p.Addrs, s.IP6)
	}
	return p
}

// do calls f on a thread in the host's namespace.
func (b *bench) do(t *testing.T, f func() error) {
	t.Helper()
	if err := b.host.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) apply(t *testing.T) {
	t.Helper()
	b.do(t, func() (err error) {
		if b.fw == nil {
			if b.fw, err = guard.New(t.Context()); err != nil {
				return err
			}
		}
		return b.fw.Apply(t.Context(), b.rules)
	})
}

// dropped returns the counters.
func (b *bench) dropped(t *testing.T) (counts map[guard.Reason]uint64) {
	t.Helper()
	b.do(t, func() (err error) { counts, err = b.fw.Dropped(t.Context()); return err })
	return counts
}

// check sends frames from one station, and checks at another that exactly those without a reason arrive, and that each of the
// others is counted once under its reason.
func (b *bench) check(t *testing.T, from, to string, frames []guardtest.Frame) {
	t.Helper()
	before := b.dropped(t)
	b.markers++
	marker := guardtest.Probe(b.stations[from], b.markers)
	if err := b.sockets[from].Send(append(frames, marker)...); err != nil {
		t.Fatal(err)
	}
	seen, err := b.sockets[to].Until(marker, patience)
	if err != nil {
		t.Fatal(err)
	}
	want := map[guard.Reason]uint64{}
	for _, f := range frames {
		if got := seen[f.To()]; got != (f.Reason == "") {
			t.Errorf("from %s to %s: %s: arrived %t", from, to, f.Name, got)
		}
		want[f.Reason]++
	}
	after := b.dropped(t)
	for _, reason := range guard.Reasons() {
		if got := after[reason] - before[reason]; got < want[reason] {
			t.Errorf("from %s: %d frames counted as %s, want %d", from, got, reason, want[reason])
		}
	}
}

// pass returns the frames without their reasons: all of them may pass.
func pass(frames []guardtest.Frame) []guardtest.Frame {
	out := append([]guardtest.Frame(nil), frames...)
	for i := range out {
		out[i].Reason = ""
	}
	return out
}

func TestBound(t *testing.T) {
	b := newBench(t)
	for _, from := range []string{"bound4", "bound"} {
		own := b.stations[from]
		for _, to := range []string{"open", "peer"} {
			b.check(t, from, to, guardtest.Forbidden(own, b.stations["open"]))
			b.check(t, from, to, guardtest.Forbidden(own, b.stations["bridge"])[1:])
			b.check(t, from, to, guardtest.Allowed(own, b.stations[to]))
		}
	}
}

// TestHost: a pod that is neither bound nor open sends neither what only routers and servers send nor as the bridge.
func TestHost(t *testing.T) {
	b := newBench(t)
	own := b.stations["open"]
	b.check(t, "open", "peer", guardtest.FromPeers(own))
	b.check(t, "open", "peer", guardtest.Claims(own, b.stations["bridge"]))
	b.check(t, "open", "peer", guardtest.Allowed(own, b.stations["bound"]))
}

// TestEvasions: unusual forms of what a bound pod must not send.
func TestEvasions(t *testing.T) {
	b := newBench(t)
	for _, from := range []string{"bound4", "bound"} {
		own := b.stations[from]
		for _, to := range []string{"open", "peer"} {
			b.check(t, from, to, guardtest.Evasions(own, b.stations["open"]))
		}
	}
	for _, from := range []string{"bound4", "bound", "open", "peer"} {
		own := b.stations[from]
		for _, f := range guardtest.Disguises(own, b.stations["bridge"]) {
			to := "open"
			if from == "open" {
				to = "peer"
			}
			if strings.HasPrefix(from, "bound") {
				f.Reason = guardtest.ReasonBridge // of any kind
			}
			b.check(t, from, to, []guardtest.Frame{f})
		}
	}
}

// TestUnasked: what configures hosts reaches no bound pod, neither from an open pod of its node nor from a peer, and open pods
// still get it.
func TestUnasked(t *testing.T) {
	b := newBench(t)
	b.check(t, "open", "peer", guardtest.Unasked(b.stations["open"])) // it is not open yet
	b.rules.Open = []string{"vweftopen"}
	for _, strict := range []bool{true, false} {
		b.rules.Strict = strict
		b.apply(t)
		b.check(t, "open", "peer", pass(guardtest.Unasked(b.stations["open"])))
		for _, from := range []string{"open", "peer"} {
			for _, to := range []string{"bound4", "bound"} {
				frames := guardtest.Unasked(b.stations[from])
				for i, f := range frames {
					if to == "bound4" && f.Data[12] == 0x86 && (from == "open" || !strict) {
						frames[i].Reason = guard.ReasonIPv6
					}
				}
				b.check(t, from, to, frames)
				b.check(t, from, to, slices.DeleteFunc(guardtest.Allowed(b.stations[from], b.stations["bound"]), func(f guardtest.Frame) bool {
					return to == "bound4" && f.Data[12] == 0x86
				}))
			}
		}
	}
}

// TestOpen: an open pod sends what it likes to other pods, but not as the bridge.
func TestOpen(t *testing.T) {
	b := newBench(t)
	b.rules.Open = []string{"vweftopen"}
	b.apply(t)
	own := b.stations["open"]
	frames := pass(guardtest.Forbidden(own, b.stations["bound"]))
	for i, f := range frames {
		if strings.HasPrefix(f.Name, "two tags") && f.Name != "two tags 0x5" { // of VLAN 0: what is behind cannot be checked
			frames[i].Reason = guard.ReasonTag
		}
	}
	b.check(t, "open", "peer", frames)
	b.check(t, "open", "peer", guardtest.Claims(own, b.stations["bridge"]))
}

func TestPeers(t *testing.T) {
	b := newBench(t)
	own := b.stations["peer"]
	b.check(t, "peer", "open", guardtest.FromPeers(own))
	b.check(t, "peer", "open", guardtest.Claims(own, b.stations["bridge"]))
	b.rules.Strict = false
	b.apply(t)
	b.check(t, "peer", "open", pass(guardtest.FromPeers(own)))
	b.check(t, "peer", "open", guardtest.Claims(own, b.stations["bridge"]))
}

// TestDelivery: no tag reaches a bound pod from any port, and no IPv6 a pod without an IPv6 address.
func TestDelivery(t *testing.T) {
	b := newBench(t)
	b.rules.Open = []string{"vweftopen"}
	b.apply(t)
	for _, from := range []string{"open", "peer"} {
		own := b.stations[from]
		for _, to := range []string{"bound4", "bound"} {
			for _, f := range guardtest.Allowed(own, b.stations["bound"]) {
				if to == "bound4" && f.Data[12] == 0x86 { // IPv6
					f.Reason = guard.ReasonIPv6
				}
				b.check(t, from, to, []guardtest.Frame{f})
			}
			for _, f := range guardtest.Forbidden(own, b.stations["bound"]) {
				if f.Reason == guard.ReasonTag {
					if from == "peer" && strings.HasPrefix(f.Name, "router advertisement") {
						f.Reason = guard.ReasonAdvertisement // at the uplink already
					}
					b.check(t, from, to, []guardtest.Frame{f})
				}
			}
		}
	}
}

// TestOnlyBound: where all pods are bound and of one kind, tags and IPv6 of other nodes end where they enter.
func TestOnlyBound(t *testing.T) {
	b := newBench(t)
	b.rules.Unbound = false
	own := b.stations["peer"]
	tags := slices.DeleteFunc(guardtest.Forbidden(own, b.stations["bound"]), func(f guardtest.Frame) bool {
		return f.Reason != guard.ReasonTag || strings.HasPrefix(f.Name, "router advertisement")
	})
	for _, only := range []string{"bound4", "bound"} {
		b.rules.Bound = []guard.Port{b.port(only)}
		b.apply(t)
		if out := labtest.Run(t, b.host.Space, "nft", "list", "table", "bridge", guard.Table); strings.Contains(out, "hook postrouting") {
			t.Error("frames are checked twice")
		}
		b.check(t, "peer", only, tags)
		frames := guardtest.Allowed(own, b.stations["bound"])
		for i, f := range frames {
			if only == "bound4" && f.Data[12] == 0x86 {
				frames[i].Reason = guard.ReasonIPv6
			}
		}
		b.check(t, "peer", only, frames)
		b.check(t, only, "peer", guardtest.Forbidden(b.stations[only], own))
	}
	b.rules.Bound = []guard.Port{b.port("bound4"), b.port("bound")}
	b.apply(t)
	b.check(t, "peer", "bound", guardtest.Allowed(own, b.stations["bound"]))
}

// TestAllow: further addresses, single ones and prefixes, and their end.
func TestAllow(t *testing.T) {
	b := newBench(t)
	vip, inside := netip.MustParseAddr("10.32.0.100"), netip.MustParseAddr("10.50.0.7")
	own, other := b.stations["bound4"], b.stations["open"]
	b.check(t, "bound4", "open", guardtest.VIP(own, other, vip))
	b.check(t, "bound4", "open", guardtest.VIP(own, other, inside))
	before := b.dropped(t)
	b.rules.Bound[0].Allow = []netip.Prefix{netip.PrefixFrom(vip, 32), netip.PrefixFrom(inside, 24)}
	b.apply(t)
	if after := b.dropped(t); after[guard.ReasonARP] < before[guard.ReasonARP] || before[guard.ReasonARP] == 0 {
		t.Errorf("a change resets the counters: %v, then %v", before, after)
	}
	for _, a := range []netip.Addr{vip, inside} {
		b.check(t, "bound4", "open", pass(guardtest.VIP(own, other, a)))
	}
	b.check(t, "bound4", "open", guardtest.Forbidden(own, b.stations["bound"]))
	b.rules.Bound[0].Allow = nil
	b.apply(t)
	b.check(t, "bound4", "open", guardtest.VIP(own, other, inside))
}

// TestAllowOwn: what is requested for a pod never lets it send as the bridge.
func TestAllowOwn(t *testing.T) {
	b := newBench(t)
	bridge := b.stations["bridge"]
	any4, any6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	single := []netip.Prefix{netip.PrefixFrom(bridge.IP4, 32), netip.PrefixFrom(bridge.IP6, 128)}
	for i, allow := range [][]netip.Prefix{{any4, any6}, single} {
		b.rules.Bound[1] = b.port("bound", allow...)
		b.apply(t)
		own := b.stations["bound"]
		frames := slices.DeleteFunc(slices.Concat(guardtest.Claims(own, bridge), guardtest.Disguises(own, bridge)), func(f guardtest.Frame) bool {
			return strings.Contains(f.Name, "tag") // dropped in any case
		})
		for _, f := range frames {
			if f.Reason == guard.ReasonARP || f.Reason == guard.ReasonMAC || f.Name == "neighbor advertisement for the bridge in a fragment" {
				b.check(t, "bound", "open", []guardtest.Frame{f})
				continue
			}
			f.Reason = guardtest.ReasonBridge // of any kind
			b.check(t, "bound", "open", []guardtest.Frame{f})
		}
		if vip := guardtest.VIP(own, b.stations["open"], netip.MustParseAddr("10.99.0.1")); i == 0 {
			b.check(t, "bound", "open", pass(vip))
		}
	}
	b.rules.Bound[1] = b.port("bound")
	b.rules.Bound[1].MAC = bridge.MAC
	b.apply(t)
	as := b.stations["bound"]
	as.MAC = bridge.MAC
	frames, before := guardtest.Allowed(as, b.stations["open"]), b.dropped(t)[guard.ReasonMAC]
	if err := b.sockets["bound"].Send(frames...); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		if got := b.dropped(t)[guard.ReasonMAC] - before; got != uint64(len(frames)) {
			return fmt.Errorf("%d frames counted, want %d", got, len(frames))
		}
		return nil
	})
}

// TestKept: a flushed or changed table is noticed and restored.
func TestKept(t *testing.T) {
	b := newBench(t)
	intact := func() (ok bool) {
		t.Helper()
		b.do(t, func() (err error) { ok, err = b.fw.Intact(); return err })
		return ok
	}
	if !intact() {
		t.Error("not intact after Apply")
	}
	for _, change := range []string{
		"flush ruleset", "flush set bridge weft-guard bound", "insert rule bridge weft-guard prerouting accept", "delete table bridge weft-guard",
		"delete table inet weft-guard", "flush chain inet weft-guard input",
	} {
		labtest.Run(t, b.host.Space, append([]string{"nft"}, strings.Fields(change)...)...)
		if intact() {
			t.Errorf("intact after %s", change)
		}
		b.apply(t)
		if !intact() {
			t.Errorf("not intact after %s and Apply", change)
		}
		b.check(t, "bound", "open", guardtest.Forbidden(b.stations["bound"], b.stations["open"]))
	}
	b.do(t, func() error { return b.fw.Remove(t.Context()) })
	if out := labtest.Run(t, b.host.Space, "nft", "list", "ruleset"); out != "" {
		t.Errorf("after Remove:\n%s", out)
	}
}

// TestSubnets: a port that is in subnets exchanges packets with these alone, whether it is bound or not, in both directions.
func TestSubnets(t *testing.T) {
	b := newBench(t)
	subnets := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	open, bound := b.port("open"), b.port("bound")
	open.Subnets = subnets("10.32.0.12/31", "fd32::c/127") // with the peer
	b.rules.Bridge, b.rules.Separated = "weave", []guard.Port{open}
	b.apply(t)
	b.check(t, "open", "peer", guardtest.WithinSubnet(b.stations["open"], b.stations["peer"]))
	b.check(t, "peer", "open", guardtest.WithinSubnet(b.stations["peer"], b.stations["open"]))
	b.check(t, "bound", "open", guardtest.BetweenSubnets(b.stations["bound"], b.stations["open"]))
	b.check(t, "open", "bound", guardtest.BetweenSubnets(b.stations["open"], b.stations["bound"]))
	bound.Subnets = subnets("10.32.0.11/32", "fd32::b/128")
	b.rules.Bound[1] = bound
	b.rules.Separated = []guard.Port{open, bound}
	b.apply(t)
	b.check(t, "bound", "open", guardtest.BetweenSubnets(b.stations["bound"], b.stations["open"]))
	b.check(t, "bound", "peer", guardtest.BetweenSubnets(b.stations["bound"], b.stations["peer"]))
	b.check(t, "peer", "bound", guardtest.BetweenSubnets(b.stations["peer"], b.stations["bound"]))
	bound.Subnets, open.Subnets = subnets("10.32.0.0/28", "fd32::/124"), subnets("10.32.0.0/28", "fd32::/124")
	b.rules.Bound[1] = bound
	b.rules.Separated = []guard.Port{open, bound}
	b.apply(t)
	b.check(t, "bound", "open", guardtest.WithinSubnet(b.stations["bound"], b.stations["open"]))
	b.check(t, "open", "bound", guardtest.WithinSubnet(b.stations["open"], b.stations["bound"]))
	b.rules.Separated = nil
	b.apply(t)
	b.check(t, "open", "bound", guardtest.Allowed(b.stations["open"], b.stations["bound"]))
}

// TestBroadcastLimit: a pod that sends more broadcasts than the limit loses those beyond it, bound or not. Its other frames pass, and so do
// the broadcasts of other pods.
func TestBroadcastLimit(t *testing.T) {
	b := newBench(t)
	b.rules.Broadcasts = 10
	b.apply(t)
	send := func(from string, n int) (dropped uint64) {
		t.Helper()
		before := b.dropped(t)[guard.ReasonBroadcast]
		if err := b.sockets[from].Send(guardtest.Scan(b.stations[from], n)...); err != nil {
			t.Fatal(err)
		}
		b.check(t, from, "peer", pass(guardtest.Allowed(b.stations[from], b.stations["peer"])))
		return b.dropped(t)[guard.ReasonBroadcast] - before
	}
	for _, from := range []string{"bound4", "open"} {
		if n := send(from, 10); n != 0 {
			t.Errorf("from %s: %d broadcasts below the limit were dropped", from, n)
		}
		if n := send(from, 500); n < 400 { // of a slow machine, some are within the limit
			t.Errorf("from %s: %d of 500 broadcasts were dropped", from, n)
		}
	}
	if intact, err := func() (ok bool, err error) {
		b.do(t, func() error { ok, err = b.fw.Intact(); return nil })
		return ok, err
	}(); !intact || err != nil {
		t.Errorf("the count of broadcasts looks like a change of the rules: %v", err)
	}
	b.rules.Broadcasts = 0
	b.apply(t)
	if n := send("open", 100); n != 0 { // more do not fit into the buffer of the receiver
		t.Errorf("without a limit, %d broadcasts were dropped", n)
	}
}
