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
	if len(in.In) > 0 && (len(in.IPs) > 0 || isChange(in)) {
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
	if len(in.In) > 0 || len(in.IPs) > 0 && !isChange(in) {
		return subnets, nil
	}
	for _, l := range before {
		if l.In.IsValid() && l.In != m.rangeOf(l.Addr) && !slices.Contains(subnets, l.In) {
			subnets = append(subnets, l.In)
		}
	}
	return subnets, nil
}

// separated returns the subnets that the port of an attachment is kept in: none where one is a whole range, or where the port is open.
func (m *Manager) separated(in api.AttachRequest) []netip.Prefix {
	if in.Guard == api.GuardOff || slices.ContainsFunc(in.In, func(s netip.Prefix) bool { return slices.Contains(m.cfg.Ranges, s) }) {
		return nil
	}
	return in.In
}

// inSubnets returns an address that is to be added to an attachment in subnets, with the prefix length of its subnet, and an error where
// it is outside of them. Without subnets it returns the address as it is.
func inSubnets(a netip.Prefix, subnets []netip.Prefix) (netip.Prefix, error) {
	if len(subnets) == 0 {
		return a, nil
	}
	i := slices.IndexFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a.Addr()) })
	if i < 0 {
		return a, hint.New(hint.Invalid, "Choose an address in them, or attach the namespace anew without --in.",
			"%s is outside of the subnets %s of the attachment", a.Addr(), joinPrefixes(subnets))
	}
	return netip.PrefixFrom(a.Addr(), max(a.Bits(), subnets[i].Bits())), nil
}
