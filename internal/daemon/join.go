package daemon

import (
	"context"
	"net/http"
	"net/netip"

	"weft/internal/api"
	"weft/internal/ether"
)

func (d *Daemon) handleJoin(r *http.Request, in api.JoinRequest) (api.Join, error) {
	p := d.plane.Load()
	if p == nil {
		return api.Join{}, errStarting()
	}
	if err := checkOwner(in.Owner); err != nil {
		return api.Join{}, err
	}
	if err := d.orphans.handOver(in.Owner); err != nil {
		return api.Join{}, err
	}
	return p.join(r.Context(), in)
}

// join leases what in asks for and returns all that a namespace needs. What a failed join leased it releases again.
func (p *plane) join(ctx context.Context, in api.JoinRequest) (_ api.Join, err error) {
	held := len(p.d.ipam.Lookup(in.Owner)) > 0
	defer func() {
		if err != nil && !held {
			_ = p.d.ipam.Release(in.Owner, netip.Addr{}) // of which nothing may be leased yet
		}
	}()
	gateways, err := p.exposeAuto(ctx)
	if err != nil {
		return api.Join{}, ipamProblem(err)
	}
	if len(in.IPs) == 0 {
		in.IPs = []string{api.Auto}
	}
	answer := api.Join{Bridge: p.d.cfg.Bridge, MTU: p.d.mtu}
	for _, ip := range in.IPs {
		addrs, err := p.lease(ctx, in.Owner, ip)
		if err != nil {
			return api.Join{}, err
		}
		for _, a := range addrs {
			doc := api.Address{Address: a, MAC: ether.FromIP(a.Addr())}
			for _, g := range gateways {
				if a.Contains(g.Addr) {
					doc.Gateway = g.Addr
				}
			}
			answer.Addresses = append(answer.Addresses, doc)
		}
	}
	return answer, nil
}

// lease leases one element of a JoinRequest's IPs.
func (p *plane) lease(ctx context.Context, owner, ip string) ([]netip.Prefix, error) {
	if ip == api.Auto {
		leases, err := p.d.ipam.AllocateAll(ctx, owner)
		if err != nil {
			return nil, ipamProblem(err)
		}
		addrs := make([]netip.Prefix, 0, len(leases))
		for _, l := range leases {
			addrs = append(addrs, l.Prefix())
		}
		return addrs, nil
	}
	addr, err := p.d.parseAddress(ip)
	if err != nil {
		return nil, err
	}
	if _, err := p.d.ipam.Claim(ctx, owner, addr.Addr()); err != nil {
		return nil, ipamProblem(err)
	}
	return []netip.Prefix{addr}, nil
}
