package daemon

import (
	"slices"
	"strings"
	"testing"

	"weft/cni"
	"weft/internal/podlink"
	"weft/ipam"
)

func TestOrphansAmong(t *testing.T) {
	attached, container := attachPrefix+"/run/netns/p/eth0", cni.HolderOf("weft", "abc", "eth0")
	lostContainer := cni.HolderOf("weft", "def", "eth0")
	nameOf := func(owner string) string { name, _ := hostLinkOf(owner); return name }
	ports := []podlink.Port{
		{Name: nameOf(attached)},
		{Name: nameOf(container)},
		{Name: hostLink("web")}, // of "weft attach --owner web"
		{Name: nameOf(lostContainer)},
		{Name: "vweftheld"},
		{Name: "vweftforeign", Delegated: true},
	}
	there := func(name string) bool {
		return slices.ContainsFunc(ports, func(p podlink.Port) bool { return p.Name == name }) || name == "vweftonnobridge"
	}
	cases := []struct {
		name          string
		owners        []string
		orphans, gone []string
	}{
		{"all known", []string{attached, container, "web", lostContainer, orphanPrefix + "vweftheld"}, []string{"vweftheld", "vweftforeign"}, nil},
		{"nothing known", nil, []string{nameOf(attached), nameOf(container), hostLink("web"), nameOf(lostContainer), "vweftheld", "vweftforeign"}, nil},
		{
			"some lost", []string{attached, attached, container, "web", exposeOwner, "somebody"},
			[]string{nameOf(lostContainer), "vweftheld", "vweftforeign"}, nil,
		},
		{
			"some gone", []string{
				attached, container, "web", lostContainer,
				orphanPrefix + "vweftgone", orphanPrefix + "vweftgone", orphanPrefix + "vweftonnobridge", orphanPrefix + "vweftheld",
			},
			[]string{"vweftheld", "vweftforeign"},
			[]string{"vweftgone"},
		},
		{"one that has its lease again", []string{attached, container, "web", lostContainer, orphanPrefix + nameOf(attached)}, []string{"vweftheld", "vweftforeign"}, nil},
		// A pod whose ADD is under way has a lease and no pair yet, one whose DEL is has a lease and no pair any more.
		{"coming and going", []string{attached, container, "web", lostContainer, cni.HolderOf("weft", "new", "eth0")}, []string{"vweftheld", "vweftforeign"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var leases []ipam.Lease
			for _, owner := range c.owners {
				leases = append(leases, ipam.Lease{Holder: owner})
			}
			orphans, gone := orphansAmong(ports, leases, there)
			var names []string
			for _, p := range orphans {
				names = append(names, p.Name)
			}
			if !slices.Equal(names, c.orphans) || !slices.Equal(gone, c.gone) {
				t.Errorf("orphans %v, gone %v, want %v, %v", names, gone, c.orphans, c.gone)
			}
		})
	}
}

func TestOrphansAreNobodysToNameOrRelease(t *testing.T) {
	if err := checkOwner(orphanPrefix + "vweftx"); err == nil || strings.Contains(err.Error(), "expose") {
		t.Errorf("%v, want a refusal of its own", err)
	}
	if name, ok := hostLinkOf(orphanPrefix + "vweftx"); ok {
		t.Errorf("the garbage of attachments looks after it as %s", name)
	}
	if _, _, _, ok := cni.ParseHolder(orphanPrefix + "vweftx"); ok {
		t.Error("CNI's GC would take it for a container's")
	}
}
