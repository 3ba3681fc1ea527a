// Package masq lets pods of the overlay connect to other networks: packets that leave the overlay through a host get the source
// address of that host.
//
// The rules are in a table of nftables, called weft, that is replaced as a whole in one transaction:
//
//	table inet weft {
//	    set overlay4 { type ipv4_addr; flags interval; elements = { 10.32.0.0/12 } }
//	    set overlay6 { type ipv6_addr; flags interval }
//	    chain postrouting {
//	        type nat hook postrouting priority srcnat
//	        oifname "weave" return
//	        ip saddr @overlay4 ip daddr != @overlay4 ip daddr != 224.0.0.0/4 masquerade fully-random
//	        ip6 saddr @overlay6 ip6 daddr != @overlay6 ip6 daddr != ff00::/8 masquerade fully-random
//	    }
//	}
package masq

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Table is the name of the table in nftables. Nothing else may use it.
const Table = "weft"

// ErrNoNFT means that the nft program is missing or does not work.
var ErrNoNFT = errors.New("masq: the nft program is missing or does not work")

// Hint is the remedy for ErrNoNFT, as a sentence for the operator.
const Hint = "install the nftables package or start with --no-masquerade"

// Ruleset determines which packets are masqueraded.
type Ruleset struct {
	// Ranges are the ranges of the overlay, of both families. Without ranges nothing is masqueraded.
	Ranges []netip.Prefix
	// Bridge is the interface of the pods. Packets that leave through it keep their source address. Empty: there is none.
	Bridge string
}

// Firewall is the table of rules of a host. Its methods may be called concurrently.
// See docs/adr/0006-no-nftables-is-a-warning.md.
type Firewall interface {
	// Apply replaces the content of the table by r. On an error the table stays unchanged.
	Apply(ctx context.Context, r Ruleset) error
	// Remove removes the table. It succeeds if there is none.
	Remove(ctx context.Context) error
}

// Validate returns an error if a range or the name of the bridge is invalid.
func (r Ruleset) Validate() error {
	for i, p := range r.Ranges {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("masq: bad range %s", p)
		}
		if slices.ContainsFunc(r.Ranges[:i], p.Overlaps) {
			return fmt.Errorf("masq: range %s overlaps another", p)
		}
	}
	for _, c := range r.Bridge {
		if c <= ' ' || c > '~' || c == '"' || c == '*' { // nft has no escapes in quotes, and * is a wildcard
			return fmt.Errorf("masq: bad bridge name %q", r.Bridge)
		}
	}
	return nil
}
