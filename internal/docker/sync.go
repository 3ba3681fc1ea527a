package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/dockerapi"
	"weft/internal/hint"
	"weft/internal/leases/holder"
)

// Run follows the engine until ctx ends: it publishes names of containers and networks, ends what is left of those that are gone, and
// starts containers that could not start while weft was away.
func (p *Plugin) Run(ctx context.Context) {
	if p.cfg.Engine == nil {
		return
	}
	go p.watch(ctx)
	tick := time.NewTicker(syncPeriod)
	defer tick.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed.C():
		case <-tick.C:
		}
		err := p.sync(ctx)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != logged && ctx.Err() == nil {
			logged = text
			if err != nil {
				p.log.Warn("cannot compare with Docker, trying again", "err", err)
			} else {
				p.log.Info("compared with Docker")
			}
		}
		pause := syncPause
		if err != nil {
			p.changed.Set()
			pause = enginePause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// watch sets changed after each event of the engine.
func (p *Plugin) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.cfg.Engine.Watch(ctx, p.changed.Set)
		p.log.Debug("no events from Docker", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(enginePause):
		}
	}
}

// sync compares the engine with this plugin and with the daemon once.
func (p *Plugin) sync(ctx context.Context) error {
	networks, err := p.networks(ctx)
	if err != nil {
		return err
	}
	status, err := p.cfg.Daemon.Status(ctx)
	if err != nil {
		return err
	}
	if err := p.syncNetworks(ctx, networks); err != nil {
		return err
	}
	containers, err := p.containers(ctx, networks)
	if err != nil {
		return err
	}
	return errors.Join(
		p.syncNames(ctx, containers, status), p.endUnused(ctx), p.forgetEndpoints(ctx, containers), p.startFailed(ctx, containers))
}

// managedTag is what Docker adds to the name of a managed plugin.
const managedTag = ":latest"

// networks returns the engine's networks of this driver, under both names that it may have.
func (p *Plugin) networks(ctx context.Context) ([]dockerapi.Network, error) {
	list, err := p.cfg.Engine.Networks(ctx, p.cfg.Driver)
	if err != nil {
		return nil, err
	}
	managed, err := p.cfg.Engine.Networks(ctx, p.cfg.Driver+managedTag)
	return append(list, managed...), err
}

// containers returns the containers of networks, whether they run or not.
func (p *Plugin) containers(ctx context.Context, networks []dockerapi.Network) (list []dockerapi.Container, err error) {
	var ids []string
	for _, n := range networks {
		ids = append(ids, n.ID)
	}
	if ids, err = p.cfg.Engine.ContainersOn(ctx, ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		c, err := p.cfg.Engine.Container(ctx, id)
		if errors.Is(err, dockerapi.ErrNotFound) {
			continue // it was removed meanwhile
		} else if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// newNetwork is how old a network may be that the engine does not list yet: it lists one after it has been created.
const newNetwork = 30 * time.Second

// syncNetworks publishes the networks of this host, so that other nodes know their names and subnets, and forgets those that are gone.
func (p *Plugin) syncNetworks(ctx context.Context, list []dockerapi.Network) error {
	names := map[string]string{}
	for _, n := range list {
		names[n.ID] = n.Name
	}
	published, err := published(ctx, p.cfg.Daemon)
	if err != nil {
		return err
	}
	conflicts := map[string]error{}
	var errs []error
	for _, n := range p.state.networks() {
		name, exists := names[n.ID]
		switch {
		case !exists && time.Since(n.Created) > newNetwork:
			p.log.Info("forgot a network that Docker does not have any more", "network", n.ID)
			errs = append(errs, p.state.deleteNetwork(n.ID))
		case exists:
			if conflicts[n.ID] = conflict(name, n, published); conflicts[n.ID] == nil {
				errs = append(errs, p.publish(ctx, name, n, published))
			}
		}
	}
	p.known.set(names, conflicts)
	return errors.Join(errs...)
}

// knownNetworks is what the last comparison has found out about the networks of this host. The zero value is empty. Its methods may be
// called concurrently.
type knownNetworks struct {
	mu        sync.Mutex
	names     map[string]string // by ID
	conflicts map[string]error  // by ID; nil: none
}

func (k *knownNetworks) set(names map[string]string, conflicts map[string]error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names, k.conflicts = names, conflicts
}

// name returns the name of a network, or the beginning of its ID.
func (k *knownNetworks) name(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name, ok := k.names[id]; ok {
		return name
	}
	return fmt.Sprintf("%.12s", id)
}

// conflict returns whether a network disagrees with those of other nodes; not known before it has been compared.
func (k *knownNetworks) conflict(id string) (known bool, disagreement error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	disagreement, known = k.conflicts[id]
	return known, disagreement
}

// agreePatience is how long a new network waits to be compared with those of other nodes.
const agreePatience = 2 * time.Second

// agreed returns an error if a network disagrees with those of other nodes.
func (p *Plugin) agreed(ctx context.Context, n network) error {
	if p.cfg.Engine == nil {
		return nil
	}
	deadline := time.Now().Add(agreePatience)
	for {
		known, err := p.known.conflict(n.ID)
		if known || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(daemonPause):
		}
	}
}

// A network is published as a name for the gateway that this node reserves in its subnet: NETWORK.BITS.networks, as mynet.24.networks for
// 10.47.255.1 says that the network mynet has the subnet 10.47.255.0/24. The name ends with the lease of the gateway.
const networksLabel = "networks"

// publishedNetwork is a network of a node.
type publishedNetwork struct {
	name   string // as label converts it
	subnet netip.Prefix
	node   string
	own    bool // of this node
}

// published returns the networks of all nodes, also of those that are not alive.
func published(ctx context.Context, d Daemon) (list []publishedNetwork, err error) {
	s, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	names, err := d.Names(ctx, "", netip.Addr{})
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		labels := strings.Split(n.Name, ".")
		if len(labels) != 3 || labels[2] != networksLabel {
			continue
		}
		bits, err := strconv.Atoi(labels[1])
		if err != nil || bits < 0 || bits > n.IP.BitLen() {
			continue
		}
		list = append(list, publishedNetwork{
			name: labels[0], subnet: netip.PrefixFrom(n.IP, bits).Masked(), node: n.NodeName, own: n.Node == s.ID,
		})
	}
	return list, nil
}

// conflict returns how a network of this host disagrees with those of other nodes; nil where it does not, or where it was there first.
func conflict(name string, n network, published []publishedNetwork) error {
	own := label(name)
	for _, o := range published {
		if o.own && o.name == own && slices.Contains(n.Subnets, o.subnet) {
			return nil // published before: the others have to agree with it
		}
	}
	for _, o := range published {
		same := slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == o.subnet.Addr().Is4() })
		if o.own || !same {
			continue
		}
		fix := fmt.Sprintf("Remove it with \"docker network rm %s\", and create it with ", name)
		switch {
		case o.name == own && !slices.Contains(n.Subnets, o.subnet):
			return hint.New(hint.Refused, fix+"--subnet "+o.subnet.String()+".", "the network %s has the subnet %s here, and %s on node %s",
				name, join(n.Subnets), o.subnet, o.node)
		case o.name != own && overlap(n.Subnets, []netip.Prefix{o.subnet}):
			return hint.New(hint.Refused, fix+"another --subnet.", "the subnet %s of the network %s overlaps %s, which is the network %s on node %s",
				join(n.Subnets), name, o.subnet, o.name, o.node)
		}
	}
	return nil
}

// publish makes other nodes know a network.
func (p *Plugin) publish(ctx context.Context, name string, n network, published []publishedNetwork) error {
	var errs []error
	for _, s := range n.Subnets {
		if slices.ContainsFunc(published, func(o publishedNetwork) bool { return o.own && o.name == label(name) && o.subnet == s }) {
			continue
		}
		leases, err := p.cfg.Daemon.Leases(ctx, gatewayOwner(s))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(leases) == 0 { // Docker's own IPAM, or a gateway that another node reserves as well
			leases, err = p.cfg.Daemon.Allocate(ctx, api.AddressRequest{Owner: gatewayOwner(s), In: s})
			if err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, p.cfg.Daemon.AddName(ctx, api.NameRequest{
			Name: fmt.Sprintf("%s.%d.%s", label(name), s.Bits(), networksLabel), IPs: []netip.Addr{leases[0].IP.Addr()}, Owner: gatewayOwner(s),
		}))
	}
	return errors.Join(errs...)
}

// label converts a name of Docker to a label of DNS: lower case, with hyphens in place of what DNS does not allow. It may be empty.
func label(name string) string {
	const most = 63 // RFC 1035, 2.3.4
	text := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, name)
	return strings.Trim(text[:min(len(text), most)], "-")
}

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
				if l := label(name); l != "" && !strings.HasPrefix(c.ID, name) { // Docker adds the beginning of the ID as an alias
					names[l] = e.Addrs
				}
			}
			wanted[holder.ForDocker(e.MAC).String()] = names
		}
	}
	return wanted
}

// syncNames gives the addresses of running containers their names, and takes away those that they have not any more.
func (p *Plugin) syncNames(ctx context.Context, containers []dockerapi.Container, status api.Status) error {
	wanted := wantedNames(containers, func(id string) bool { _, ok := p.state.network(id); return ok })
	present, err := p.cfg.Daemon.Names(ctx, "", netip.Addr{})
	if err != nil {
		return err
	}
	have := map[string]map[string][]netip.Addr{}
	for _, n := range present {
		if n.Node == status.ID && holder.Parse(n.Owner).Kind == holder.Docker {
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

// endUnused ends leases of endpoints and networks that are gone, as after a crash of Docker in the middle of a start.
func (p *Plugin) endUnused(ctx context.Context) error {
	leases, err := p.cfg.Daemon.Leases(ctx, "")
	if err != nil {
		return err
	}
	subnets := map[string]bool{}
	for _, n := range p.state.networks() {
		for _, s := range n.Subnets {
			subnets[s.String()] = true
		}
	}
	var errs []error
	for _, l := range leases {
		unused, addr := p.isUnused(l, time.Now()), "" // all of an endpoint: this ends its guard as well
		for _, prefix := range []string{gatewayPrefix, auxPrefix} {
			if subnet, ok := strings.CutPrefix(l.Owner, prefix); ok {
				unused, addr = !subnets[subnet] && time.Since(l.Since) > newNetwork, l.IP.Addr().String()
			}
		}
		if !unused {
			continue
		}
		err := ignoreNotFound(p.cfg.Daemon.Release(ctx, l.Owner, addr))
		if err == nil {
			p.log.Info("ended a lease that Docker does not need any more", "owner", l.Owner, "addr", l.IP.Addr())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// forgetEndpoints forgets endpoints that the engine does not have any more: those without an interface, and those with one that never
// reached a container, as after a crash of Docker between two requests.
func (p *Plugin) forgetEndpoints(ctx context.Context, containers []dockerapi.Container) error {
	known := map[string]bool{}
	for _, c := range containers {
		for _, e := range c.Endpoints {
			known[e.ID] = true
		}
	}
	var errs []error
	for _, e := range p.state.endpoints() {
		inContainer := p.cfg.Links.Exists(holder.ForDocker(e.MAC).AttachLink()) && !p.cfg.Links.Exists(temporaryName(e.MAC))
		if known[e.ID] || time.Since(e.Created) < unusedAge || inContainer {
			continue
		}
		n, _ := p.state.network(e.Network)
		errs = append(errs, p.disconnect(ctx, n, e))
	}
	return errors.Join(errs...)
}

// Restart policies with which Docker starts a container when it starts itself.
var restarted = []string{"always", "unless-stopped"}

// startAgain is how long a container that Run has started is left alone.
const startAgain = 10 * time.Second

// startFailed starts containers that Docker could not start because weft was away. Docker itself does not try again.
func (p *Plugin) startFailed(ctx context.Context, containers []dockerapi.Container) error {
	var errs []error
	for _, c := range containers {
		failed := strings.Contains(c.Failure, failurePrefix) || strings.Contains(c.Failure, p.cfg.Driver+".sock") ||
			strings.Contains(c.Failure, fmt.Sprintf("plugin %q not found", p.cfg.Driver))
		if c.Running || !failed || !slices.Contains(restarted, c.RestartPolicy) || time.Since(p.started[c.ID]) < startAgain {
			continue
		}
		p.started[c.ID] = time.Now()
		if err := p.cfg.Engine.Start(ctx, c.ID); err != nil {
			errs = append(errs, fmt.Errorf("starting %s: %w", c.Name, err))
			continue
		}
		p.log.Info("started a container that could not start while weft was away", "container", c.Name)
	}
	maps.DeleteFunc(p.started, func(_ string, at time.Time) bool { return time.Since(at) > startAgain })
	return errors.Join(errs...)
}
