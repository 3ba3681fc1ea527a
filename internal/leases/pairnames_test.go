package leases_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/leases"
	"weft/internal/leases/holder"
)

// TestNamesFollowPairs: names end while the pair of their holder is gone. Holders that never had a pair keep theirs.
func TestNamesFollowPairs(t *testing.T) {
	container, namespace := holder.ForContainer("weft", "abc", "eth0"), holder.ForNamespace("/run/netns/p", "eth0")
	process, docker := holder.ForNamespace("/proc/7/ns/net", "eth0"), holder.ForDocker(ether.Addr{2, 5: 1})
	named, without := holder.Parse("vm1"), holder.Parse("vm2")
	withdrawn := map[holder.Holder]bool{}
	links := map[string]bool{named.AttachLink(): true}
	for _, h := range []holder.Holder{container, namespace, process, docker} {
		link, _ := h.HostLink()
		links[link] = true
	}
	look := leases.NewPairNames()
	want := func(what string, gone, back []holder.Holder) {
		t.Helper()
		var held []leases.HeldName
		for _, h := range []holder.Holder{container, namespace, process, docker, named, without} {
			for _, name := range []string{"one", "two"} {
				held = append(held, leases.HeldName{Name: name, Holder: h, Withdrawn: withdrawn[h]})
			}
		}
		gotGone, gotBack := look(held, func(name string) bool { return links[name] })
		if !slices.Equal(gotGone, gone) || !slices.Equal(gotBack, back) {
			t.Errorf("%s: gone %v, back %v; want %v and %v", what, gotGone, gotBack, gone, back)
		}
		for _, h := range gone {
			withdrawn[h] = true
		}
		for _, h := range back {
			delete(withdrawn, h)
		}
	}
	want("all there", nil, nil)
	present := links
	links = map[string]bool{container.AttachLink(): true} // of the container, made by "weft attach"
	want("all but one gone", []holder.Holder{namespace, process, docker, named}, nil)
	want("still", nil, nil)
	links = present
	want("back", nil, []holder.Holder{namespace, process, docker, named})
	links = nil
	look = leases.NewPairNames() // a restart
	want("gone while the daemon was away", []holder.Holder{container, namespace, process, docker}, nil)
}

// TestNamesComeBack: a namespace that is attached again has the names that were withdrawn, unless it is given another one. One that is
// detached leaves none.
func TestNamesComeBack(t *testing.T) {
	b := newBench(t)
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "web"}
	attach := func(want ...string) netip.Addr {
		t.Helper()
		a, err := b.Attach(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Names, want) || b.names.withdrawn["web"] {
			t.Errorf("names %v, want %v; withdrawn: %v", a.Names, want, b.names.withdrawn)
		}
		return a.Addresses[0].Address.Addr()
	}
	vanish := func() {
		t.Helper()
		h := holder.ForNamespace(in.Netns, in.Ifname)
		if err := b.links.Detach(t.Context(), "", "", h.AttachLink()); err != nil {
			t.Fatal(err)
		}
		leases.FollowPairs(b.Manager, func(string) bool { return false })
		if !b.names.withdrawn["web"] && b.names.names["web"] == h {
			t.Errorf("the name of a namespace that is gone is answered")
		}
	}
	addr := attach("web")
	vanish()
	in.Hostname = ""
	if again := attach("web"); again != addr {
		t.Errorf("attached again: %s, want %s", again, addr)
	}
	vanish()
	in.Hostname = "db"
	attach("db")
	vanish()
	if err := b.Detach(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if len(b.names.names) != 0 {
		t.Errorf("names after detach: %v", b.names.names)
	}
}
