package docker

import (
	"context"
	"errors"
	"fmt"
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
	"weft/internal/peer"
)

// newNetwork is how old a network may be that the engine does not list yet: it lists one after it has been created. An older one is
// forgotten after it was absent some times in a row.
const (
	newNetwork  = 30 * time.Second
	mostAbsence = 3
)

// syncNetworks publishes the networks of this host, so that other nodes know their names and subnets, and forgets those that are gone.
func (p *Plugin) syncNetworks(ctx context.Context, list []dockerapi.Network, self peer.ID) error {
	names := map[string]string{}
	for _, n := range list {
		names[n.ID] = n.Name
	}
	published, err := published(ctx, p.cfg.Daemon, self)
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

// published returns the networks of all nodes, also of those that are not alive. self is this node.
func published(ctx context.Context, d Daemon, self peer.ID) (list []publishedNetwork, err error) {
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
			name: labels[0], subnet: netip.PrefixFrom(n.IP, bits).Masked(), node: n.NodeName, own: n.Node == self, id: n.Node,
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
