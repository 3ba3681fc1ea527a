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
	"weft/internal/dnsname"
	"weft/internal/dockerapi"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/internal/peer"
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
			pause = syncPeriod
			if isAway(err) || errors.Is(err, dockerapi.ErrNoEngine) {
				pause = enginePause
			}
			p.changed.Set()
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
	networks, err := p.cfg.Engine.Networks(ctx)
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
	p.startFailed(ctx, containers)
	return errors.Join(p.syncNames(ctx, containers, status), p.endUnused(ctx), p.forgetEndpoints(ctx, containers))
}

// inspectTime bounds a look at one container: Docker does not answer while it starts it, which may wait for weft.
const inspectTime = 2 * time.Second

// containers returns the containers of the networks of this host, whether they run or not.
func (p *Plugin) containers(ctx context.Context, networks []dockerapi.Network) (list []dockerapi.Container, err error) {
	var ids []string
	for _, n := range networks {
		if _, ours := p.state.network(n.ID); ours {
			ids = append(ids, n.ID)
		}
	}
	if ids, err = p.cfg.Engine.ContainersOn(ctx, ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		c, err := p.inspect(ctx, id)
		switch {
		case errors.Is(err, dockerapi.ErrNotFound): // it was removed meanwhile
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			p.changed.Set() // the next comparison has it
		case err != nil:
			return nil, err
		default:
			list = append(list, c)
		}
	}
	return list, nil
}

// inspect returns a container, within inspectTime.
func (p *Plugin) inspect(ctx context.Context, id string) (dockerapi.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTime)
	defer cancel()
	return p.cfg.Engine.Container(ctx, id)
}

// newNetwork is how old a network may be that the engine does not list yet: it lists one after it has been created. An older one is
// forgotten after it was absent some times in a row.
const (
	newNetwork  = 30 * time.Second
	mostAbsence = 3
)

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
		case !exists && time.Since(n.Created) > newNetwork && !p.hasEndpoints(n):
			if p.absent[n.ID]++; p.absent[n.ID] >= mostAbsence {
				p.log.Info("forgot a network that Docker does not have any more", "network", n.ID)
				errs = append(errs, p.state.deleteNetwork(n.ID))
				delete(p.absent, n.ID)
			}
		case exists:
			delete(p.absent, n.ID)
			if conflicts[n.ID] = conflict(name, n, published); conflicts[n.ID] == nil {
				errs = append(errs, p.publish(ctx, name, n, published))
			}
		}
	}
	p.known.set(names, conflicts)
	return errors.Join(errs...)
}

// hasEndpoints reports whether a network has interfaces on this host.
func (p *Plugin) hasEndpoints(n network) bool {
	return slices.ContainsFunc(p.state.endpoints(), func(e endpoint) bool { return e.Network == n.ID })
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
	id     peer.ID
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
			name: labels[0], subnet: netip.PrefixFrom(n.IP, bits).Masked(), node: n.NodeName, own: n.Node == s.ID, id: n.Node,
		})
	}
	return list, nil
}

// conflict returns how a network of this host disagrees with those of other nodes; nil where it does not, or where it was there first. Of
// two that were published at the same time, that of the node with the lower ID counts as the first.
func conflict(name string, n network, published []publishedNetwork) error {
	own := dnsname.Label(name)
	var self peer.ID // set where the network was published before
	for _, o := range published {
		if o.own && o.name == own && slices.Contains(n.Subnets, o.subnet) {
			self = o.id
		}
	}
	for _, o := range published {
		same := slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == o.subnet.Addr().Is4() })
		if o.own || !same || !self.IsZero() && self.Compare(o.id) < 0 {
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
		if slices.ContainsFunc(published, func(o publishedNetwork) bool { return o.own && o.name == dnsname.Label(name) && o.subnet == s }) {
			continue
		}
		leases, err := p.cfg.Daemon.Leases(ctx, gatewayOwner(s))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(leases) == 0 {
			if leases, err = p.leaseGateway(ctx, n, s); err != nil || len(leases) == 0 {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, p.cfg.Daemon.AddName(ctx, api.NameRequest{
			Name: fmt.Sprintf("%s.%d.%s", dnsname.Label(name), s.Bits(), networksLabel),
			IPs:  []netip.Addr{leases[0].IP.Addr()}, Owner: gatewayOwner(s),
		}))
	}
	return errors.Join(errs...)
}

// leaseGateway leases the address by which a network is published: Docker's gateway, or any where another node reserves the same one. None,
// without an error, where Docker's own IPAM gives out the addresses: any other may be that of a container.
func (p *Plugin) leaseGateway(ctx context.Context, n network, subnet netip.Prefix) (leases []api.Lease, err error) {
	owner := gatewayOwner(subnet)
	for _, g := range n.Gateways {
		if !subnet.Contains(g) {
			continue
		}
		leases, err = p.cfg.Daemon.Allocate(ctx, api.AddressRequest{Owner: owner, IP: g})
		if !isHeldBy(err, owner) {
			return leases, err
		}
	}
	if n.Claim {
		return nil, nil
	}
	return p.cfg.Daemon.Allocate(ctx, api.AddressRequest{Owner: owner, In: subnet})
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

// Pauses before a container that could not start is started again: the first, which doubles, and the longest.
const (
	startPause     = 5 * time.Second
	startPauseMost = 5 * time.Minute
	startTime      = time.Minute
)

// startOf is what Run knows about a container that it has started.
type startOf struct {
	at    time.Time
	pause time.Duration // before the next attempt
}

// failedWithoutWeft reports whether a container could not be started because weft was away, and for no other reason.
func (p *Plugin) failedWithoutWeft(failure string) bool {
	for _, part := range []string{
		api.ErrNoDaemon.Error(), p.cfg.Driver + ".sock",
		fmt.Sprintf("plugin %q not found", p.cfg.Driver), fmt.Sprintf("plugin %q not found", p.cfg.Driver+":latest"),
	} {
		if strings.Contains(failure, part) {
			return true
		}
	}
	return false
}

// startFailed starts containers that Docker could not start because weft was away. Docker itself does not try again.
func (p *Plugin) startFailed(ctx context.Context, containers []dockerapi.Container) {
	now := time.Now()
	waiting := map[string]startOf{}
	for _, c := range containers {
		if c.Running || !p.failedWithoutWeft(c.Failure) || !slices.Contains(restarted, c.RestartPolicy) {
			continue
		}
		last, again := p.starts[c.ID]
		if again && now.Sub(last.at) < last.pause {
			waiting[c.ID] = last
			continue
		}
		waiting[c.ID] = startOf{at: now, pause: min(max(startPause, 2*last.pause), startPauseMost)}
		go p.start(context.WithoutCancel(ctx), c)
	}
	p.starts = waiting
}

// start starts a container, which may wait for weft.
func (p *Plugin) start(ctx context.Context, c dockerapi.Container) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := p.cfg.Engine.Start(ctx, c.ID); err != nil {
		p.log.Warn("cannot start a container that could not start while weft was away", "container", c.Name, "err", err)
		return
	}
	p.log.Info("started a container that could not start while weft was away", "container", c.Name)
}
