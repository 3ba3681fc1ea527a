// Package guard decides which frames the ports of the overlay's bridge may send and receive.
//
// Three rulesets are in one table. The first protects the host, for every port: the host accepts no router advertisements and no
// redirects from the overlay, and no port sends as the bridge. The second binds a port to a pod: the pod sends only with its MAC
// and its addresses, in ARP, neighbor discovery, IPv4 and IPv6; without VLAN tags, router advertisements, redirects and answers of
// a DHCP server. A bound pod without an IPv6 address neither sends nor receives IPv6. The third separates subnets: a port that is in some
// exchanges packets with these and with its host alone, and other ports of pods get nothing from them (subnets.go).
//
// The table is in the bridge family of nftables, called weft-guard. Its chains are before those of br_netfilter:
//
//	prerouting   every frame from a port      -> broadcasts, from-SUBNETS, uplink, bound, shared
//	input        frames that reach the host   -> host
//	postrouting  frames that reach a port     -> to-SUBNETS, deliver
//
// A table of the same name in the family inet drops the few packets that reach the host from a port without passing those hooks, and
// what the host would forward into a subnet: host.go.
//
// rules.go has the constant rules, table.go the sets that change with the pods. Rules match ports by name, so those of a pod are in
// force before its interface exists. See docs/adr/0029-guard.md.
package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/ether"
)

// Table is the name of the table in nftables. Nothing else may use it.
const Table = "weft-guard"

// ErrNoNFT means that the nft program is missing or does not work, or that the kernel has no bridge family.
var ErrNoNFT = errors.New("guard: the nft program or the bridge family of nftables is missing or does not work")

// Hint is the remedy for ErrNoNFT, as a sentence for the operator.
const Hint = "Install the nftables package, and use a kernel with CONFIG_NF_TABLES_BRIDGE."

// Reason says why a frame was dropped. The text is a label of weft_guard_drops_total.
type Reason string

// Reasons of dropped frames.
const (
	ReasonMAC           Reason = "mac"           // the source MAC is not the pod's, or is that of the bridge
	ReasonAddress       Reason = "address"       // the source address is not the pod's, or is one of the bridge
	ReasonARP           Reason = "arp"           // ARP claims an address that is not the pod's
	ReasonND            Reason = "nd"            // neighbor discovery does, or is fragmented (RFC 6980)
	ReasonAdvertisement Reason = "advertisement" // router advertisement
	ReasonRedirect      Reason = "redirect"      // ICMP or ICMPv6 redirect
	ReasonDHCP          Reason = "dhcp"          // answer of a DHCP server
	ReasonTag           Reason = "tag"           // VLAN tag
	ReasonEthertype     Reason = "ethertype"     // neither IPv4, IPv6 nor ARP
	ReasonIPv6          Reason = "ipv6"          // IPv6 from or to a pod without an IPv6 address
	ReasonMalformed     Reason = "malformed"     // the headers cannot be checked
	ReasonSubnet        Reason = "subnet"        // between a subnet and what is outside of it
	ReasonGroup         Reason = "group"         // to the host, for a group address that no bridge forwards (01:80:c2:00:00:0x)
	ReasonBroadcast     Reason = "broadcast"     // a pod sends more broadcasts than the limit
)

// Reasons returns all reasons. The caller owns the slice.
func Reasons() []Reason {
	return []Reason{
		ReasonMAC, ReasonAddress, ReasonARP, ReasonND, ReasonAdvertisement, ReasonRedirect, ReasonDHCP, ReasonTag, ReasonEthertype,
		ReasonIPv6, ReasonMalformed, ReasonSubnet, ReasonGroup, ReasonBroadcast,
	}
}

// Port is a port that is bound to a pod.
type Port struct {
	// Link is the name of the host end. The interface does not need to exist yet.
	Link string `json:"link"`
	// MAC and Addrs are what the pod sends with. The link-local address that follows from the MAC (RFC 4291, appendix A) is implied if
	// the pod has an IPv6 address.
	MAC   ether.Addr   `json:"mac"`
	Addrs []netip.Addr `json:"addrs"`
	// Allow are further addresses that the pod may use.
	Allow []netip.Prefix `json:"allow,omitempty"`
	// Subnets are the only subnets that the port exchanges packets with, besides this host; none: it is in no subnet of its own.
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	// HostOnly limits what a port in subnets sends to this host to the host's own addresses: it does not use the host as a router.
	HostOnly bool `json:"host_only,omitempty"`
}

// hasIPv6 reports whether the pod may use IPv6.
func (p Port) hasIPv6() bool {
	for _, a := range p.prefixes() {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

// prefixes returns the addresses of the pod, without the link-local one.
func (p Port) prefixes() []netip.Prefix {
	out := make([]netip.Prefix, 0, len(p.Addrs)+len(p.Allow))
	for _, a := range p.Addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, a := range p.Allow {
		out = append(out, a.Masked())
	}
	return out
}

// all returns prefixes, and the link-local address where the pod has an IPv6 address.
func (p Port) all() []netip.Prefix {
	out := p.prefixes()
	if p.hasIPv6() {
		local := p.MAC.LinkLocal()
		out = append(out, netip.PrefixFrom(local, local.BitLen()))
	}
	return out
}

// Ruleset is the content of the table.
type Ruleset struct {
	// Uplinks are the ports with frames of other nodes: the TAP and the VXLAN devices. A last "*" stands for any characters.
	Uplinks []string
	// Others are further ports of the bridge that are no pods.
	Others []string
	// PodPrefix is the prefix of the names of the pods' ports.
	PodPrefix string
	// Strict drops router advertisements, redirects and answers of DHCP servers from other nodes.
	Strict bool
	// Unbound says that pods may be there that are not bound.
	Unbound bool
	// BridgeMAC and BridgeAddrs are those of the bridge, with its link-local address. No port sends with them.
	BridgeMAC   ether.Addr
	BridgeAddrs []netip.Addr
	// Open are the ports of pods that send what they like to other pods.
	Open []string
	// Bound are the ports that are bound to pods. All other ports of pods send no router advertisements, redirects and answers of DHCP
	// servers.
	Bound []Port
	// Broadcasts is how many broadcasts and neighbor solicitations a pod sends a second; 0: any number. Each goes to all nodes.
	Broadcasts int
	// Bridge is the name of the bridge. Separated are the ports with subnets, whether they are bound or not.
	Bridge    string
	Separated []Port
}

// needsDelivery reports whether frames have to be checked before they reach a bound port: if a port of this node may send or receive
// what another one may not. Otherwise it is enough to check the frames of other nodes where they enter.
func (r Ruleset) needsDelivery() bool {
	lacksIPv6 := func(p Port) bool { return !p.hasIPv6() }
	mixed := slices.ContainsFunc(r.Bound, Port.hasIPv6) && slices.ContainsFunc(r.Bound, lacksIPv6)
	return len(r.Bound) > 0 && (!r.Strict || r.Unbound || len(r.Others) > 0 || mixed)
}

// Validate returns an error if a name or an address is invalid.
func (r Ruleset) Validate() error {
	uplinks := make([]string, 0, len(r.Uplinks))
	for _, name := range r.Uplinks {
		uplinks = append(uplinks, strings.TrimSuffix(name, "*"))
	}
	for _, names := range [][]string{uplinks, r.Others, r.Open, {r.PodPrefix}} {
		for _, name := range names {
			if err := validName(name); err != nil {
				return err
			}
		}
	}
	for _, p := range slices.Concat(r.Bound, r.Separated) {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	if len(r.Separated) > 0 {
		return validName(r.Bridge)
	}
	return nil
}

// Validate returns an error if the name or an address is invalid.
func (p Port) Validate() error {
	if err := validName(p.Link); err != nil {
		return err
	}
	if p.MAC.IsZero() || p.MAC.IsMulticast() {
		return fmt.Errorf("guard: port %s: bad MAC %s", p.Link, p.MAC)
	}
	for _, s := range p.Subnets {
		if !s.IsValid() || s.Addr().Is4In6() || s != s.Masked() {
			return fmt.Errorf("guard: port %s: bad subnet %s", p.Link, s)
		}
	}
	for _, a := range p.Addrs {
		if a.Zone() != "" {
			return fmt.Errorf("guard: port %s: bad address %s", p.Link, a)
		}
	}
	for _, a := range p.prefixes() {
		if ip := a.Addr(); !a.IsValid() || ip.Is4In6() || a.IsSingleIP() && (ip.IsUnspecified() || ip.IsMulticast()) {
			return fmt.Errorf("guard: port %s: bad address %s", p.Link, a)
		}
	}
	return nil
}

// validName returns an error for a name that cannot be in a rule: nft has no escapes in quotes, and * is a wildcard.
func validName(name string) error {
	bad := func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '*' }
	if name == "" || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("guard: bad interface name %q", name)
	}
	return nil
}

// Firewall is the table of rules of a host. Its methods may be called concurrently.
type Firewall interface {
	// Apply replaces the content of the table by r, in one transaction. On an error the previous rules stay.
	Apply(ctx context.Context, r Ruleset) error
	// Intact reports whether the table is exactly as Apply left it; false before the first Apply.
	// It asks the kernel, and starts no program.
	Intact() (bool, error)
	// Dropped returns how many frames have been dropped since the table was made, by reason.
	Dropped(ctx context.Context) (map[Reason]uint64, error)
	// Remove removes the table. It succeeds if there is none.
	Remove(ctx context.Context) error
}
