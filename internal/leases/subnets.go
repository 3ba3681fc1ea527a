package leases

import (
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/ipam"
)

// An attachment may be in subnets of the ranges ("weft attach --in"): it has an address in each, and the rules of its port keep it apart
// from what is outside of them. Its leases remember the subnets.

// subnetsOf returns the subnets that an attachment is to be in: those of a request, or those of before where it requests no addresses.
func (m *Manager) subnetsOf(in api.AttachRequest, before []ipam.Lease) (subnets []netip.Prefix, err error) {
	if len(in.In) > 0 && len(in.IPs)+len(in.AddIPs)+len(in.RemoveIPs) > 0 {
		return nil, hint.New(hint.Invalid, "Give either subnets or addresses.", "the request has both")
	}
	for _, s := range in.In {
		r := m.rangeOf(s.Addr())
		if !r.IsValid() || s.Bits() < r.Bits() {
			return nil, hint.New(hint.Invalid, "\"weft ipam\" shows the ranges of the overlay.", "%s is not a part of a range of the overlay", s)
		}
		if s = s.Masked(); !slices.Contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	if len(in.In) > 0 || len(in.IPs) > 0 {
		return subnets, nil
	}
	for _, l := range before {
		if l.In.IsValid() && l.In != m.rangeOf(l.Addr) && !slices.Contains(subnets, l.In) {
			subnets = append(subnets, l.In)
		}
	}
	return subnets, nil
}

// separated returns those of subnets that are no whole range: a port in a whole range is not kept apart.
func (m *Manager) separated(subnets []netip.Prefix) []netip.Prefix {
	if slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return slices.Contains(m.cfg.Ranges, s) }) {
		return nil
	}
	return subnets
}
