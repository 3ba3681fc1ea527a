package leases

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// Expose gives the bridge an address, so that the host itself is on the overlay, and sets what happens to packets from outside the
// overlay, as the request says. It returns the leases. Running pods keep their gateway: an address that Hide has reserved for them comes
// back. Where it cannot, they get the new one.
func (m *Manager) Expose(ctx context.Context, in api.ExposeRequest) ([]api.Exposed, error) {
	if !m.cfg.Host.Up() {
		return nil, errStarting()
	}
	mode, err := api.ParseInwardMode(string(in.Inward))
	if err != nil {
		return nil, hint.New(hint.Invalid, "Write nat, keep or off.", "%w", err)
	}
	docs := []api.Exposed{}
	if in.CIDR != "" {
		leases, err := m.expose(ctx, in.CIDR)
		if err != nil {
			return nil, err
		}
		moved := m.followGateways()
		for _, l := range m.documents(leases) {
			docs = append(docs, api.Exposed{Lease: l, Moved: moved[l.IP.Addr()]})
		}
	}
	return docs, m.setInward(ctx, mode)
}

// setInward stores a mode for packets from outside the overlay and puts it in force; an empty one changes nothing. If it fails, the mode
// before stays.
func (m *Manager) setInward(ctx context.Context, mode api.InwardMode) error {
	if mode == "" {
		return nil
	}
	m.inwardMu.Lock()
	defer m.inwardMu.Unlock()
	if mode != api.InwardOff && len(m.lookup(holder.ForHost())) > 0 {
		if err := m.ensureRoutes(ctx); err != nil {
			return Explain(err)
		}
	}
	before := m.cfg.Exposure.Inward()
	if err := m.cfg.Exposure.SetInward(mode); err != nil {
		return err
	}
	err := m.cfg.Host.ApplyInward(ctx)
	if err == nil || mode == api.InwardOff {
		return err
	}
	undo := m.cfg.Exposure.SetInward(before)
	if undo == nil {
		undo = m.cfg.Host.ApplyInward(context.WithoutCancel(ctx))
	}
	if undo != nil {
		m.log.Warn("undoing a change of the mode for packets from outside failed", "err", undo)
	}
	return err
}

func (m *Manager) expose(ctx context.Context, cidr string) ([]ipam.Lease, error) {
	if cidr == api.Auto {
		leases, err := m.exposeAuto(ctx)
		return leases, Explain(err)
	}
	addr, err := m.parseAddress(cidr)
	if err != nil {
		return nil, err
	}
	if err := m.restoreGateways(); err != nil {
		return nil, Explain(err)
	}
	host := holder.ForHost().String()
	before := m.lookup(holder.ForHost())
	lease, err := m.cfg.Allocator.Claim(ctx, host, addr.Addr())
	if err != nil {
		return nil, Explain(err)
	}
	if err := m.setPrefix(addr); err != nil {
		return nil, errors.Join(err, m.releaseNew(holder.ForHost(), before))
	}
	if m.hasPods(addr) { // they may use this address with the length of the range
		if err := m.ensureRoutes(ctx); err != nil {
			return nil, Explain(err)
		}
	}
	return []ipam.Lease{lease}, nil
}

// setPrefix gives the bridge an address with the prefix length that was asked for, which it gets again whenever it is made anew. The
// address has one length: another one is removed.
func (m *Manager) setPrefix(addr netip.Prefix) error {
	if err := m.cfg.Exposure.SetPrefix(addr); err != nil {
		return err
	}
	have, err := m.cfg.Host.BridgeAddresses()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range have { // first: the kernel has an address of IPv6 once only, with whatever length
		if h.Addr() == addr.Addr() && h != addr {
			errs = append(errs, m.cfg.Host.RemoveBridgeAddress(h))
		}
	}
	return errors.Join(append(errs, m.cfg.Host.AddBridgeAddress(addr))...)
}

// hasPods reports whether there are attachments with an address of the whole range that another one is in.
func (m *Manager) hasPods(addr netip.Prefix) bool {
	whole := m.rangeOf(addr.Addr())
	return slices.ContainsFunc(m.cfg.Allocator.Leases(), func(l ipam.Lease) bool {
		_, attached := holder.Parse(l.Holder).HostLink()
		return attached && l.In == whole
	})
}

// ensureRoutes gives the bridge an address with the length of each range, if it has none: by it the host has a route to the pods of all
// nodes.
func (m *Manager) ensureRoutes(ctx context.Context) error {
	for _, r := range m.cfg.Ranges {
		if _, err := m.gatewayOf(ctx, netip.PrefixFrom(r.Masked().Addr().Next(), r.Bits())); err != nil {
			return err
		}
	}
	return nil
}

// exposeAuto gives the bridge an address of each range: the one that it has, if it has one. Pods of this node use it as gateway.
func (m *Manager) exposeAuto(ctx context.Context) ([]ipam.Lease, error) {
	if err := m.restoreGateways(); err != nil {
		return nil, err
	}
	leases, err := m.cfg.Allocator.AllocateAll(ctx, holder.ForHost().String())
	if err != nil {
		return nil, err
	}
	have, err := m.cfg.Host.BridgeAddresses()
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if slices.ContainsFunc(have, func(h netip.Prefix) bool { return h.Addr() == l.Addr }) {
			continue // with any prefix length
		}
		if err := m.cfg.Host.AddBridgeAddress(m.prefixOf(l)); err != nil {
			return nil, err
		}
	}
	return leases, nil
}

// gatewayOf returns the address of the bridge that is the gateway of a pod with an address: each is in the subnet of the other; invalid:
// there is none. A pod in the subnet of a whole range always gets one, even if the operator has given the bridge only addresses of
// smaller subnets: this host would have no route to the pod.
func (m *Manager) gatewayOf(ctx context.Context, pod netip.Prefix) (netip.Addr, error) {
	m.gatewayMu.Lock()
	defer m.gatewayMu.Unlock()
	for _, l := range m.lookup(holder.ForHost()) {
		if p := m.prefixOf(l); p.Contains(pod.Addr()) && pod.Contains(p.Addr()) {
			return p.Addr(), nil
		}
	}
	whole := m.rangeOf(pod.Addr())
	if pod.Bits() != whole.Bits() {
		return netip.Addr{}, nil
	}
	// The allocator has one address a holder and range, so it takes a second holder for a moment.
	l, err := m.cfg.Allocator.Allocate(ctx, holder.ForSecond().String(), whole)
	if err == nil {
		err = m.reassign(holder.ForSecond(), holder.ForHost())
	}
	if err == nil {
		err = m.cfg.Host.AddBridgeAddress(l.Prefix())
	}
	return l.Addr, err
}

// Hide removes the bridge's addresses and ends their leases, and what was asked for packets from outside the overlay. A bridge without any
// is success. Addresses that running pods use as their gateway stay reserved for the bridge, so that the next Expose can give them back,
// and no pod gets one meanwhile; the answer names the pods.
func (m *Manager) Hide() (api.Hidden, error) {
	if !m.cfg.Host.Up() {
		return api.Hidden{}, errStarting()
	}
	return m.hide()
}

// HideAlways is Hide at any time, for a node that leaves.
func (m *Manager) HideAlways() error {
	_, err := m.hide()
	return err
}

func (m *Manager) hide() (api.Hidden, error) {
	defer m.findOrphans() // the addresses must not stay held
	m.surveyMu.Lock()
	defer m.surveyMu.Unlock()
	have, err := m.cfg.Host.BridgeAddresses()
	errs := []error{err}
	// The leases end first: the host gives a bridge the leased addresses again that it has lost.
	pods, err := m.reserveGateways(have)
	errs = append(errs, err)
	for _, a := range have {
		errs = append(errs, m.cfg.Host.RemoveBridgeAddress(a))
	}
	m.followGateways()
	var reserved []netip.Addr
	for _, l := range m.lookup(holder.ForGateway()) {
		reserved = append(reserved, l.Addr)
	}
	errs = append(errs, m.releaseIfLeased(holder.ForSecond(), netip.Addr{})) // of a daemon that was killed in gatewayOf
	errs = append(errs, m.cfg.Exposure.KeepOnly(reserved), m.setInward(context.Background(), api.InwardOff))
	return api.Hidden{Removed: have, Pods: pods}, errors.Join(errs...)
}
