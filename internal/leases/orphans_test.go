package leases

import (
	"slices"
	"testing"

	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

func TestOrphansAmong(t *testing.T) {
	attached, container := holder.ForNamespace("/run/netns/p", "eth0"), holder.ForContainer("weft", "abc", "eth0")
	lostContainer, web := holder.ForContainer("weft", "def", "eth0"), holder.Parse("web")
	nameOf := func(h holder.Holder) string { name, _ := h.HostLink(); return name }
	orphan := holder.ForOrphan
	ports := []podlink.Port{
		{Name: nameOf(attached)},
		{Name: nameOf(container)},
		{Name: web.AttachLink()}, // of "weft attach --owner web"
		{Name: nameOf(lostContainer)},
		{Name: "vweftheld"},
		{Name: "vweftforeign", Delegated: true},
	}
	there := func(name string) bool {
		return slices.ContainsFunc(ports, func(p podlink.Port) bool { return p.Name == name }) || name == "vweftonnobridge"
	}
	cases := []struct {
		name          string
		holders       []holder.Holder
		orphans, gone []string
	}{
		{"all known", []holder.Holder{attached, container, web, lostContainer, orphan("vweftheld")}, []string{"vweftheld", "vweftforeign"}, nil},
		{"nothing known", nil, []string{nameOf(attached), nameOf(container), web.AttachLink(), nameOf(lostContainer), "vweftheld",
			"vweftforeign"}, nil},
		{
			"some lost", []holder.Holder{attached, attached, container, web, holder.ForHost(), holder.Parse("db")},
			[]string{nameOf(lostContainer), "vweftheld", "vweftforeign"}, nil,
		},
		{
			"some gone", []holder.Holder{
				attached, container, web, lostContainer,
				orphan("vweftgone"), orphan("vweftgone"), orphan("vweftonnobridge"), orphan("vweftheld"),
			},
			[]string{"vweftheld", "vweftforeign"},
			[]string{"vweftgone"},
		},
		{"its lease is known again", []holder.Holder{attached, container, web, lostContainer, orphan(nameOf(attached))},
			[]string{"vweftheld", "vweftforeign"}, nil},
		// During an ADD a pod has a lease and no pair yet, during a DEL it has a lease and no pair any more.
		{"starting and stopping", []holder.Holder{attached, container, web, lostContainer, holder.ForContainer("weft", "new", "eth0")},
			[]string{"vweftheld", "vweftforeign"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var leases []ipam.Lease
			for _, h := range c.holders {
				leases = append(leases, ipam.Lease{Holder: h.String()})
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
