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
// without a prefix length. It returns the leases. Running pods keep their gateway: an address that Hide has reserved for them comes back.
// Where it cannot, they get the new one.
func (m *Manager) Expose(ctx context.Context, cidr string) ([]api.Exposed, error) {
	if !m.cfg.Host.Up() {
		return nil, errStarting()
	}
	leases, err := m.expose(ctx, cidr)
	if err != nil {
		return nil, err
	}
	moved := m.followGateways()
	docs := make([]api.Exposed, 0, len(leases))
	for _, l := range documents(leases) {
		docs = append(docs, api.Exposed{Lease: l, Moved: moved[l.IP.Addr()]})
	}
	return docs, nil
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
	lease.Bits = addr.Bits()
	if err := m.cfg.Host.AddBridgeAddress(addr); err != nil {
		return nil, errors.Join(err, m.releaseNew(holder.ForHost(), before))
	}
	return []ipam.Lease{lease}, nil
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
		if err := m.cfg.Host.AddBridgeAddress(l.Prefix()); err != nil {
			return nil, err
		}
	}
	return leases, nil
}

// Hide removes the bridge's addresses and ends their leases. A bridge without any is success. Addresses that running pods use as their
// gateway stay reserved for the bridge, so that the next Expose can give them back, and no pod gets one meanwhile; the answer names the
// pods.
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
	return api.Hidden{Removed: have, Pods: pods}, errors.Join(errs...)
}
