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

// ours reports whether a network of Docker belongs to this plugin.
func (p *Plugin) ours(networkID string) bool {
	_, ok := p.state.network(networkID)
	return ok
}

// presentNames returns the names that the daemon of this node has for containers, by owner and name.
func (p *Plugin) presentNames(ctx context.Context, self peer.ID) (map[string]map[string][]netip.Addr, error) {
	present, err := p.cfg.Daemon.Names(ctx, "", netip.Addr{})
	if err != nil {
		return nil, err
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
	return have, nil
}

// syncNames gives the addresses of running containers their names. If the list of containers is complete, it takes away the names that none
// of them has.
func (p *Plugin) syncNames(ctx context.Context, containers []dockerapi.Container, complete bool, self peer.ID) error {
	have, err := p.presentNames(ctx, self)
	if err != nil {
		return err
	}
	wanted := wantedNames(containers, p.ours)
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
	if !complete {
		return errors.Join(errs...)
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
