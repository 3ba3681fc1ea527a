package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
)

// Owners of addresses that are not those of a container: of the gateway that Docker reserves in each subnet, and of the addresses that a
// user has excluded ("--aux-address").
const (
	ownPrefix     = "docker/"
	gatewayPrefix = ownPrefix + "gateway/"
	auxPrefix     = ownPrefix + "aux/"
)

// gatewayOwner returns the owner of the gateway of a subnet. Each node has one: it shows that the node has a network with this subnet.
func gatewayOwner(subnet netip.Prefix) string { return gatewayPrefix + subnet.String() }

// unusedAge is how old a lease without an interface must be to be one that Docker has forgotten: the interface of a container that starts
// follows in less.
const unusedAge = 5 * time.Second

// requestAddress leases an address.
func (p *Plugin) requestAddress(ctx context.Context, in addressRequest) (addressResponse, error) {
	from, err := parsePool(in.PoolID)
	if err != nil {
		return addressResponse{}, err
	}
	r := api.AddressRequest{In: from.within}
	if in.Address != "" {
		if r.IP, err = requestedAddress(in.Address, from.subnet); err != nil {
			return addressResponse{}, err
		}
		r.In = netip.Prefix{}
	}
	gateway := in.Options[optionType] == typeGateway
	switch mac, named := in.Options[optionMAC]; {
	case gateway:
		r.Owner = gatewayOwner(from.subnet)
	case named:
		if r.Owner, err = p.endpointOwner(mac); err != nil {
			return addressResponse{}, err
		}
	default:
		r.Owner = auxPrefix + from.subnet.String()
	}
	addr, err := p.lease(ctx, r)
	if reserved := gateway || strings.HasPrefix(r.Owner, auxPrefix); reserved && r.IP.IsValid() && isHeldBy(err, r.Owner) {
		// Another node reserves the same address for this network. No interface has it on any node.
		addr, err = r.IP, nil
	}
	if err != nil {
		return addressResponse{}, err
	}
	return addressResponse{Address: netip.PrefixFrom(addr, from.subnet.Bits()).String()}, nil
}

// isHeldBy reports whether an error is that an address is leased to a given owner on another node.
func isHeldBy(err error, owner string) bool {
	problem, ok := errors.AsType[*api.Problem](err)
	return ok && problem.Kind == api.KindRefused && strings.Contains(problem.Detail, fmt.Sprintf("%q on ", owner))
}

// requestedAddress reads an address that a user has chosen.
func requestedAddress(text string, subnet netip.Prefix) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, hint.New(hint.Invalid, "Write an address of the subnet.", "%q is not an address", text)
	}
	if !subnet.Contains(a) {
		return a, hint.New(hint.Invalid, "Choose an address of the subnet.", "%s is outside of the subnet %s", a, subnet)
	}
	if a == subnet.Masked().Addr() || a.Is4() && !subnet.Contains(a.Next()) {
		return a, hint.New(hint.Invalid, "Choose another one.", "%s is the first or the last address of the subnet %s, which no container has",
			a, subnet)
	}
	return a, nil
}

// endpointOwner returns the owner of the addresses of an endpoint. It refuses a MAC that a container has: a repeated request would get the
// addresses of that one.
func (p *Plugin) endpointOwner(text string) (string, error) {
	mac, err := ether.ParseAddr(text)
	if err != nil || mac.IsZero() || mac.IsMulticast() {
		return "", hint.New(hint.Invalid, "Write one such as 02:42:0a:20:01:05.", "%q is not the MAC of a container", text)
	}
	h := holder.ForDocker(mac)
	p.busy.touch(mac)
	if err := p.cfg.Deletions.Forget(h); err != nil {
		return "", err
	}
	if p.cfg.Links.Exists(h.AttachLink()) {
		return "", hint.New(hint.Refused, "Choose another --mac-address: all networks of weft are one Ethernet.",
			"a container on this host has the MAC %s", mac)
	}
	return h.String(), nil
}

// lease leases an address. What Docker has forgotten does not keep a container from its address.
func (p *Plugin) lease(ctx context.Context, r api.AddressRequest) (addr netip.Addr, err error) {
	leases, err := p.daemon.Allocate(ctx, r)
	if err == nil && len(leases) == 0 {
		return addr, errors.New("the daemon returned no lease")
	}
	if err == nil {
		return leases[0].IP.Addr(), nil
	}
	problem, refused := errors.AsType[*api.Problem](err)
	if !refused || problem.Kind != api.KindRefused || !r.IP.IsValid() || !p.forget(ctx, r.IP) {
		return addr, err
	}
	if leases, err = p.daemon.Allocate(ctx, r); err != nil || len(leases) == 0 {
		return addr, err
	}
	return leases[0].IP.Addr(), nil
}

// forget ends the lease of an address if it is that of an endpoint that is gone, and reports whether it did.
func (p *Plugin) forget(ctx context.Context, addr netip.Addr) bool {
	leases, err := p.daemon.Leases(ctx, "")
	if err != nil {
		return false
	}
	for _, l := range leases {
		if l.IP.Addr() == addr && p.isUnused(l, time.Now()) {
			return p.daemon.Release(ctx, l.Owner, addr.String()) == nil
		}
	}
	return false
}

// isUnused reports whether a lease is that of an endpoint that is gone.
func (p *Plugin) isUnused(l api.Lease, now time.Time) bool {
	h := holder.Parse(l.Owner)
	return h.Kind == holder.Docker && now.Sub(l.Since) > unusedAge && !p.busy.has(h.MAC) && !p.cfg.Links.Exists(h.AttachLink())
}

// releaseAddress ends a lease. An address that an interface still has keeps it: the daemon ends it once that is gone.
func (p *Plugin) releaseAddress(ctx context.Context, in addressRequest) (none, error) {
	addr, err := netip.ParseAddr(in.Address)
	if err != nil {
		return none{}, fmt.Errorf("%q is not an address: %w", in.Address, err)
	}
	leases, err := p.daemon.Leases(ctx, "")
	if err != nil {
		return none{}, err
	}
	for _, l := range leases {
		if l.IP.Addr() != addr || !strings.HasPrefix(l.Owner, ownPrefix) {
			continue
		}
		h := holder.Parse(l.Owner)
		if h.Kind == holder.Docker && (p.busy.isCreating(h.MAC) || p.cfg.Links.Exists(h.AttachLink())) || p.isGateway(l) {
			p.log.Warn("an address is not released, because it is in use", "addr", addr, "owner", l.Owner)
			return none{}, nil
		}
		return none{}, ignoreNotFound(p.daemon.Release(ctx, l.Owner, addr.String()))
	}
	return none{}, nil
}

// isGateway reports whether a lease is the gateway of a network that exists: Docker releases it after it has deleted the network.
func (p *Plugin) isGateway(l api.Lease) bool {
	return slices.ContainsFunc(p.state.networks(), func(n network) bool {
		return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return gatewayOwner(s) == l.Owner })
	})
}

// ignoreNotFound returns nil for an error that says that something is not there.
func ignoreNotFound(err error) error {
	if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Kind == api.KindNotFound {
		return nil
	}
	return err
}
