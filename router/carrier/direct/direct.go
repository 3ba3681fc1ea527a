// Package direct is the carrier that adds no header: where a peer is on the same link, the host routes what pods send to the pods of the
// peer over its underlay interface. It carries unicast IP packets between the addresses that the two nodes own; broadcasts, multicasts,
// other protocols and what must stay on one link go on by another carrier.
//
//	pod -- bridge "weave" --+-- VXLAN or TAP: all else
//	                        |
//	                        +-- the bridge's own MAC, by a rule of nftables -- routing table 6783 -- underlay interface
//
// Pods know each other by their own MAC addresses, as ever: a rule of the bridge family sends the frames for the addresses of a peer up to
// the host, which routes them. So a peer moves to the carrier and back by one change of a map, and where any part of it is missing
// (rules, routes, a flushed table) the frames go by the other carrier at once.
//
//   - node.go: what nodes publish about themselves
//   - direct_linux.go: the carrier; peers_linux.go: which peers it reaches; apply_linux.go: rules and routes for them
//   - rules.go: the rules of nftables; routes_linux.go: the routing table; leftovers_linux.go: those of earlier runs
//   - probes_linux.go: probes, in the packets of probe.go and collect.go
//   - sample_linux.go: what it counts, and whether it can carry; watch_linux.go: copies of frames
//
// See docs/adr/0054-direct-routing.md.
package direct

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/tap/bridge"
)

// Errors that callers branch on, besides those of package carrier. The errors that wrap them name the cause and a remedy.
var (
	// ErrNotOurs: the routing table has routes of another program.
	ErrNotOurs = errors.New("another program uses the routing table")
	// ErrNoLink: no interface of this host has the address.
	ErrNoLink = errors.New("no interface has the address of this node")
	// ErrNoRules: nftables does not work.
	ErrNoRules = errors.New("nftables does not work")
)

// Nodes knows the nodes. Its method may be called from any goroutine, and does not wait.
type Nodes interface {
	// View returns what is known about the nodes now, this one included. It is called once for all that belongs together: shares of
	// different moments may overlap. The returned function is called from one goroutine.
	View() func(peer.ID) Node
}

// Config describes a carrier.
type Config struct {
	// Bridge is the name of the pods' bridge, and Uplinks are those of its ports that lead to other nodes. A "*" at the end stands for any
	// text.
	Bridge  string
	Uplinks []string
	// Table is the number of the routing table, from which the names of the port for probes and of the tables of nftables are derived. Group
	// is that of the log group for probes.
	Table, Group uint16
	// MTU of the pods in bytes.
	MTU int
	// Local is the address of this node on the underlay.
	Local netip.Addr
	// Ranges are those of the overlay. Packets from their addresses are accepted from peers alone, unless Foreign is set: then other nodes
	// may send packets with the addresses of pods over the underlay.
	Ranges  []netip.Prefix
	Foreign bool
	Self    peer.ID
	Nodes   Nodes
}

// PortName returns the name of the hidden port from which the probes of a carrier with a routing table enter the bridge. The port ends with
// the process.
func PortName(table uint16) string { return fmt.Sprintf("%s%dd", bridge.HiddenPrefix, table) }

// tableName returns the name of the tables of nftables of a carrier with a routing table.
func tableName(table uint16) string { return "weft-" + PortName(table) }

// tableOf is the reverse of tableName.
func tableOf(name string) (table uint16, ok bool) {
	_, err := fmt.Sscanf(name, "weft-"+bridge.HiddenPrefix+"%dd", &table)
	return table, err == nil && name == tableName(table)
}

// Numbers of the first and the last table of the kernel itself (rtnetlink(7), RT_TABLE_DEFAULT, RT_TABLE_LOCAL).
const (
	tableDefault = 253
	tableLocal   = 255
)

// goodName excludes names that cannot be quoted in a rule.
var goodName = regexp.MustCompile(`^[!#-)+-~]{1,15}$`)

// minMTU has room for a probe in a TCP segment of IPv6.
const minMTU = carrier.ProbeLen + 40 + 20

// Validate returns an error that wraps carrier.ErrConfig and names the invalid field, or nil.
func (c Config) Validate() error {
	switch {
	case !goodName.MatchString(c.Bridge) || c.Bridge == PortName(c.Table):
		return fmt.Errorf("direct: %w: Bridge %q", carrier.ErrConfig, c.Bridge)
	case c.Table == 0 || c.Table >= tableDefault && c.Table <= tableLocal:
		return fmt.Errorf("direct: %w: Table %d", carrier.ErrConfig, c.Table)
	case c.MTU < minMTU:
		return fmt.Errorf("direct: %w: MTU %d is less than %d", carrier.ErrConfig, c.MTU, minMTU)
	case !usable(c.Local):
		return fmt.Errorf("direct: %w: Local %s is not the address of a node", carrier.ErrConfig, c.Local)
	case c.Self.IsZero():
		return fmt.Errorf("direct: %w: Self is the zero ID", carrier.ErrConfig)
	case c.Nodes == nil:
		return fmt.Errorf("direct: %w: Nodes is missing", carrier.ErrConfig)
	}
	return nil
}

// usable reports whether a can be the address of a node or of its probes.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && !a.IsLoopback()
}

// family is an address family of pods.
type family int

// Families.
const (
	ip4 family = iota
	ip6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ip4
	}
	return ip6
}

// target is a peer with what is known about it.
type target struct {
	carrier.Peer
	node Node
	// hops are the next hops by family; not valid: the carrier does not carry this family to the peer.
	hops [2]netip.Addr
}

// newTarget returns what a peer is to the node self: both of them come to the same result. Where the underlay is IPv4, IPv6 of pods is sent
// to the link-local address of the peer's interface.
func newTarget(p carrier.Peer, self, other Node) target {
	t := target{Peer: p, node: other}
	for _, f := range []family{ip4, ip6} {
		if !self.probe(f).IsValid() || !other.probe(f).IsValid() {
			continue
		}
		switch {
		case f == ip4 || p.Addr.Is6():
			t.hops[f] = p.Addr
		case self.Link.IsValid() && other.Link.IsValid() && self.Link != other.Link:
			t.hops[f] = other.Link
		}
	}
	return t
}

// families returns the families that are carried to the peer.
func (t target) families() (list []family) {
	for f, hop := range t.hops {
		if hop.IsValid() {
			list = append(list, family(f))
		}
	}
	return list
}

// share returns the addresses to which packets are carried, and from which they come.
func (t target) share() (list []netip.Prefix) {
	for _, p := range t.node.Share {
		if t.hops[familyOf(p.Addr())].IsValid() {
			list = append(list, p)
		}
	}
	return list
}

// same reports whether two targets lead to the same rules and routes.
func (t target) same(o target) bool {
	return t.Peer == o.Peer && t.hops == o.hops && slices.Equal(t.node.Probes, o.node.Probes) && slices.Equal(t.node.Share, o.node.Share) &&
		slices.Equal(t.node.Hosts, o.node.Hosts)
}
