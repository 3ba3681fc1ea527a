// Package nodefilter keeps pods away from the ports at which nodes listen for each other: gossip, datagrams and VXLAN.
//
// No pod needs them. Where a network has no secret, a program in a pod that reaches the gossip port of a node could join as a node; and
// where it has one, the program could use up memory of the node. The rules are in a table of nftables, called weft-nodes:
//
//	table inet weft-nodes {
//	    set own { type inet_proto . inet_service; elements = { 6 . 6783, 17 . 6783, 17 . 6784, 17 . 6785 } }
//	    set nodes4 { type ipv4_addr; elements = { 192.0.2.7, … } }
//	    set nodes6 { type ipv6_addr }
//	    counter pods {}
//	    chain input {
//	        type filter hook input priority filter
//	        iifname "weave" meta l4proto . th dport @own counter name pods drop
//	        iifname "vweft*" …                        the other interfaces, which some frames to the host come from
//	    }
//	    chain forward {
//	        type filter hook forward priority filter
//	        iifname "weave" ip daddr @nodes4 meta l4proto . th dport @own counter name pods drop
//	        iifname "weave" ip6 daddr @nodes6 meta l4proto . th dport @own counter name pods drop
//	    }
//	}
//
// Input is about this host, at any of its addresses. Forward is about the other nodes, at the addresses by which this node knows them:
// there, packets of pods have the address of this host, so the other node cannot recognize them. Pods reach the same ports of other
// pods, and of hosts that are no nodes. See docs/adr/0038-kernel-path-without-a-secret.md.
package nodefilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Table is the name of the table in nftables. Nothing else may use it.
const Table = "weft-nodes"

// ErrNoNFT means that the nft program is missing or does not work.
var ErrNoNFT = errors.New("nodefilter: the nft program is missing or does not work")

// Hint is the remedy for ErrNoNFT, as a sentence for the operator.
const Hint = "Install the nftables package, or close the ports to pods by other rules."

// Protocol is a transport protocol, by its number (IANA).
type Protocol uint8

// Protocols.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// Port is a port at which a node listens.
type Port struct {
	Protocol Protocol
	Number   uint16
}

// Ruleset determines what is closed.
type Ruleset struct {
	// Bridge is the interface of the pods.
	Bridge string
	// Links are further interfaces from which packets of the overlay may reach the host, of which a "*" at the end matches several.
	Links []string
	// Own are the ports of this host and of the other nodes.
	Own []Port
	// Nodes are the addresses of the other nodes on the underlay, each once.
	Nodes []netip.Addr
	// KeepNodes: the nodes are not known yet. Those of an earlier run stay closed.
	KeepNodes bool
}

// Firewall is the table of rules of a host. Its methods may be called concurrently.
type Firewall interface {
	// Apply makes the table that of r. On an error the table stays unchanged.
	Apply(ctx context.Context, r Ruleset) error
	// Intact reports whether the table is as Apply left it last. It starts no program.
	Intact() (bool, error)
	// Dropped returns how many packets were dropped since the table was made.
	Dropped(ctx context.Context) (uint64, error)
	// Remove removes the table. It succeeds if there is none.
	Remove(ctx context.Context) error
}

// Validate returns an error if the name of an interface cannot be in a rule, or an address is none of a node.
func (r Ruleset) Validate() error {
	for _, name := range append(slices.Clone(r.Links), r.Bridge) {
		if name == "" || len(name) > maxName {
			return fmt.Errorf("nodefilter: bad interface name %q", name)
		}
		for _, c := range name {
			if c <= ' ' || c > '~' || c == '"' { // nft has no escapes in quotes
				return fmt.Errorf("nodefilter: bad interface name %q", name)
			}
		}
	}
	for _, addr := range r.Nodes {
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("nodefilter: bad address %s", addr)
		}
	}
	return nil
}

// maxName is the length of the longest name of an interface (IFNAMSIZ, linux/if.h).
const maxName = 15
