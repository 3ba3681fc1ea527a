package leases

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// isChange reports whether a request adds addresses to an attachment or removes some, and leaves the others as they are.
func isChange(in api.AttachRequest) bool { return len(in.AddIPs)+len(in.RemoveIPs) > 0 }

// changed returns a request for a change with all addresses that the attachment of h is to have: those of before, less the removed ones,
// and the added ones, each with its prefix length. Addresses that are there already, or not any more, are no error.
func (m *Manager) changed(in api.AttachRequest, h holder.Holder, before []ipam.Lease) (api.AttachRequest, error) {
	if len(in.IPs) > 0 {
		return in, hint.New(hint.Invalid, "Give either all addresses, or those to add and to remove.", "the request has both")
	}
	have, _, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	if err != nil || len(before) == 0 {
		return in, hint.New(hint.NotFound, "Attach it first, without an address to add or to remove.",
			"%s in %s is not attached as %q", in.Ifname, in.Netns, h)
	}
	var all []netip.Prefix
	for _, l := range before {
		p := l.Prefix()
		if i := slices.IndexFunc(have, func(a netip.Prefix) bool { return a.Addr() == l.Addr }); i >= 0 {
			p = have[i]
		}
		all = append(all, p)
	}
	for _, text := range in.RemoveIPs {
		p, err := m.parseAddress(text)
		if err != nil {
			return in, err
		}
		all = slices.DeleteFunc(all, func(a netip.Prefix) bool { return a.Addr() == p.Addr() })
	}
	for _, text := range in.AddIPs {
		p, err := m.parseAddress(text)
		if err != nil {
			return in, err
		}
		if p, err = inSubnets(p, in.In); err != nil {
			return in, err
		}
		i := slices.IndexFunc(all, func(a netip.Prefix) bool { return a.Addr() == p.Addr() })
		if i < 0 {
			all = append(all, p)
		} else {
			all[i] = p
		}
	}
	if len(all) == 0 {
		return in, hint.New(hint.Refused, "Run \"weft detach\" to end the attachment, or add another address.",
			"%s in %s would have no address left", in.Ifname, in.Netns)
	}
	for _, p := range all {
		in.IPs = append(in.IPs, p.String())
	}
	return in, nil
}

// keepMAC returns spec with the MAC that the interface has, if that is the MAC of an address that stays: no other pod gets it then.
func (m *Manager) keepMAC(in api.AttachRequest, spec podlink.Spec) podlink.Spec {
	_, mac, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	if err == nil && slices.ContainsFunc(spec.Addresses, func(a podlink.Address) bool { return ether.FromIP(a.Prefix.Addr()) == mac }) {
		spec.MAC = mac
	}
	return spec
}

// releaseRemoved ends the leases of addresses that a change has removed, which the interface may have lacked.
func (m *Manager) releaseRemoved(in api.AttachRequest, h holder.Holder, spec podlink.Spec) (err error) {
	if !isChange(in) {
		return nil
	}
	for _, l := range m.lookup(h) {
		stays := slices.ContainsFunc(spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr() == l.Addr })
		if !stays && err == nil {
			err = m.releaseIfLeased(h, l.Addr)
		}
	}
	return err
}
