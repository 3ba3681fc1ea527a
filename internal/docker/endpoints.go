package docker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
)

// containerPrefix begins the names that Docker gives interfaces in a container; a number follows.
const containerPrefix = "eth"

// temporaryPrefix begins the name of an interface until Docker has moved it into its container.
const temporaryPrefix = "vwd"

// allGroups are the multicast addresses of IPv4.
const allGroups = "224.0.0.0/4"

// undoTimeout bounds what follows a failure.
const undoTimeout = 15 * time.Second

// temporaryName returns the name of an interface until Docker has moved it.
func temporaryName(mac ether.Addr) string { return temporaryPrefix + hex.EncodeToString(mac[:]) }

// createEndpoint makes the interface of a container. Its guard is in force before.
func (p *Plugin) createEndpoint(ctx context.Context, in createEndpointRequest) (out createEndpointResponse, err error) {
	n, known := p.state.network(in.NetworkID)
	if !known {
		return out, hint.New(hint.NotFound, "Remove the network with \"docker network rm\" and create it again.",
			"the network %.12s is not known to the plugin on this host", in.NetworkID)
	}
	if err := p.agreed(ctx, n); err != nil {
		return out, err
	}
	e := endpoint{ID: in.EndpointID, Network: n.ID, Created: time.Now().UTC().Round(0)}
	if err := e.read(in); err != nil {
		return out, err
	}
	out.Interface = &endpointInterface{}
	if in.Interface == nil || in.Interface.MacAddress == "" {
		e.MAC = ether.FromIP(e.Addrs[0])
		out.Interface.MacAddress = e.MAC.String()
	}
	h := holder.ForDocker(e.MAC)
	end, free := p.busy.begin(e.MAC)
	if free {
		defer end()
	}
	if exists := p.cfg.Links.Exists(h.AttachLink()); exists || !free {
		if before, known := p.state.endpoint(e.ID); exists && known && before.MAC == e.MAC {
			return out, nil // Docker repeats the request
		}
		return out, hint.New(hint.Refused, "Choose another --mac-address: all networks of weft are one Ethernet.",
			"a container on this host has the MAC %s", e.MAC)
	}
	if err := p.cfg.Deletions.Forget(h); err != nil {
		return out, err
	}
	s, err := p.daemon.Status(ctx)
	if err != nil {
		return out, err
	}
	if err := p.claimAll(ctx, n, h, e.Addrs); err != nil {
		return out, err
	}
	if err := p.connect(ctx, n, e, s); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return out, errors.Join(err, p.disconnect(ctx, n, e))
	}
	return out, nil
}

// read takes over the addresses and the MAC of a request.
func (e *endpoint) read(in createEndpointRequest) (err error) {
	if in.EndpointID == "" {
		return errors.New("the endpoint has no ID")
	}
	if in.Interface == nil {
		return errors.New("the endpoint has no interface")
	}
	for _, text := range []string{in.Interface.Address, in.Interface.AddressIPv6} {
		if text == "" {
			continue
		}
		a, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("the address of the endpoint: %w", err)
		}
		e.Addrs = append(e.Addrs, a.Addr())
	}
	if len(e.Addrs) == 0 {
		return errors.New("the endpoint has no address")
	}
	if in.Interface.MacAddress == "" {
		return nil
	}
	if e.MAC, err = ether.ParseAddr(in.Interface.MacAddress); err != nil || e.MAC.IsZero() || e.MAC.IsMulticast() {
		return fmt.Errorf("the MAC of the endpoint: %q is none", in.Interface.MacAddress)
	}
	return nil
}

// claimAll leases the addresses of an endpoint: those that Docker's own IPAM has chosen, and any that the daemon has lost since they were
// requested. It keeps what it leased before an error, for Docker to release.
func (p *Plugin) claimAll(ctx context.Context, n network, h holder.Holder, addrs []netip.Addr) error {
	for _, a := range addrs {
		_, err := p.lease(ctx, api.AddressRequest{Owner: h.String(), IP: a})
		if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Kind == api.KindRefused && n.Claim {
			return hint.New(hint.Refused,
				"Start the container again for another address, or create the network with --ipam-driver weft, which knows "+"the other hosts.",
				"Docker's own IPAM has chosen an address that is in use: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// connect sets the guard of an endpoint and makes its interface. The endpoint is in the state before, so that a crash in between leaves
// nothing that no one knows.
func (p *Plugin) connect(ctx context.Context, n network, e endpoint, s api.Status) error {
	if err := p.state.putEndpoint(e); err != nil {
		return err
	}
	h := holder.ForDocker(e.MAC)
	mtu := s.MTU
	if n.MTU > 0 {
		mtu = min(mtu, n.MTU)
	}
	if len(s.Exposed) == 0 { // names are answered at the address of the bridge, which the first pod of a node gives it
		if _, err := p.daemon.Expose(ctx, api.ExposeRequest{CIDR: api.Auto}); err != nil {
			return err
		}
	}
	guard := api.GuardRequest{Owner: h.String(), MAC: e.MAC, IPs: e.Addrs, Guard: n.Guard, Subnets: n.separated(s.Range)}
	guard.HostOnly = len(guard.Subnets) > 0 // the way out is Docker's bridge
	if err := p.daemon.Guard(ctx, guard); err != nil {
		return err
	}
	spec := podlink.Spec{
		Ifname: temporaryName(e.MAC), HostName: h.AttachLink(), Bridge: s.Bridge, MTU: mtu, MAC: e.MAC,
		Origin: podlink.Origin{Runtime: "docker"},
	}
	return p.cfg.Links.Offer(ctx, spec)
}

// disconnect removes the interface of an endpoint and what was set up for it. Docker releases the addresses, except those that this
// plugin has claimed.
func (p *Plugin) disconnect(ctx context.Context, n network, e endpoint) error {
	h := holder.ForDocker(e.MAC)
	errs := []error{p.cfg.Links.Remove(ctx, h.AttachLink())}
	if errs[0] == nil {
		errs = append(errs, p.state.deleteEndpoint(e.ID))
	}
	err := p.daemon.Unguard(ctx, h.String())
	if n.Claim && err == nil {
		err = ignoreNotFound(p.daemon.Release(ctx, h.String(), ""))
	}
	if isAway(err) { // it ends the guard and the leases when it is back
		err = p.cfg.Deletions.Add(h)
	}
	return errors.Join(append(errs, err)...)
}

// deleteEndpoint removes the interface of a container. One that is not known is success: Docker forgets only what was deleted.
func (p *Plugin) deleteEndpoint(ctx context.Context, in endpointRequest) (none, error) {
	e, known := p.state.endpoint(in.EndpointID)
	if !known {
		return none{}, nil
	}
	n, _ := p.state.network(e.Network)
	return none{}, p.disconnect(ctx, n, e)
}

// join names the interface that Docker moves into the container, and its routes.
func (p *Plugin) join(ctx context.Context, in endpointRequest) (out joinResponse, err error) {
	e, known := p.state.endpoint(in.EndpointID)
	if !known {
		return out, hint.New(hint.NotFound, "Start the container again.", "the endpoint %.12s is not known to the plugin on this host",
			in.EndpointID)
	}
	out.InterfaceName = interfaceName{SrcName: temporaryName(e.MAC), DstPrefix: containerPrefix}
	n, _ := p.state.network(e.Network)
	e.Sandbox = in.SandboxKey
	e.Groups = e.Addrs[0].Is4() && !n.NoMulticast && !p.hasGroups(e)
	if err := p.state.putEndpoint(e); err != nil {
		return out, err
	}
	if e.Groups {
		out.StaticRoutes = []staticRoute{{Destination: allGroups, RouteType: onLink}}
	}
	go p.announce(context.WithoutCancel(ctx), in.SandboxKey, e)
	return out, nil
}

// hasGroups reports whether another interface of the container of e has the route for groups: Docker refuses a second one.
func (p *Plugin) hasGroups(e endpoint) bool {
	return slices.ContainsFunc(p.state.endpoints(), func(o endpoint) bool { return o.ID != e.ID && o.Sandbox == e.Sandbox && o.Groups })
}

// leave notes that an interface has left its container.
func (p *Plugin) leave(_ context.Context, in endpointRequest) (none, error) {
	e, known := p.state.endpoint(in.EndpointID)
	if !known {
		return none{}, nil
	}
	e.Sandbox, e.Groups = "", false
	return none{}, p.state.putEndpoint(e)
}

// announceTimeout bounds how long Docker may take to configure an interface after Join.
const announceTimeout = 10 * time.Second

// announce makes other hosts learn where the addresses of an endpoint are now. Engines before 28.1 do not do so.
func (p *Plugin) announce(ctx context.Context, sandbox string, e endpoint) {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	if err := p.cfg.Links.Announce(ctx, sandbox, e.MAC); err != nil {
		p.log.Debug("the addresses of a container are not announced", "mac", e.MAC, "err", err)
	}
}
