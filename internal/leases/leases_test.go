package leases_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/exposure"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/leases"
	"weft/internal/leases/deletions"
	"weft/internal/leases/holder"
	"weft/internal/peer"
	"weft/internal/podlink"
	"weft/internal/podlink/linktest"
	"weft/ipam"
	"weft/ipam/store/storetest"
)

// bridge is a leases.Host in memory.
type bridge struct {
	down  bool
	addrs []netip.Prefix
	err   error // of BridgeAddresses

	inwardErr error // of ApplyInward
}

func (b *bridge) Up() bool                                 { return !b.down }
func (b *bridge) MTU() int                                 { return 1422 }
func (b *bridge) BridgeAddresses() ([]netip.Prefix, error) { return slices.Clone(b.addrs), b.err }

func (b *bridge) AddBridgeAddress(p netip.Prefix) error {
	if !slices.Contains(b.addrs, p) {
		b.addrs = append(b.addrs, p)
	}
	return nil
}

func (b *bridge) RemoveBridgeAddress(p netip.Prefix) error {
	b.addrs = slices.DeleteFunc(b.addrs, func(a netip.Prefix) bool { return a == p })
	return nil
}

func (b *bridge) ApplyInward(context.Context) error { return b.inwardErr }

// registry is a leases.Names in memory that refuses the name "bad" when it is added.
type registry struct {
	names map[string]holder.Holder
	addrs map[string][]netip.Addr // of each name
	// withdrawn are the names that are not answered.
	withdrawn map[string]bool
	onBad     func() // called when "bad" is added
	// onHeld is called by Held before it returns; nil: nothing is.
	onHeld func()
}

func (r *registry) Canonical(name string) (string, error) {
	if name == "!" {
		return "", hint.New(hint.Invalid, "Write letters.", "not a name")
	}
	return strings.ToLower(name), nil
}

func (r *registry) Add(name string, h holder.Holder, addrs ...netip.Addr) error {
	name = strings.ToLower(name)
	if name == "bad" {
		if r.onBad != nil {
			r.onBad()
		}
		return hint.New(hint.Exhausted, "Remove some.", "full")
	}
	r.names[name] = h
	delete(r.withdrawn, name)
	for _, a := range addrs {
		if !slices.Contains(r.addrs[name], a) {
			r.addrs[name] = append(r.addrs[name], a)
		}
	}
	return nil
}

func (r *registry) Release(h holder.Holder, addr netip.Addr) {
	for name, of := range r.names {
		if of == h {
			_ = r.Remove(name, r.addrsAt(name, addr)...)
		}
	}
}

// addrsAt returns addr if a name has it, and all its addresses if addr is not valid.
func (r *registry) addrsAt(name string, addr netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(r.addrs[name]), func(a netip.Addr) bool { return addr.IsValid() && a != addr })
}

func (r *registry) Held() (held []leases.HeldName) {
	if r.onHeld != nil {
		r.onHeld()
	}
	for name, h := range r.names {
		for _, a := range r.addrs[name] {
			held = append(held, leases.HeldName{Name: name, Holder: h, Addr: a, Withdrawn: r.withdrawn[name]})
		}
	}
	return held
}

func (r *registry) Withdraw(h holder.Holder) { r.setWithdrawn(h, true) }

func (r *registry) Restore(h holder.Holder) error {
	r.setWithdrawn(h, false)
	return nil
}

func (r *registry) setWithdrawn(h holder.Holder, withdrawn bool) {
	for name, of := range r.names {
		if of == h {
			r.withdrawn[name] = withdrawn
		}
	}
}

func (r *registry) Remove(name string, addrs ...netip.Addr) error {
	r.addrs[name] = slices.DeleteFunc(r.addrs[name], func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	if len(r.addrs[name]) == 0 {
		delete(r.names, name)
		delete(r.withdrawn, name)
	}
	return nil
}

// unheard is an ipam.Gossip without a network.
type unheard struct{}

func (unheard) Broadcast([]byte)              {}
func (unheard) Unicast(peer.ID, []byte) error { return nil }

// noNames is a leases.Nodes that knows no node.
type noNames struct{}

func (noNames) NodeName(peer.ID) string { return "" }

// bench is a Manager and everything around it.
type bench struct {
	*leases.Manager
	bridge *bridge
	names  *registry
	links  *linktest.Recorder
	ipam   *ipam.Allocator
	guards *guards

	exposure *exposure.Store
}

// guards is a leases.Guards in memory.
type guards struct {
	entries map[string]guard.Entry
	links   *linktest.Recorder
	set     []guard.Entry // all that were set
	early   []string      // ports without an interface when they were bound or opened
	err     error         // returned by SetGuard
}

func (g *guards) SetGuard(_ context.Context, e guard.Entry) error {
	if g.err == nil {
		g.entries[e.Link] = e
		g.set = append(g.set, e)
		if !slices.Contains(g.links.HostLinks(), e.Link) {
			g.early = append(g.early, e.Link)
		}
	}
	return g.err
}

func (g *guards) EndGuard(_ context.Context, link string) error {
	delete(g.entries, link)
	return nil
}

func (g *guards) Guard(link string) (guard.Entry, bool) {
	e, ok := g.entries[link]
	return e, ok
}

func (g *guards) Guards() []guard.Entry { return slices.Collect(maps.Values(g.entries)) }

func newBench(t *testing.T, onBridge ...netip.Prefix) *bench {
	t.Helper()
	return newGuardedBench(t, api.GuardHost, onBridge...)
}

// newGuardedBench returns a bench of a node with the given mode of its guard.
func newGuardedBench(t *testing.T, guarded api.GuardMode, onBridge ...netip.Prefix) *bench {
	t.Helper()
	b := &bench{bridge: &bridge{addrs: onBridge}, links: linktest.NewRecorder("weave")}
	b.names = &registry{names: map[string]holder.Holder{}, addrs: map[string][]netip.Addr{}, withdrawn: map[string]bool{}}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.32.0.0/24")}
	var err error
	if b.ipam, err = ipam.New(ipam.Config{Self: peer.ID{1}, Ranges: ranges, InitPeers: 1, Store: storetest.NewMemory(),
		Gossip: unheard{}}); err != nil {
		t.Fatal(err)
	}
	b.links.AddNetns("/run/netns/p")
	b.guards = &guards{entries: map[string]guard.Entry{}, links: b.links}
	if b.exposure, err = exposure.Open(""); err != nil {
		t.Fatal(err)
	}
	b.Manager = leases.New(leases.Config{
		Exposure: b.exposure,
		Self:     peer.ID{1}, Ranges: ranges, Bridge: "weave", Grace: time.Minute, Allocator: b.ipam, Host: b.bridge, Names: b.names,
		Nodes: noNames{}, Links: b.links, Deletions: deletions.Open(t.TempDir() + "/weft.sock"),
		Guards: b.guards, Guard: guarded,
	})
	return b
}

// wantKind fails unless err is a *hint.Error of the given kind with a hint.
func wantKind(t *testing.T, what string, err error, kind hint.Kind) {
	t.Helper()
	if e, ok := errors.AsType[*hint.Error](err); !ok || e.Kind != kind || e.Hint == "" {
		t.Errorf("%s: %v (%+v), want an error of kind %s with a hint", what, err, e, kind)
	}
}

func TestNothingJoinsBeforeTheBridgeIsUp(t *testing.T) {
	b := newBench(t)
	b.bridge.down = true
	_, err := b.Join(t.Context(), api.JoinRequest{Owner: "web"})
	wantKind(t, "Join", err, hint.Starting)
	_, err = b.Attach(t.Context(), api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0"})
	wantKind(t, "Attach", err, hint.Starting)
	_, err = b.Expose(t.Context(), api.ExposeRequest{CIDR: api.Auto})
	wantKind(t, "Expose", err, hint.Starting)
	_, err = b.Hide()
	wantKind(t, "Hide", err, hint.Starting)
}

func TestJoinIsIdempotentAndExposesTheGateway(t *testing.T) {
	b := newBench(t)
	first, err := b.Join(t.Context(), api.JoinRequest{Owner: "web"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Join(t.Context(), api.JoinRequest{Owner: "web"})
	if err != nil || again.Addresses[0] != first.Addresses[0] {
		t.Errorf("a second Join: %+v, %v, want %+v", again, err, first)
	}
	if len(b.bridge.addrs) != 1 || first.Addresses[0].Gateway != b.bridge.addrs[0].Addr() || first.Bridge != "weave" || first.MTU != 1422 {
		t.Errorf("joined by %+v, the bridge has %v", first, b.bridge.addrs)
	}
}

// TestFailedJoinLeavesNothing: where one of several addresses cannot be had, those leased before it are released.
func TestFailedJoinLeavesNothing(t *testing.T) {
	b := newBench(t)
	_, err := b.Join(t.Context(), api.JoinRequest{Owner: "web", IPs: []string{"10.32.0.77", "192.0.2.1"}})
	wantKind(t, "an address outside the ranges", err, hint.Invalid)
	if left := b.Leases("web"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestReservedHoldersAreRefused(t *testing.T) {
	b := newBench(t)
	for _, owner := range []string{"", "weft:expose", "weft:orphan/vweftx", "weft:dns"} {
		_, err := b.Allocate(t.Context(), api.AddressRequest{Owner: owner})
		wantKind(t, "Allocate for "+owner, err, hint.Invalid)
		wantKind(t, "Release of "+owner, b.Release(owner, netip.Addr{}), hint.Invalid)
	}
	wantKind(t, "Release of an unknown holder", b.Release("nothing", netip.Addr{}), hint.NotFound)
}

func TestExposeAndHide(t *testing.T) {
	b := newBench(t)
	leased, err := b.Expose(t.Context(), api.ExposeRequest{CIDR: "10.32.0.9/24"})
	if err != nil || len(leased) != 1 || leased[0].IP != netip.MustParsePrefix("10.32.0.9/24") {
		t.Fatalf("%v, %v", leased, err)
	}
	if want := []netip.Prefix{leased[0].IP}; !slices.Equal(b.bridge.addrs, want) {
		t.Errorf("the bridge has %v, want %v", b.bridge.addrs, want)
	}
	if _, err := b.Hide(); err != nil || len(b.bridge.addrs) != 0 || len(b.Leases("weft:expose")) != 0 {
		t.Errorf("Hide: %v; the bridge has %v, leases %v", err, b.bridge.addrs, b.Leases("weft:expose"))
	}
	if _, err := b.Hide(); err != nil {
		t.Errorf("Hide twice: %v", err)
	}
}

// TestExposedPrefix: an address has the prefix length that was asked for last, also when the bridge gets it again, until Hide.
func TestExposedPrefix(t *testing.T) {
	b := newBench(t)
	for _, cidr := range []string{"10.32.0.9", "10.32.0.9/28"} {
		if _, err := b.Expose(t.Context(), api.ExposeRequest{CIDR: cidr}); err != nil {
			t.Fatal(err)
		}
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.32.0.9/28")}
	expect := func(when string) {
		t.Helper()
		if !slices.Equal(b.bridge.addrs, want) {
			t.Errorf("%s the bridge has %v, want %v", when, b.bridge.addrs, want)
		}
		if l := b.Leases("weft:expose"); len(l) != 1 || l[0].IP != want[0] {
			t.Errorf("%s the leases are %v, want %v", when, l, want)
		}
	}
	expect("with another length")
	b.bridge.addrs = nil
	if _, err := b.Join(t.Context(), api.JoinRequest{Owner: "web"}); err != nil {
		t.Fatal(err)
	}
	expect("made anew,")
	if _, err := b.Hide(); err != nil {
		t.Fatal(err)
	}
	if whole := netip.MustParsePrefix("10.32.0.9/24"); b.exposure.Prefix(whole) != whole {
		t.Error("Hide keeps the length")
	}
}

// TestGatewayOfTheWholeRange: pods get a gateway that they reach and that reaches them, also beside an exposed address of a smaller subnet.
func TestGatewayOfTheWholeRange(t *testing.T) {
	b := newBench(t)
	if _, err := b.Expose(t.Context(), api.ExposeRequest{CIDR: "10.32.0.65/28"}); err != nil {
		t.Fatal(err)
	}
	join := func(owner, ip string) netip.Addr {
		t.Helper()
		j, err := b.Join(t.Context(), api.JoinRequest{Owner: owner, IPs: []string{ip}})
		if err != nil || len(j.Addresses) != 1 {
			t.Fatalf("%+v, %v", j, err)
		}
		return j.Addresses[0].Gateway
	}
	if got := join("near", "10.32.0.70/28"); got != netip.MustParseAddr("10.32.0.65") || len(b.bridge.addrs) != 1 {
		t.Errorf("a pod in the subnet has the gateway %s; the bridge has %v", got, b.bridge.addrs)
	}
	if got := join("apart", "10.32.0.100/28"); got.IsValid() || len(b.bridge.addrs) != 1 {
		t.Errorf("a pod in another subnet has the gateway %s; the bridge has %v", got, b.bridge.addrs)
	}
	first := join("web", api.Auto)
	if again := join("mail", api.Auto); again != first || !first.IsValid() || first == netip.MustParseAddr("10.32.0.65") {
		t.Errorf("pods in the whole range have the gateways %s and %s", first, again)
	}
	if want := netip.PrefixFrom(first, 24); len(b.bridge.addrs) != 2 || !slices.Contains(b.bridge.addrs, want) {
		t.Errorf("the bridge has %v, want also %s", b.bridge.addrs, want)
	}
	if n := len(b.Leases("weft:expose")); n != 2 {
		t.Errorf("%d leases of the bridge, want 2", n)
	}
	if _, err := b.Hide(); err != nil || len(b.bridge.addrs) > 0 || len(b.Leases("weft:expose")) > 0 {
		t.Errorf("Hide: %v; the bridge has %v", err, b.bridge.addrs)
	}
}

// TestInward: a mode that cannot be put in force is not kept, off can always be stored, and Hide ends it.
func TestInward(t *testing.T) {
	b := newBench(t)
	set := func(mode api.InwardMode) error {
		_, err := b.Expose(t.Context(), api.ExposeRequest{Inward: mode})
		return err
	}
	for _, mode := range []api.InwardMode{api.InwardKeep, "", api.InwardOff, api.InwardNAT} {
		before := b.exposure.Inward()
		if err := set(mode); err != nil {
			t.Fatal(err)
		}
		if got := b.exposure.Inward(); got != mode && (mode != "" || got != before) {
			t.Errorf("%q became %q", mode, got)
		}
	}
	if len(b.bridge.addrs) > 0 {
		t.Errorf("a mode alone exposes %v", b.bridge.addrs)
	}
	wantKind(t, "an unknown mode", set("always"), hint.Invalid)
	b.bridge.inwardErr = errors.New("no nft")
	if err := set(api.InwardKeep); err == nil || b.exposure.Inward() != api.InwardNAT {
		t.Errorf("a mode that fails: %v, and the mode is %q", err, b.exposure.Inward())
	}
	if err := set(api.InwardOff); err == nil || b.exposure.Inward() != api.InwardOff {
		t.Errorf("off: %v, and the mode is %q", err, b.exposure.Inward())
	}
	b.bridge.inwardErr = nil
	if err := set(api.InwardKeep); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Hide(); err != nil || b.exposure.Inward() != api.InwardOff {
		t.Errorf("Hide: %v, and the mode is %q", err, b.exposure.Inward())
	}
}

// TestChangeAddresses: single addresses are added to an attachment and removed from it, with lease, guard and name; the others stay.
func TestChangeAddresses(t *testing.T) {
	b := newGuardedBench(t, api.GuardPods)
	const owner = "netns:/run/netns/p/eth0"
	request := func(add, remove []string) error {
		_, err := b.Attach(t.Context(), api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", AddIPs: add, RemoveIPs: remove})
		return err
	}
	wantKind(t, "a change of nothing", request([]string{"10.32.0.50"}, nil), hint.NotFound)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "web", IPs: []string{"10.32.0.40", "10.32.0.41/28"}}
	if _, err := b.Attach(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		add, remove []string
		want        []string // on the interface
	}{
		{[]string{"10.32.0.50"}, nil, []string{"10.32.0.40/24", "10.32.0.41/28", "10.32.0.50/24"}},
		{[]string{"10.32.0.50"}, nil, []string{"10.32.0.40/24", "10.32.0.41/28", "10.32.0.50/24"}}, // again
		{[]string{"10.32.0.50/28"}, nil, []string{"10.32.0.40/24", "10.32.0.41/28", "10.32.0.50/28"}},
		{nil, []string{"10.32.0.41"}, []string{"10.32.0.40/24", "10.32.0.50/28"}},
		{nil, []string{"10.32.0.41"}, []string{"10.32.0.40/24", "10.32.0.50/28"}}, // again
		{[]string{"10.32.0.60"}, []string{"10.32.0.40"}, []string{"10.32.0.50/28", "10.32.0.60/24"}},
	} {
		if err := request(step.add, step.remove); err != nil {
			t.Fatal(err)
		}
		have, mac, err := b.links.Addresses("/run/netns/p", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		var got, addrs, leased []string
		for _, p := range have {
			got, addrs = append(got, p.String()), append(addrs, p.Addr().String())
		}
		for _, l := range b.Leases(owner) {
			leased = append(leased, l.IP.Addr().String())
		}
		entry := b.guards.entries[holder.Parse(owner).AttachLink()]
		var guarded, named []string
		for _, a := range entry.Addrs {
			guarded = append(guarded, a.String())
		}
		for _, a := range b.names.addrs["web"] {
			named = append(named, a.String())
		}
		for _, list := range [][]string{got, addrs, leased, guarded, named} {
			slices.Sort(list)
		}
		if !slices.Equal(got, step.want) || !slices.Equal(leased, addrs) || !slices.Equal(guarded, addrs) || !slices.Equal(named, addrs) {
			t.Errorf("after +%v -%v: has %v, leases %v, guard %v, name %v; want %v", step.add, step.remove, got, leased, guarded, named, step.want)
		}
		// Its MAC is that of one of its addresses, so that no other pod gets it.
		if entry.MAC != mac || !slices.ContainsFunc(have, func(p netip.Prefix) bool { return ether.FromIP(p.Addr()) == mac }) {
			t.Errorf("after +%v -%v: MAC %s, guard %s", step.add, step.remove, mac, entry.MAC)
		}
	}
	wantKind(t, "a removal of all", request(nil, []string{"10.32.0.50", "10.32.0.60"}), hint.Refused)
	wantKind(t, "an address outside", request([]string{"192.0.2.1"}, nil), hint.Invalid)
	in.AddIPs = []string{"10.32.0.70"}
	_, err := b.Attach(t.Context(), in)
	wantKind(t, "all and a change", err, hint.Invalid)
	if _, err := b.Allocate(t.Context(), api.AddressRequest{Owner: "other", IP: netip.MustParseAddr("10.32.0.80")}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "an address of another", request([]string{"10.32.0.80"}, nil), hint.Refused)
	if n := len(b.Leases(owner)); n != 2 {
		t.Errorf("after refusals %d leases, want 2", n)
	}
}

// TestAttachUndoesWhatItDid: a failure at the last step, the name, removes link and lease.
func TestAttachUndoesWhatItDid(t *testing.T) {
	b := newBench(t)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "bad"}
	_, err := b.Attach(t.Context(), in)
	wantKind(t, "a name that cannot be added", err, hint.Exhausted)
	if links := b.links.HostLinks(); len(links) != 0 || len(b.Leases("netns:/run/netns/p/eth0")) != 0 {
		t.Errorf("left links %v, leases %v", links, b.Leases(""))
	}
	in.Hostname = "web"
	a, err := b.Attach(t.Context(), in)
	if err != nil || a.Owner != "netns:/run/netns/p/eth0" || len(b.links.HostLinks()) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if again, err := b.Attach(t.Context(), in); err != nil || again.Addresses[0] != a.Addresses[0] {
		t.Errorf("attached twice: %+v, %v", again, err)
	}
	in.Hostname = "!"
	_, err = b.Attach(t.Context(), in)
	wantKind(t, "text that is not a name", err, hint.Invalid)
	if err := b.Detach(t.Context(), in); err != nil || len(b.links.HostLinks()) != 0 || len(b.names.names) != 0 {
		t.Errorf("Detach: %v; left %v, %v", err, b.links.HostLinks(), b.names.names)
	}
}

// TestAttachAgain: attaching what is attached adopts other addresses and names, changes nothing without a reason, and leaves nothing where
// it is refused.
func TestAttachAgain(t *testing.T) {
	b := newBench(t)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "web"}
	first, err := b.Attach(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	in.IPs = []string{"10.32.0.77", "10.32.0.78"}
	moved, err := b.Attach(t.Context(), in)
	if err != nil || len(moved.Addresses) != 2 || moved.Addresses[0].Address.String() != "10.32.0.77/24" {
		t.Fatalf("attached with other addresses: %+v, %v", moved, err)
	}
	in.IPs = nil
	if again, err := b.Attach(t.Context(), in); err != nil || len(again.Addresses) != 2 {
		t.Errorf("attached again without addresses: %+v, %v, want both", again, err)
	}
	held := func() (addrs []string) {
		for _, l := range b.Leases(first.Owner) {
			addrs = append(addrs, l.IP.Addr().String())
		}
		return addrs
	}
	want := []string{"10.32.0.77", "10.32.0.78"}
	if got := held(); !slices.Equal(got, want) {
		t.Errorf("leases %v, want %v: those of before have ended", got, want)
	}
	if got := b.names.addrs["web"]; len(got) != 2 || slices.Contains(got, first.Addresses[0].Address.Addr()) {
		t.Errorf("the name has %v", got)
	}
	if _, err := b.Allocate(t.Context(), api.AddressRequest{Owner: "other", IP: netip.MustParseAddr("10.32.0.99")}); err != nil {
		t.Fatal(err)
	}
	in.IPs = []string{"10.32.0.88", "10.32.0.99"}
	_, err = b.Attach(t.Context(), in)
	wantKind(t, "an address of another owner", err, hint.Refused)
	b.links.Fail(linktest.OpAdopt, errors.New("netlink fails"))
	in.IPs = []string{"10.32.0.88"}
	if _, err = b.Attach(t.Context(), in); err == nil {
		t.Error("a failure of the kernel is success")
	}
	b.links.Fail(linktest.OpAdopt, nil)
	if got := held(); !slices.Equal(got, want) {
		t.Errorf("leases %v after refused requests, want %v", got, want)
	}
	in.IPs, in.Hostname = nil, "shop"
	if _, err := b.Attach(t.Context(), in); err != nil || len(b.names.names) != 1 || len(b.names.addrs["shop"]) != 2 {
		t.Errorf("renamed: %v, names %v", err, b.names.addrs)
	}
	in.Hostname = "Shop"
	if _, err := b.Attach(t.Context(), in); err != nil || len(b.names.names) != 1 || len(b.names.addrs["shop"]) != 2 {
		t.Errorf("the same name in capitals: %v, names %v", err, b.names.addrs)
	}
}

// TestFailedAttachAgainLeavesEverything: a failure after the pair has changed gives the pod its addresses and MAC back. Where that fails,
// too, an address that the pod still has stays leased to it.
func TestFailedAttachAgainLeavesEverything(t *testing.T) {
	b := newBench(t)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", IPs: []string{"10.32.0.77"}}
	first, err := b.Attach(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	in.IPs, in.Hostname = []string{"10.32.0.88"}, "bad"
	_, err = b.Attach(t.Context(), in)
	wantKind(t, "a name that cannot be added", err, hint.Exhausted)
	have, mac, err := b.links.Addresses(in.Netns, in.Ifname)
	if err != nil || len(have) != 1 || have[0] != first.Addresses[0].Address || mac != first.Addresses[0].MAC {
		t.Errorf("the pod has %v and %s, %v, want %+v", have, mac, err, first.Addresses)
	}
	if left := b.Leases(first.Owner); len(left) != 1 || left[0].IP.Addr() != have[0].Addr() {
		t.Errorf("leases %v", left)
	}
	b.names.onBad = func() { b.links.Fail(linktest.OpAdopt, errors.New("netlink fails")) }
	if _, err = b.Attach(t.Context(), in); err == nil {
		t.Error("a name that cannot be added is success")
	}
	if left := b.Leases(first.Owner); len(left) != 2 {
		t.Errorf("leases %v, want also the one that the pod uses", left)
	}
}

// TestAttachAgainKeepsWhatWasRequested: a request without addresses changes neither the order nor the MAC nor the prefix length of those of
// before, and the guard has all of them at any time.
func TestAttachAgainKeepsWhatWasRequested(t *testing.T) {
	b := newGuardedBench(t, api.GuardPods)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", IPs: []string{"10.32.0.77/25", "10.32.0.50/25"}}
	first, err := b.Attach(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	have, mac, _ := b.links.Addresses(in.Netns, in.Ifname)
	b.guards.set = nil
	in.IPs = nil
	b.links.Fail(linktest.OpAdopt, errors.New("something has changed"))
	if _, err := b.Attach(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if again, same, err := b.links.Addresses(in.Netns, in.Ifname); err != nil || !slices.Equal(again, have) || same != mac {
		t.Errorf("the pod has %v and %s, %v, want %v and %s", again, same, err, have, mac)
	}
	for _, e := range b.guards.set {
		if len(e.Addrs) != len(first.Addresses) || e.MAC != mac {
			t.Errorf("bound to %v and %s in between", e.Addrs, e.MAC)
		}
	}
}

// TestAttachAgainKeepsOtherAddresses: an address of the overlay that a pod has given itself stays, as long as the pod has a lease of its
// own in that range; without one it may be the address of a lost lease, and goes.
func TestAttachAgainKeepsOtherAddresses(t *testing.T) {
	b := newBench(t)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0"}
	first, err := b.Attach(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	shared := netip.MustParsePrefix("10.32.0.200/32")
	spec := b.links.Attached()[0]
	spec.Addresses = append(spec.Addresses, podlink.Address{Prefix: shared})
	if err := b.links.Adopt(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	has := func(p netip.Prefix) bool {
		have, _, err := b.links.Addresses(in.Netns, in.Ifname)
		return err == nil && slices.Contains(have, p)
	}
	if _, err := b.Attach(t.Context(), in); err != nil || !has(shared) || !has(first.Addresses[0].Address) {
		t.Errorf("attached again: %v, %s: %t", err, shared, has(shared))
	}
	if err := b.ipam.Release(first.Owner, netip.Addr{}); err != nil { // as with ipam.db
		t.Fatal(err)
	}
	if _, err := b.Attach(t.Context(), in); err != nil || has(shared) {
		t.Errorf("attached without a lease: %v, %s: %t", err, shared, has(shared))
	}
}

// TestBridgeAddressesWithoutALeaseAreHeld: after ipam.db was lost the bridge keeps its address, and no pod gets it.
func TestBridgeAddressesWithoutALeaseAreHeld(t *testing.T) {
	first := netip.MustParsePrefix("10.32.0.1/24")
	b := newBench(t, first)
	for range 253 { // all but the bridge's own
		if _, err := b.ipam.Allocate(t.Context(), "pod", netip.MustParsePrefix("10.32.0.0/24")); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range b.Leases("pod") {
		if l.IP.Addr() == first.Addr() {
			t.Errorf("%s, an address of the bridge, was leased to a pod", l.IP)
		}
	}
}

func TestFailedScanIsReported(t *testing.T) {
	b := newBench(t)
	b.bridge.err = errors.New("netlink fails")
	_ = b.HideAlways() // which looks for orphans again
	found := b.Findings()
	if len(found) != 1 || found[0].Code != health.PodScanFailed || found[0].Remedy == "" {
		t.Errorf("%+v, want %s", found, health.PodScanFailed)
	}
}
