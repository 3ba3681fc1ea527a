// Package inward lets packets from outside of the overlay, which a node forwards to pods of any node, be answered the same way: by that
// node. Otherwise a pod answers by the gateway of its own node, and the connection breaks. See docs/adr/0057-inward.md.
//
// A node that keeps no addresses of clients ("nat") masks them: the pod sees the address of the node, and answers to it.
//
//	table ip weft-inward {
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat
//	        oifname "weave" ip saddr != { 10.32.0.0/12 } ip daddr { 10.32.0.0/12 } masquerade fully-random
//	    }
//	}
//
// A node that keeps them ("keep") publishes the MAC of its bridge: it is a gateway. The other nodes remember to which flows its frames
// belong, and give the answers of their pods that MAC, so that the bridge sends them to the gateway instead of to its own host (here for
// IPv4):
//
//	table bridge weft-inward {
//	    set flows4-0657… { type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic,timeout }
//	    set pairs4-0657… { type ipv4_addr . ipv4_addr; flags dynamic,timeout }
//	    chain prerouting {
//	        type filter hook prerouting priority -240
//	        iifname "weft*" ether type ip ip saddr != { 10.32.0.0/12 } ip daddr { 10.32.0.0/12 }
//	            ether saddr vmap { 06:57:… : goto learn4-0657… }
//	        iifname "weft*" accept
//	        ether daddr 06:57:… ether type ip ip saddr { 10.32.0.0/12 } ip daddr != { 10.32.0.0/12 } jump answers4
//	    }
//	    chain answers4 { jump back4-0657… }
//	    chain learn4-0657… { update @pairs4-0657… { ip saddr . ip daddr timeout 2h } … }
//	    chain back4-0657… {
//	        ip daddr . ip saddr . meta l4proto . th dport . th sport != @flows4-0657… return
//	        …
//	        ether daddr set 06:57:… accept
//	    }
//	}
//
// The sets fill themselves. They belong to a gateway, because nft 1.0.6 cannot put a MAC into a map. rules.go has the rules, keeper.go
// when they are in force.
package inward

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/ether"
)

// Table is the name of the tables in nftables, of the families ip, ip6 and bridge. Nothing else may use it.
const Table = "weft-inward"

// ErrNoNFT means that the nft program is missing or does not work.
var ErrNoNFT = errors.New("inward: the nft program is missing or does not work")

// Ruleset determines the rules.
type Ruleset struct {
	// Ranges are those of the overlay, Bridge is the interface of the pods.
	Ranges []netip.Prefix
	Bridge string
	// Uplinks are the names of the ports that lead to other nodes, or patterns.
	Uplinks []string
	// Masquerade masks the addresses of clients that reach pods through this node.
	Masquerade bool
	// ShowsInput says that rules see the input interface of packets that are forwarded when they leave: since Linux 5.7.
	ShowsInput bool
	// MAC is that of the bridge.
	MAC ether.Addr
	// Gateways are the MACs of the nodes that keep the addresses of clients, without this one, sorted.
	Gateways []ether.Addr
}

// Validate returns an error if a part cannot be written in the syntax of nft.
func (r Ruleset) Validate() error {
	for _, p := range r.Ranges {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("inward: bad range %s", p)
		}
	}
	for _, name := range append([]string{r.Bridge}, r.Uplinks...) {
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' }) {
			return fmt.Errorf("inward: bad interface name %q", name)
		}
	}
	if strings.Contains(r.Bridge, "*") {
		return fmt.Errorf("inward: bad bridge name %q", r.Bridge)
	}
	if slices.ContainsFunc(append([]ether.Addr{r.MAC}, r.Gateways...), func(a ether.Addr) bool { return a.IsZero() || a.IsMulticast() }) {
		return fmt.Errorf("inward: bad MAC among %s and %v", r.MAC, r.Gateways)
	}
	return nil
}

// ranges returns those of a family.
func (r Ruleset) ranges(f family) (list []string) {
	for _, p := range r.Ranges {
		if p.Addr().Is4() == f.is4 {
			list = append(list, p.Masked().String())
		}
	}
	return list
}
