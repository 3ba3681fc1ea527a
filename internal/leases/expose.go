package leases

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// Expose gives the bridge an address, so that the host itself is on the overlay: cidr is api.Auto, or an address with or
// without a prefix length. It returns the leases.
func (m *Manager) Expose(ctx context.Context, cidr string) ([]api.Lease, error) {
	if !m.cfg.Host.Up() {
		return nil, errStarting()
	}
	if cidr == api.Auto {
		leases, err := m.exposeAuto(ctx)
		if err != nil {
			return nil, Explain(err)
		}
		return documents(leases), nil
	}
	addr, err := m.parseAddress(cidr)
	if err != nil {
		return nil, err
	}
	host := holder.ForHost().String()
	lease, err := m.cfg.Allocator.Claim(ctx, host, addr.Addr())
	if err != nil {
		return nil, Explain(err)
	}
	lease.Bits = addr.Bits()
	if err := m.cfg.Host.AddBridgeAddress(addr); err != nil {
		return nil, errors.Join(err, m.cfg.Allocator.Release(host, addr.Addr()))
	}
	return documents([]ipam.Lease{lease}), nil
}

// exposeAuto gives the bridge an address of each range: the one that it has, if it has one. Pods of this node use it as gateway.
func (m *Manager) exposeAuto(ctx context.Context) ([]ipam.Lease, error) {
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
		if err := m.cfg.Host.AddBridgeAddress(l.Prefix()); err != nil {
			return nil, err
		}
	}
	return leases, nil
}

// Hide removes the bridge's addresses and ends their leases. A bridge without any is success.
func (m *Manager) Hide() error {
	if !m.cfg.Host.Up() {
		return errStarting()
	}
	return m.HideAlways()
}

// HideAlways is Hide at any time, for a node that leaves.
func (m *Manager) HideAlways() error {
	defer m.findOrphans() // the addresses must not stay held
	m.surveyMu.Lock()
	defer m.surveyMu.Unlock()
	var errs []error
	// The leases end first: the host gives a bridge the leased addresses again that it has lost.
	if err := m.cfg.Allocator.Release(holder.ForHost().String(), netip.Addr{}); err != nil && !errors.Is(err, ipam.ErrUnknownOwner) {
		errs = append(errs, err)
	}
	have, err := m.cfg.Host.BridgeAddresses()
	errs = append(errs, err)
	for _, a := range have {
		errs = append(errs, m.cfg.Host.RemoveBridgeAddress(a))
	}
	return errors.Join(errs...)
}
