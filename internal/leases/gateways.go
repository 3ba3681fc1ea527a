package leases

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/health"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// A running pod has an address of the bridge as its gateway, and usually as its name server. Three things keep the two together. Hide
// reserves an address that pods use, and Expose gives it back. If another node owns it now, Expose gives these pods another address of the
// bridge. Pods without either are a condition.

// gateways are the addresses that the bridge had, and the pods that lack one of them.
type gateways struct {
	mu       sync.Mutex
	former   map[netip.Addr]bool // guarded by mu: addresses that Hide removed, and that no Expose gave back
	stranded []strandedPod       // guarded by mu: as of the last search
}

// strandedPod is a pod with a gateway that the bridge had and lacks now.
type strandedPod struct {
	name    string // of its owner, or of its host end
	gateway netip.Addr
}

// usedGateways returns the gateways of running pods, and whether some pods hide theirs. Pods of other IPAM plugins are left out.
func (m *Manager) usedGateways() (ports []podlink.Port, used []podlink.Gateway, hidden bool, err error) {
	ports, err = podlink.Ports(m.cfg.Bridge)
	if err != nil {
		return nil, nil, true, err
	}
	ports = slices.DeleteFunc(ports, func(p podlink.Port) bool { return p.Delegated })
	used, unseen := podlink.Gateways(ports)
	return ports, used, len(unseen) > 0, nil
}

// reserveGateways ends the leases of the bridge. Addresses among have that pods use as their gateway stay leased, under another holder. It
// returns the pods that use them.
func (m *Manager) reserveGateways(have []netip.Prefix) (pods []string, err error) {
	_, used, hidden, err := m.usedGateways()
	if err != nil {
		m.log.Warn("cannot look for pods that use this host as their gateway", "err", err)
	}
	owners := ownersOf(m.cfg.Allocator.Leases())
	m.gateways.mu.Lock()
	if m.gateways.former == nil {
		m.gateways.former = map[netip.Addr]bool{}
	}
	for _, a := range have {
		m.gateways.former[a.Addr()] = true
	}
	m.gateways.mu.Unlock()
	isUsed := func(addr netip.Addr) bool {
		return hidden || slices.ContainsFunc(used, func(g podlink.Gateway) bool { return g.Addr == addr })
	}
	var errs []error
	for _, l := range m.lookup(holder.ForHost()) {
		if !isUsed(l.Addr) {
			errs = append(errs, m.cfg.Allocator.Release(holder.ForHost().String(), l.Addr))
		}
	}
	errs = append(errs, m.reassign(holder.ForHost(), holder.ForGateway()))
	for _, g := range used {
		if slices.ContainsFunc(have, func(a netip.Prefix) bool { return a.Addr() == g.Addr }) {
			pods = append(pods, podName(owners, g.Port))
		}
	}
	slices.Sort(pods)
	return slices.Compact(pods), errors.Join(errs...)
}

// restoreGateways gives the bridge the addresses again that are reserved for it.
func (m *Manager) restoreGateways() error {
	reserved := m.lookup(holder.ForGateway())
	if len(reserved) == 0 {
		return nil
	}
	if err := m.reassign(holder.ForGateway(), holder.ForHost()); err != nil {
		return err
	}
	for _, l := range reserved {
		if err := m.cfg.Host.AddBridgeAddress(m.prefixOf(l)); err != nil {
			return err
		}
	}
	return nil
}

// reassign is Allocator.Reassign where a holder without leases is success.
func (m *Manager) reassign(from, to holder.Holder) error {
	if err := m.cfg.Allocator.Reassign(from.String(), to.String()); !errors.Is(err, ipam.ErrUnknownOwner) {
		return err
	}
	return nil
}

// followGateways finds pods with a gateway that the bridge had and lacks now, and gives them another address of the bridge as their
// gateway. It ends reservations that no pod needs, and records the pods that are left. It returns the owners of the pods that it has
// changed, by their new gateway.
func (m *Manager) followGateways() map[netip.Addr][]string {
	ports, used, hidden, err := m.usedGateways()
	have, haveErr := m.cfg.Host.BridgeAddresses()
	if err := errors.Join(err, haveErr); err != nil {
		m.log.Warn("cannot look after the gateways of pods", "err", err)
		return nil
	}
	reserved := m.lookup(holder.ForGateway())
	owners := ownersOf(m.cfg.Allocator.Leases())
	moved := map[netip.Addr][]string{}
	next := map[netip.Addr]netip.Addr{}
	var stranded []strandedPod
	for _, g := range used {
		if !m.wasGateway(g.Addr, have, reserved) {
			continue
		}
		to := m.gatewayInstead(g.Addr, have)
		if !to.IsValid() || leasedTo(reserved, g.Addr) {
			stranded = append(stranded, strandedPod{podName(owners, g.Port), g.Addr})
			continue
		}
		next[g.Addr] = to
		moved[to] = append(moved[to], podName(owners, g.Port))
	}
	if len(next) > 0 {
		err := podlink.Reroute(ports, func(old netip.Addr) netip.Addr {
			if to, ok := next[old]; ok {
				return to
			}
			return old
		})
		if err != nil {
			m.log.Warn("cannot change the gateway of a pod", "err", err)
		}
		for to, pods := range moved {
			m.log.Info("pods have another gateway", "addr", to, "pods", pods)
		}
	}
	if !hidden {
		m.endReservations(used, reserved)
	}
	m.gateways.mu.Lock()
	defer m.gateways.mu.Unlock()
	m.gateways.stranded = stranded
	return moved
}

// wasGateway reports whether an address is one that the bridge had and lacks now. A gateway that this node has not given to a pod is
// a router that an operator chose.
func (m *Manager) wasGateway(addr netip.Addr, have []netip.Prefix, reserved []ipam.Lease) bool {
	m.gateways.mu.Lock()
	defer m.gateways.mu.Unlock()
	if slices.ContainsFunc(have, func(a netip.Prefix) bool { return a.Addr() == addr }) {
		delete(m.gateways.former, addr)
		return false
	}
	return m.gateways.former[addr] || leasedTo(reserved, addr)
}

// gatewayInstead returns an address of the bridge in the range of a gateway; invalid: there is none.
func (m *Manager) gatewayInstead(old netip.Addr, have []netip.Prefix) netip.Addr {
	for _, a := range have {
		if m.rangeOf(a.Addr()) == m.rangeOf(old) {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// endReservations ends the leases of gateways that no pod uses any more.
func (m *Manager) endReservations(used []podlink.Gateway, reserved []ipam.Lease) {
	for _, l := range reserved {
		if slices.ContainsFunc(used, func(g podlink.Gateway) bool { return g.Addr == l.Addr }) {
			continue
		}
		if err := m.releaseIfLeased(holder.ForGateway(), l.Addr); err != nil {
			m.log.Warn("cannot end the reservation of a gateway", "addr", l.Addr, "err", err)
		}
	}
}

// podName returns the name of a pod for people: the owner of its leases, or the name of its host end.
func podName(owners map[string]holder.Holder, link string) string {
	if h, ok := owners[link]; ok {
		return h.String()
	}
	return link
}

// hasStranded reports whether pods lack their gateway.
func (m *Manager) hasStranded() bool {
	m.gateways.mu.Lock()
	defer m.gateways.mu.Unlock()
	return len(m.gateways.stranded) > 0
}

// gatewayFindings reports pods that lack their gateway.
func (m *Manager) gatewayFindings() []health.Finding {
	m.gateways.mu.Lock()
	defer m.gateways.mu.Unlock()
	pods := map[netip.Addr][]string{}
	for _, p := range m.gateways.stranded {
		pods[p.gateway] = append(pods[p.gateway], p.name)
	}
	var findings []health.Finding
	for gateway, names := range pods {
		slices.Sort(names)
		findings = append(findings, health.Finding{
			Code: health.PodGatewayMissing, Key: gateway.String(),
			Text: fmt.Sprintf("The bridge %s does not have the address %s, which is the gateway and the name server of %s: %s. "+
				"They reach no address outside of the overlay.", m.cfg.Bridge, gateway, count(len(names), "pod"), health.List(names)),
			Remedy: "Run \"weft expose\": pods keep their gateway, or get another one.",
		})
	}
	slices.SortFunc(findings, func(a, b health.Finding) int { return netip.MustParseAddr(a.Key).Compare(netip.MustParseAddr(b.Key)) })
	return findings
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
