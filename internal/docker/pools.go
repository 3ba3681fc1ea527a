package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/hint"
)

// addressSpace is the name of the only address space: the ranges of the overlay.
const addressSpace = "weft"

// pool is a subnet of a range from which addresses are allocated. Its ID contains all of it, so that nothing has to be remembered.
type pool struct {
	subnet netip.Prefix
	within netip.Prefix // from where addresses are allocated: subnet, or a part of it ("--ip-range")
}

// id returns the ID of a pool, such as 10.32.1.0/24 or 10.32.1.0/24,10.32.1.128/25.
func (p pool) id() string {
	if p.within == p.subnet {
		return p.subnet.String()
	}
	return p.subnet.String() + "," + p.within.String()
}

// parsePool reads an ID.
func parsePool(id string) (pool, error) {
	subnet, within, parted := strings.Cut(id, ",")
	p, err := netip.ParsePrefix(subnet)
	if err != nil {
		return pool{}, fmt.Errorf("%q is not a pool of weft: %w", id, err)
	}
	out := pool{subnet: p.Masked(), within: p.Masked()}
	if parted {
		if p, err = netip.ParsePrefix(within); err != nil {
			return pool{}, fmt.Errorf("%q is not a pool of weft: %w", id, err)
		}
		out.within = p.Masked()
	}
	return out, nil
}

// requestPool returns the subnet of a network that is about to be created: the requested one, or one that this host shares with another
// node, or a free one.
func (p *Plugin) requestPool(ctx context.Context, in requestPoolRequest) (requestPoolResponse, error) {
	if in.AddressSpace != addressSpace {
		return requestPoolResponse{}, hint.New(hint.Invalid, "Leave it out.", "unknown address space %q", in.AddressSpace)
	}
	for name := range in.Options {
		return requestPoolResponse{}, hint.New(hint.Invalid, "Leave it out: the IPAM driver has no options.", "unknown option --ipam-opt %s",
			name)
	}
	ranges, err := p.ranges(ctx, in.V6)
	if err != nil {
		return requestPoolResponse{}, err
	}
	var chosen pool
	if in.Pool == "" {
		chosen.subnet, err = p.chooseOf(ctx, ranges)
		chosen.within = chosen.subnet
	} else {
		chosen, err = p.requestedPool(in, ranges)
	}
	if err != nil {
		return requestPoolResponse{}, err
	}
	if !p.reserved.add(chosen.subnet) {
		return requestPoolResponse{}, hint.New(hint.Refused, "Try again in a moment.", "another network with the subnet %s is being created",
			chosen.subnet)
	}
	return requestPoolResponse{PoolID: chosen.id(), Pool: chosen.subnet.String()}, nil
}

// dividedBits is the shortest prefix of IPv6 that is divided among nodes: of a larger range, only the first 2^40 addresses are (package
// ipam/ring).
const dividedBits = 128 - 40

// divided returns the part of a range that nodes lease addresses of.
func divided(r netip.Prefix) netip.Prefix {
	if r.Addr().Is6() && r.Bits() < dividedBits {
		return netip.PrefixFrom(r.Addr(), dividedBits)
	}
	return r
}

// releasePool ends the reservation of a subnet.
func (p *Plugin) releasePool(_ context.Context, in releasePoolRequest) (none, error) {
	if from, err := parsePool(in.PoolID); err == nil {
		p.reserved.remove(from.subnet)
	}
	return none{}, nil
}

// chooseOf is choosePool in the first of some ranges that has a free subnet.
func (p *Plugin) chooseOf(ctx context.Context, ranges []netip.Prefix) (subnet netip.Prefix, err error) {
	for _, r := range ranges {
		subnet, err = p.choosePool(ctx, r)
		if e, full := errors.AsType[*hint.Error](err); !full || e.Kind != hint.Exhausted {
			return subnet, err
		}
	}
	return subnet, err
}

// ranges returns the divided parts of the ranges of the overlay in one family, at least one.
func (p *Plugin) ranges(ctx context.Context, v6 bool) ([]netip.Prefix, error) {
	s, err := p.daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	ranges := slices.DeleteFunc(slices.Clone(s.Range), func(r netip.Prefix) bool { return r.Addr().Is6() != v6 })
	if len(ranges) == 0 {
		family, example := "IPv4", "10.32.0.0/12"
		if v6 {
			family, example = "IPv6", "fd32::/64"
		}
		return nil, hint.New(hint.Invalid, "Start all nodes with a further --range "+example+", or create the network without "+family+".",
			"the overlay has no range of %s, but %s", family, join(s.Range))
	}
	for i, r := range ranges {
		ranges[i] = divided(r)
	}
	return ranges, nil
}

// requestedPool checks a subnet that a user has chosen.
func (p *Plugin) requestedPool(in requestPoolRequest, ranges []netip.Prefix) (pool, error) {
	subnet, err := parseSubnet("--subnet", in.Pool)
	if err != nil {
		return pool{}, err
	}
	if err := checkInside(subnet, ranges); err != nil {
		return pool{}, err
	}
	for _, n := range p.state.networks() {
		if overlap(n.Subnets, []netip.Prefix{subnet}) {
			return pool{}, p.overlapError(subnet, n)
		}
	}
	out := pool{subnet: subnet, within: subnet}
	if in.SubPool == "" {
		return out, nil
	}
	if out.within, err = parseSubnet("--ip-range", in.SubPool); err != nil {
		return pool{}, err
	}
	if !contains(subnet, out.within) {
		return pool{}, hint.New(hint.Invalid, "Choose a part of the subnet.", "--ip-range %s is not a part of --subnet %s", out.within, subnet)
	}
	return out, nil
}

// parseSubnet reads a subnet, and refuses one that has no room for a container and a gateway.
func parseSubnet(flag, text string) (netip.Prefix, error) {
	s, err := netip.ParsePrefix(text)
	if err != nil {
		return s, hint.New(hint.Invalid, "Write an address and a prefix length, such as 10.32.1.0/24.", "%s %q is not a subnet", flag, text)
	}
	if flag == "--subnet" && s.Addr().BitLen()-s.Bits() < 2 {
		return s, hint.New(hint.Invalid, "Choose a prefix length of at most "+fmt.Sprint(s.Addr().BitLen()-2)+".",
			"%s %s has no room for a container", flag, s)
	}
	return s.Masked(), nil
}

// checkInside returns an error unless one of ranges contains a subnet.
func checkInside(subnet netip.Prefix, ranges []netip.Prefix) error {
	if slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return contains(r, subnet) }) {
		return nil
	}
	example := ranges[0]
	for _, r := range ranges {
		if r.Addr().Is4() == subnet.Addr().Is4() {
			example = r
		}
	}
	if free := freeSubnet(example, nil); free.IsValid() {
		example = free
	}
	return hint.New(hint.Invalid, "Choose a part of it, such as "+example.String()+".",
		"the subnet %s is outside of the overlay's range %s", subnet, join(ranges))
}

// overlapError is the error about a subnet that overlaps a network of this host.
func (p *Plugin) overlapError(subnet netip.Prefix, n network) error {
	return hint.New(hint.Refused, "Choose another --subnet, or remove that network.",
		"the subnet %s overlaps the network %s of this host (%s)", subnet, p.known.name(n.ID), join(n.Subnets))
}

// choosePool returns the subnet of a network for which the user has named none. Docker does not say which network it is for: where other
// nodes have one that this host lacks, it is taken to be that one; published.go finds out when it was not.
func (p *Plugin) choosePool(ctx context.Context, within netip.Prefix) (netip.Prefix, error) {
	status, err := p.daemon.Status(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	published, err := published(ctx, p.daemon, status.ID)
	if err != nil {
		return netip.Prefix{}, err
	}
	taken := p.reserved.all()
	for _, n := range p.state.networks() {
		taken = append(taken, n.Subnets...)
	}
	var missing []publishedNetwork
	for _, n := range published {
		if !contains(within, n.subnet) || n.subnet.Addr().BitLen()-n.subnet.Bits() < 2 {
			continue
		}
		if !n.own && !overlap(taken, []netip.Prefix{n.subnet}) &&
			!slices.ContainsFunc(missing, func(m publishedNetwork) bool { return m.subnet == n.subnet }) {
			missing = append(missing, n)
		}
	}
	if len(missing) == 1 {
		return missing[0].subnet, nil
	}
	for _, n := range missing {
		taken = append(taken, n.subnet)
	}
	free := freeSubnet(within, taken)
	if len(missing) > 1 {
		texts := make([]string, 0, len(missing))
		for _, n := range missing {
			texts = append(texts, fmt.Sprintf("%s (%s on %s)", n.subnet, n.name, n.node))
		}
		advice := "Name the one of your network with --subnet."
		if free.IsValid() {
			advice = "Name the one of your network with --subnet, or a new one such as " + free.String() + "."
		}
		return netip.Prefix{}, hint.New(hint.Refused, advice,
			"other nodes have the networks %s", strings.Join(texts, ", "))
	}
	if !free.IsValid() {
		return netip.Prefix{}, hint.New(hint.Exhausted, "Remove a network, or name a smaller --subnet.", "no part of %s is free for a network",
			within)
	}
	return free, nil
}

// Sizes of the subnets that freeSubnet returns: as prefix lengths, and in bits more than that of the range.
const (
	usualBits4, moreBits4, mostBits4 = 24, 4, 30
	moreBits6, mostBits6             = 16, 124
)

// freeSubnet returns a part of a range that overlaps none of those that are taken; invalid where there is none. It is the last one: nodes
// lease addresses of pods from the beginning of their shares.
func freeSubnet(within netip.Prefix, taken []netip.Prefix) netip.Prefix {
	bits := min(max(usualBits4, within.Bits()+moreBits4), mostBits4)
	if within.Addr().Is6() {
		bits = min(within.Bits()+moreBits6, mostBits6)
	}
	if bits <= within.Bits() {
		return netip.Prefix{}
	}
	last := within.Masked().Addr().AsSlice()
	for i := within.Bits(); i < bits; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(last)
	for s := netip.PrefixFrom(addr, bits); ; {
		i := slices.IndexFunc(taken, s.Overlaps)
		if i < 0 {
			return s
		}
		// The next one before the taken one, which may be larger.
		first := s.Addr()
		if taken[i].Bits() < bits {
			first = taken[i].Masked().Addr()
		}
		before := first.Prev()
		if !before.IsValid() || !within.Contains(before) {
			return netip.Prefix{}
		}
		s = netip.PrefixFrom(before, bits).Masked()
	}
}

// contains reports whether a prefix contains all of another one.
func contains(p, other netip.Prefix) bool {
	return p.Bits() <= other.Bits() && p.Contains(other.Addr())
}

// join returns prefixes as a text.
func join(list []netip.Prefix) string {
	texts := make([]string, 0, len(list))
	for _, p := range list {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}
