package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
)

// options are what a user may say about a network.
var options = []string{optionMTU, optionGuard, optionMulticast}

// Limits of an MTU: that of IPv6, and of interfaces.
const (
	minMTU = 1280
	maxMTU = 65535
)

// createNetwork remembers a network. Docker calls it once, and not again after a restart.
func (p *Plugin) createNetwork(ctx context.Context, in createNetworkRequest) (none, error) {
	n := network{ID: in.NetworkID, Guard: api.GuardPods, Created: time.Now().UTC().Round(0)}
	if n.ID == "" {
		return none{}, errors.New("the network has no ID")
	}
	if err := n.setOptions(in.Options); err != nil {
		return none{}, err
	}
	ranges, err := p.allRanges(ctx)
	if err != nil {
		return none{}, err
	}
	for _, data := range append(slices.Clone(in.IPv4Data), in.IPv6Data...) {
		if err := n.addSubnet(data, ranges); err != nil {
			return none{}, err
		}
	}
	if len(n.Subnets) == 0 {
		return none{}, hint.New(hint.Invalid, "Create it with --ipam-driver weft.", "the network has no subnet")
	}
	if other, err := p.state.putNetwork(n); errors.Is(err, errOverlap) {
		return none{}, p.overlapError(n.Subnets[0], other)
	} else if err != nil {
		return none{}, err
	}
	p.reserved.remove(n.Subnets...)
	p.changed.Set()
	return none{}, nil
}

// allRanges returns the ranges of the overlay.
func (p *Plugin) allRanges(ctx context.Context) ([]netip.Prefix, error) {
	s, err := p.daemon.Status(ctx)
	if err == nil && len(s.Range) == 0 {
		err = errors.New("the daemon reports no range")
	}
	ranges := slices.Clone(s.Range)
	for i, r := range ranges {
		ranges[i] = divided(r)
	}
	return ranges, err
}

// addSubnet adds a subnet that one of the IPAM drivers has chosen.
func (n *network) addSubnet(data ipamData, ranges []netip.Prefix) error {
	subnet, err := netip.ParsePrefix(data.Pool)
	if err != nil {
		return fmt.Errorf("the subnet %q: %w", data.Pool, err)
	}
	subnet = subnet.Masked()
	if data.AddressSpace != addressSpace {
		n.Claim = true
		if checkInside(subnet, ranges) != nil {
			return hint.New(hint.Invalid, "Create the network with --ipam-driver weft: Docker's own IPAM does not know the other hosts.",
				"the subnet %s is outside of the overlay's range %s", subnet, join(ranges))
		}
	}
	if err := checkInside(subnet, ranges); err != nil {
		return err
	}
	n.Subnets = append(n.Subnets, subnet)
	if gateway, err := netip.ParsePrefix(data.Gateway); err == nil {
		n.Gateways = append(n.Gateways, gateway.Addr())
	}
	return nil
}

// setOptions reads what a user said with "docker network create -o".
func (n *network) setOptions(all map[string]any) error {
	generic, _ := all[optionGeneric].(map[string]any)
	for name, value := range generic {
		text, isText := value.(string)
		if !isText {
			text = fmt.Sprint(value)
		}
		if err := n.setOption(name, text); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) setOption(name, value string) error {
	bad := func(want string) error {
		return hint.New(hint.Invalid, want, "-o %s=%s: this value is not valid", name, value)
	}
	switch name {
	case optionMTU:
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu < minMTU || mtu > maxMTU {
			return bad(fmt.Sprintf("Write a number of bytes between %d and %d, or leave it out: the overlay knows its MTU.", minMTU, maxMTU))
		}
		n.MTU = mtu
	case optionGuard:
		mode, err := api.ParseGuardMode(value)
		if err != nil || mode == "" {
			return bad("Write pods, host or off.")
		}
		n.Guard = mode
	case optionMulticast:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return bad("Write true or false.")
		}
		n.NoMulticast = !on
	case optionInternal: // Docker passes it in both ways, and does what it says itself
	default:
		return hint.New(hint.Invalid, "The options are "+strings.Join(options, ", ")+".", "unknown option -o %s", name)
	}
	return nil
}

// deleteNetwork forgets a network. Docker refuses to delete one that containers hang on.
func (p *Plugin) deleteNetwork(_ context.Context, in networkRequest) (none, error) {
	p.changed.Set()
	return none{}, p.state.deleteNetwork(in.NetworkID)
}

// separated returns the subnets that a network's ports exchange packets with; none for a network that is a whole range, which it shares
// with all pods, and for one with open ports.
func (n *network) separated(ranges []netip.Prefix) []netip.Prefix {
	if n.Guard == api.GuardOff {
		return nil
	}
	whole := func(s netip.Prefix) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r == s || divided(r) == s })
	}
	if slices.ContainsFunc(n.Subnets, whole) {
		return nil
	}
	return n.Subnets
}
