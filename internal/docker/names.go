package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/dnsname"
	"weft/internal/dockerapi"
	"weft/internal/leases/holder"
	"weft/internal/peer"
)

// wantedNames returns the names of the running containers, by owner and name.
func wantedNames(containers []dockerapi.Container, ours func(networkID string) bool) map[string]map[string][]netip.Addr {
	wanted := map[string]map[string][]netip.Addr{}
	for _, c := range containers {
		for _, e := range c.Endpoints {
			if !c.Running || e.MAC.IsZero() || len(e.Addrs) == 0 || !ours(e.NetworkID) {
				continue
			}
			names := map[string][]netip.Addr{}
			for _, name := range append([]string{c.Name, c.Service}, e.Aliases...) {
				if l := dnsname.Label(name); l != "" && !strings.HasPrefix(c.ID, name) { // Docker adds the beginning of the ID as an alias
					names[l] = e.Addrs
				}
			}
			wanted[holder.ForDocker(e.MAC).String()] = names
		}
	}
	return wanted
}

// syncNames gives the addresses of running containers their names, and takes away those that they have not any more.
func (p *Plugin) syncNames(ctx context.Context, containers []dockerapi.Container, self peer.ID) error {
	wanted := wantedNames(containers, func(id string) bool { _, ok := p.state.network(id); return ok })
	present, err := p.cfg.Daemon.Names(ctx, "", netip.Addr{})
	if err != nil {
		return err
	}
	have := map[string]map[string][]netip.Addr{}
	for _, n := range present {
		if n.Node == self && holder.Parse(n.Owner).Kind == holder.Docker {
			if have[n.Owner] == nil {
				have[n.Owner] = map[string][]netip.Addr{}
			}
			have[n.Owner][n.Name] = append(have[n.Owner][n.Name], n.IP)
		}
	}
	var errs []error
	for owner, names := range wanted {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			missing := slices.DeleteFunc(slices.Clone(names[name]), func(a netip.Addr) bool { return slices.Contains(have[owner][name], a) })
			if len(missing) == 0 {
				continue
			}
			if err := p.cfg.Daemon.AddName(ctx, api.NameRequest{Name: name, IPs: missing, Owner: owner}); err != nil {
				errs = append(errs, fmt.Errorf("the name %s: %w", name, err))
			}
		}
	}
	for owner, names := range have {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if _, stays := wanted[owner][name]; !stays {
				errs = append(errs, ignoreNotFound(p.cfg.Daemon.RemoveName(ctx, api.NameRequest{Name: name, IPs: names[name], Owner: owner})))
			}
		}
	}
	return errors.Join(errs...)
}
