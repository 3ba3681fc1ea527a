package hostfilter

import (
	"net/netip"
	"slices"
	"strings"
)

// Match is whether a condition or rule applies to a packet. The zero Match is invalid; a larger Match is more certain.
type Match uint8

// Matches.
const (
	Never Match = iota + 1
	Maybe
	Always
)

// Condition is one condition of a rule.
type Condition interface {
	// match reports whether a packet meets the condition.
	match(p *Packet) Match
}

// certain returns Always or Never.
func certain(matches bool) Match {
	if matches {
		return Always
	}
	return Never
}

// Not is the negation of a condition.
type Not struct{ Condition Condition }

func (n Not) match(p *Packet) Match { return Never + Always - n.Condition.match(p) }

// Unknown is a condition that this package does not evaluate.
type Unknown struct{}

func (Unknown) match(*Packet) Match { return Maybe }

// In is met by packets that arrive on one of the interfaces. A name may end in a wildcard: * or +.
type In []string

func (names In) match(p *Packet) Match { return matchName(names, p.In) }

// Out is met by packets that leave by one of the interfaces.
type Out []string

func (names Out) match(p *Packet) Match { return matchName(names, p.Out) }

// matchName compares an interface with names; an empty interface stands for one that is not known.
func matchName(names []string, link string) Match {
	best := Never
	for _, name := range names {
		stem, wild := name, false
		for _, mark := range []string{"*", "+"} {
			if s, found := strings.CutSuffix(name, mark); found {
				stem, wild = s, true
			}
		}
		switch {
		case wild && stem == "", name == link:
			return Always
		case link == "":
			best = Maybe
		case wild && strings.HasPrefix(link, stem):
			return Always
		}
	}
	return best
}

// Src is met by packets from one of the prefixes.
type Src []netip.Prefix

func (list Src) match(p *Packet) Match { return matchAddr(list, p.Src) }

// Dst is met by packets to one of the prefixes.
type Dst []netip.Prefix

func (list Dst) match(p *Packet) Match { return matchAddr(list, p.Dst) }

// matchAddr compares the possible addresses of a packet with prefixes; an invalid prefix stands for any address.
func matchAddr(list []netip.Prefix, possible netip.Prefix) Match {
	best := Never
	for _, prefix := range list {
		switch {
		case prefix.Bits() == 0 && (!possible.IsValid() || prefix.Addr().Is4() == possible.Addr().Is4()):
			return Always
		case !possible.IsValid():
			best = Maybe
		case !prefix.Overlaps(possible):
		case prefix.Bits() <= possible.Bits():
			return Always
		default:
			best = Maybe
		}
	}
	return best
}

// Protocol is met by packets of one of the transport protocols, by name or number.
type Protocol []string

func (list Protocol) match(p *Packet) Match { return certain(slices.Contains(list, p.Protocol)) }

// DstPort is met by packets of TCP and UDP to a port in one of the ranges.
type DstPort []PortRange

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

func (list DstPort) match(p *Packet) Match {
	if p.DstPort == 0 {
		return Maybe
	}
	return certain(slices.ContainsFunc(list, func(r PortRange) bool { return r.First <= p.DstPort && p.DstPort <= r.Last }))
}

// SrcPort is met by packets of TCP and UDP from a port in one of the ranges. Nodes and pods send from ports above 1023.
type SrcPort []PortRange

func (list SrcPort) match(*Packet) Match {
	const first, last = 1024, 65535
	best := Never
	for _, r := range list {
		switch {
		case r.First <= first && r.Last == last:
			return Always
		case r.Last >= first:
			best = Maybe
		}
	}
	return best
}

// State is met by packets of connections in one of the states: new, established, related, invalid, untracked.
type State []string

func (list State) match(p *Packet) Match {
	state := "new"
	if p.Established {
		state = "established"
	}
	return certain(slices.Contains(list, state))
}

// Family is met by packets of the address family: IPv4 or IPv6.
type Family string

func (f Family) match(p *Packet) Match { return certain(p.Family == string(f)) }

// DstLocal is met by packets to an address of this host.
type DstLocal struct{}

func (DstLocal) match(p *Packet) Match { return certain(slices.Contains(p.Hooks, "input")) }

// Group is met by packets to a group of hosts: broadcast and multicast.
type Group struct{}

func (Group) match(*Packet) Match { return Never }

// Mapped is met by packets of connections with a destination that a rule has changed. Packets of this package have none.
type Mapped struct{}

func (Mapped) match(*Packet) Match { return Never }
