package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/podlink"
)

// plan describes an interface to create: the specification of the link, and the parts of the result that are not in it.
type plan struct {
	spec     podlink.Spec
	gateways []netip.Addr // for each address of spec; invalid: none
	dns      types.DNS
	domain   string // of names; empty: not known
}

// newPlan leases addresses and returns the plan for them. On an error, leases may remain: the caller ends them.
func (c *call) newPlan(ctx context.Context) (plan, error) {
	mac, err := c.conf.wantedMAC(c.args.Args)
	if err != nil {
		return plan{}, err
	}
	p := plan{dns: c.conf.DNS, spec: podlink.Spec{
		Netns: c.args.Netns, Ifname: c.args.IfName, HostName: c.host,
		MTU: c.conf.MTU, MAC: mac, Hairpin: c.conf.hairpin(), DefaultRoute: true, MulticastRoute: true,
		Origin: podlink.Origin{Pending: true, Runtime: c.Runtime},
	}}
	if c.delegated() {
		err = c.planDelegated(ctx, &p)
	} else {
		err = c.planJoin(ctx, &p)
	}
	return p, err
}

// planJoin leases the addresses from the daemon.
func (c *call) planJoin(ctx context.Context, p *plan) error {
	ips, err := c.conf.wantedIPs(c.args.Args)
	if err != nil {
		return err
	}
	join, err := c.daemon.Join(ctx, api.JoinRequest{Owner: c.holder.String(), IPs: ips})
	c.leased = !errors.Is(err, api.ErrNoDaemon)
	if err != nil {
		return daemonError(c.daemon, err)
	}
	if len(join.Addresses) == 0 {
		return failure(types.ErrInternal, errors.New("the daemon returned no address"))
	}
	p.setBridge(join.Bridge, join.MTU)
	for _, a := range join.Addresses {
		p.spec.Addresses = append(p.spec.Addresses, podlink.Address{Prefix: a.Address, Gateway: a.Gateway})
		p.gateways = append(p.gateways, a.Gateway)
	}
	if p.spec.MAC.IsZero() {
		p.spec.MAC = join.Addresses[0].MAC
	}
	if c.conf.Names {
		p.setNames(join)
	}
	return nil
}

// setBridge sets the bridge of the link, and its MTU if the configuration has none.
func (p *plan) setBridge(bridge string, mtu int) {
	p.spec.Bridge = bridge
	if p.spec.MTU == 0 {
		p.spec.MTU = mtu
	}
}

// planDelegated leases the addresses from another plugin. The daemon provides only the bridge and the MTU.
func (c *call) planDelegated(ctx context.Context, p *plan) error {
	status, err := c.daemon.Status(ctx)
	if err != nil {
		return daemonError(c.daemon, err)
	}
	p.setBridge(status.Bridge, status.MTU)
	p.spec.Origin.Delegated, p.spec.Origin.Holder = true, c.holder.String()
	c.leased = true
	raw, err := invoke.DelegateAdd(ctx, c.conf.IPAM.Type, c.args.StdinData, c.Exec)
	if err != nil {
		return delegateError(c.conf, err)
	}
	res, err := types100.NewResultFromResult(raw)
	if err != nil {
		return failure(types.ErrDecodingFailure, fmt.Errorf("result of ipam plugin %s: %w", c.conf.IPAM.Type, err))
	}
	if len(res.IPs) == 0 {
		return failure(types.ErrInvalidNetworkConfig, fmt.Errorf("ipam plugin %s returned no address", c.conf.IPAM.Type))
	}
	for _, ip := range res.IPs {
		a := podlink.Address{Prefix: prefixOf(ip.Address), Gateway: addrOf(ip.Gateway)}
		if !a.Gateway.IsValid() {
			a.Gateway = exposed(status, a.Prefix.Addr())
		}
		p.spec.Addresses = append(p.spec.Addresses, a)
		p.gateways = append(p.gateways, a.Gateway)
	}
	if p.dns.IsEmpty() {
		p.dns = res.DNS
	}
	return p.route(res.Routes)
}

// exposed returns the host's address on the bridge in the family of ip, an invalid one if there is none.
func exposed(s api.Status, ip netip.Addr) netip.Addr {
	i := slices.IndexFunc(s.Exposed, func(p netip.Prefix) bool { return p.Addr().Is4() == ip.Is4() })
	if i < 0 {
		return netip.Addr{}
	}
	return s.Exposed[i].Addr()
}

// route replaces the default routes by the routes of a delegated plugin, if it returned any. A route without a gateway uses that
// of the first address of its family (CONVENTIONS.md of the CNI specification).
func (p *plan) route(routes []*types.Route) error {
	if len(routes) == 0 {
		return nil
	}
	for i := range p.spec.Addresses {
		p.spec.Addresses[i].Gateway = netip.Addr{}
	}
	for _, r := range routes {
		if r.MTU != 0 || r.AdvMSS != 0 || r.Priority != 0 || r.Table != nil || r.Scope != nil {
			return failure(types.ErrUnsupportedField, fmt.Errorf("route %v of the ipam plugin: only dst and gw are supported", r))
		}
		dst, gw := prefixOf(r.Dst), addrOf(r.GW)
		first := slices.IndexFunc(p.spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr().Is4() == dst.Addr().Is4() })
		if !gw.IsValid() && first >= 0 {
			gw = p.gateways[first]
		}
		// The Linker adds no default route to a namespace that has one.
		if dst.Bits() == 0 && gw.IsValid() && first >= 0 {
			p.spec.Addresses[first].Gateway = gw
			continue
		}
		p.spec.Routes = append(p.spec.Routes, podlink.Route{Dst: dst, Gateway: gw})
	}
	return nil
}

// addresses returns the addresses of the interface.
func (p plan) addresses() []netip.Addr {
	out := make([]netip.Addr, len(p.spec.Addresses))
	for i, a := range p.spec.Addresses {
		out[i] = a.Prefix.Addr()
	}
	return out
}

// result returns the result for the runtime: that of previous plugins, with this link added.
func (p plan) result(prev *types100.Result, made podlink.Result) *types100.Result {
	res := prev
	if res == nil {
		res = &types100.Result{}
	}
	res.CNIVersion = types100.ImplementedSpecVersion
	inside := len(res.Interfaces) + 2
	res.Interfaces = append(res.Interfaces,
		&types100.Interface{Name: p.spec.Bridge},
		&types100.Interface{Name: made.HostName, Mac: made.HostMAC.String(), Mtu: made.MTU},
		&types100.Interface{Name: p.spec.Ifname, Mac: made.MAC.String(), Mtu: made.MTU, Sandbox: p.spec.Netns},
	)
	for i, prefix := range made.Addresses {
		res.IPs = append(res.IPs, &types100.IPConfig{Interface: types100.Int(inside), Address: ipNet(prefix), Gateway: p.gateways[i].AsSlice()})
	}
	for _, r := range made.Routes {
		res.Routes = append(res.Routes, &types.Route{Dst: ipNet(r.Dst), GW: r.Gateway.AsSlice()})
	}
	if !p.dns.IsEmpty() {
		res.DNS = p.dns
	}
	return res
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// macOf returns the MAC in a result, zero if there is none.
func macOf(text string) ether.Addr {
	mac, _ := ether.ParseAddr(text)
	return mac
}
