// Package masq lets the overlay's pods talk to the world outside: what leaves the overlay through a host takes that
// host's address.
//
// The rules are a table of their own in nftables, called weft, that is replaced as a whole in one transaction:
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

// ErrNoNFT says that the host has no nft program, or one that does not work.
var ErrNoNFT = errors.New("masq: the nft program is missing or does not work")

// Hint is the mend for ErrNoNFT, a sentence for people.
const Hint = "install the nftables package or start with --no-masquerade"

// Ruleset says what is to be masqueraded.
type Ruleset struct {
	// Ranges are the overlay's, of either family. None means that nothing is masqueraded.
	Ranges []netip.Prefix
	// Bridge is the interface that the pods are behind; what leaves through it keeps its source. Empty: there is none.
	Bridge string
}

// Firewall is a host's table of rules. Its methods may be called concurrently.
type Firewall interface {
	// Apply makes r the table's only content, whatever it was; on an error it stays as it was.
	Apply(ctx context.Context, r Ruleset) error
	// Remove removes the table. That there is none is success.
	Remove(ctx context.Context) error
}

// Validate reports what is wrong with r.
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
		if c <= ' ' || c > '~' || c == '"' || c == '*' { // nft's quotes have no escapes, and * matches more
			return fmt.Errorf("masq: bad bridge name %q", r.Bridge)
		}
	}
	return nil
}
