package leases_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
)

// TestAttachGuard: a pair is bound or open before it exists, as requested, else as the node does.
func TestAttachGuard(t *testing.T) {
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0"}
	for _, c := range []struct {
		node, requested api.GuardMode
		want            api.GuardMode // empty: no entry
	}{
		{api.GuardHost, "", ""},
		{api.GuardHost, api.GuardPods, api.GuardPods},
		{api.GuardHost, api.GuardOff, api.GuardOff},
		{api.GuardPods, "", api.GuardPods},
		{api.GuardPods, api.GuardOff, api.GuardOff},
		{api.GuardPods, api.GuardHost, api.GuardHost},
		{api.GuardOff, "", ""},
	} {
		b := newGuardedBench(t, c.node)
		request := in
		request.Guard = c.requested
		a, err := b.Attach(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		e, known := b.guards.entries[a.HostLink]
		if known != (c.want != "") || e.Mode != c.want {
			t.Errorf("%+v: entry %+v, known %t", c, e, known)
		}
		if !known {
			continue
		}
		ip := a.Addresses[0].Address.Addr()
		if e.MAC != ether.FromIP(ip) || !slices.Equal(e.Addrs, []netip.Addr{ip}) || e.Owner != a.Owner {
			t.Errorf("%+v: entry %+v, want the addresses of %+v", c, e, a)
		}
		if !slices.Equal(b.guards.early, []string{a.HostLink}) {
			t.Errorf("%+v: ports without an interface at that time: %v", c, b.guards.early)
		}
		if err := b.Detach(t.Context(), in); err != nil || len(b.guards.entries) > 0 {
			t.Errorf("%+v: Detach: %v, left %v", c, err, b.guards.entries)
		}
	}
}

// TestAttachGuardFails: a pod that cannot be guarded is not attached, and keeps no address.
func TestAttachGuardFails(t *testing.T) {
	b := newGuardedBench(t, api.GuardPods)
	b.guards.err = hint.New(hint.Refused, "Install nftables.", "no nft")
	_, err := b.Attach(t.Context(), api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0"})
	wantKind(t, "Attach", err, hint.Refused)
	if links := b.links.HostLinks(); len(links) > 0 {
		t.Errorf("links %v", links)
	}
	for _, l := range b.Leases("") {
		if l.Owner != holder.ForHost().String() {
			t.Errorf("lease left behind: %+v", l)
		}
	}
}

// TestGuardRequest: containers are bound before their interface exists, and changed by their owner alone afterwards.
func TestGuardRequest(t *testing.T) {
	b := newGuardedBench(t, api.GuardPods)
	owner := holder.ForContainer("weft", "c", "eth0")
	link, _ := owner.HostLink()
	ip := netip.MustParseAddr("10.32.0.7")
	request := api.GuardRequest{Owner: owner.String(), MAC: ether.FromIP(ip), IPs: []netip.Addr{ip}}
	wantKind(t, "an update of nothing", b.Guard(t.Context(), api.GuardRequest{Owner: owner.String()}), hint.NotFound)
	wantKind(t, "no attachment", b.Guard(t.Context(), api.GuardRequest{Owner: "web", MAC: request.MAC}), hint.Invalid)
	wantKind(t, "a reserved owner", b.Guard(t.Context(), api.GuardRequest{Owner: "weft:expose", MAC: request.MAC}), hint.Invalid)
	if err := b.Guard(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if e := b.guards.entries[link]; e.Mode != api.GuardPods || e.MAC != request.MAC || !slices.Equal(e.Addrs, request.IPs) {
		t.Errorf("after Guard: %+v", e)
	}
	vip := netip.MustParsePrefix("10.32.0.100/32")
	if err := b.Guard(t.Context(), api.GuardRequest{Owner: owner.String(), Guard: api.GuardOff, Allow: []netip.Prefix{vip}}); err != nil {
		t.Fatal(err)
	}
	if e := b.guards.entries[link]; e.Mode != api.GuardOff || !slices.Equal(e.Allow, []netip.Prefix{vip}) || e.MAC != request.MAC {
		t.Errorf("after the update: %+v", e)
	}
	for range 2 {
		if err := b.Unguard(t.Context(), owner.String()); err != nil || len(b.guards.entries) > 0 {
			t.Errorf("Unguard: %v, left %v", err, b.guards.entries)
		}
	}
	b.guards.err = errors.New("no nft")
	if err := b.Guard(t.Context(), request); !errors.Is(err, b.guards.err) {
		t.Errorf("Guard = %v", err)
	}
	b.guards.err = nil
	if err := b.Guard(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	_ = b.Release(owner.String(), netip.Addr{}) // as DEL does
	if _, left := b.guards.entries[link]; left {
		t.Errorf("after DEL: %v", b.guards.entries)
	}
}
