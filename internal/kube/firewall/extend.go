package firewall

import (
	"slices"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// extends reports whether a change can be made by extend: it lists what it changes, and the base chains stay as they are.
func (t *table) extends(c policy.Change) bool {
	return c.Extension != nil && t.links.hooked() == (len(c.Rules.Links) > 0)
}

// extend changes the table by what an extension lists, which takes less time than a new table and a comparison with it, and returns the
// transaction that does the same to the tables of the kernel. No chain, set or number of a chain is removed.
func (n *NFT) extend(t *table, c policy.Change) *transaction {
	tx := &transaction{Transaction: n.nft.NewTransaction()}
	r, x := c.Rules, c.Extension
	pods, ports := t.pods, t.ports
	inet, bridge := batch{tx, knftables.InetFamily}, batch{tx, knftables.BridgeFamily}
	t.fresh, t.links.fresh, t.pods, t.ports = nil, nil, r.Pods, r.Links
	for _, name := range x.Sets {
		for _, f := range families {
			t.sets[f.set(name)] = set{addr: f.addr, interval: r.Sets[name].Blocks}
			inet.addSet(f.set(name), t.sets[f.set(name)])
		}
	}
	inet.changeSets(t, c.Sets)

	var gone, now []entry
	for _, ip := range x.Pods {
		for _, f := range families {
			if !f.of(ip) {
				continue
			}
			if chains, had := pods[ip]; had {
				gone = append(gone, f.podEntries(ip, chains)...)
			}
			if chains, has := r.Pods[ip]; has {
				t.addPod(r, f, chains)
				now = append(now, f.podEntries(ip, chains)...)
			}
		}
	}
	var goneLinks, nowLinks []entry
	for _, name := range x.Links {
		if link, had := ports[name]; had {
			goneLinks = append(goneLinks, t.links.entries(name, link, t.numbers)...)
		}
		if link, has := r.Links[name]; has {
			for _, d := range directions {
				if chain := link.Chains.In(d); chain != "" && t.numbers[d][chain] == 0 {
					number([]string{chain}, t.numbers[d], fieldOf(d).highest)
				}
			}
			now = append(now, t.markEntries(link)...)
			nowLinks = append(nowLinks, t.links.entries(name, link, t.numbers)...)
		}
	}
	inet.addChains(t.chains, t.fresh)
	inet.replace(t.elements, gone, now)
	for _, f := range families {
		bridge.changeSet(f, f.everyPod(), false, c.Addrs)
	}
	bridge.addChains(t.links.chains, t.links.fresh)
	bridge.replace(t.links.elements, goneLinks, nowLinks)
	return tx
}

// replace changes the elements of sets and maps: those in gone that are not in now are removed, and those in now that are missing are
// added.
func (b batch) replace(sets map[string]elements, gone, now []entry) {
	removed, added := map[string][]element{}, map[string][]element{}
	for _, e := range gone {
		if _, there := sets[e.set][e.key]; there && !slices.Contains(now, e) {
			delete(sets[e.set], e.key)
			removed[e.set] = append(removed[e.set], e.element)
		}
	}
	for _, e := range now {
		if _, there := sets[e.set][e.key]; !there {
			sets[e.set][e.key] = e.verdict
			added[e.set] = append(added[e.set], e.element)
		}
	}
	for _, name := range sortedKeys(sets) {
		b.change(name, false, removed[name], true)
		b.change(name, false, added[name], false)
	}
}
