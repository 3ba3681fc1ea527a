// Package firewall brings the decisions of package policy into the host's nftables: a table of its own, that nothing else may
// change, and no other is touched.
//
//	table inet weft-policy {
//	    map ingress4, ingress6, egress4, egress6     a pod's address : jump to its chain
//	    set self4, self6                             address . address of pods, which may talk to themselves
//	    set s…v4, s…v6                               those whom policies name
//	    chain c…v4, c…v6                             package policy's chains: return is allow
//	    chain drop-ingress, drop-egress              count, sample to a log group, drop
//	    chain forward { type filter hook forward priority filter
//	        ct direction reply accept                what was allowed one way may be answered
//	        ct state related accept
//	        icmpv6 type nd-… accept                  neighbours are looked for, whatever the policies
//	        ip saddr . ip daddr @self4 accept
//	        ip saddr vmap @egress4
//	        ip daddr vmap @ingress4
//	    }
//	}
//
// Each packet of the direction in which a connection was opened is decided anew, so that established connections follow a
// change of the policies. Pods are on a bridge: the hook sees frames between them as the kernel's br_netfilter shows it
// bridged ones (net.bridge.bridge-nf-call-iptables and -ip6tables must be 1, for services no less than for policies). What the host
// itself sends to its pods, such as the kubelet's probes, passes the output hook, and pods reach their own host through input: both
// are always allowed, as Kubernetes says.
package firewall

import (
	"context"
	"errors"

	"weft/internal/kube/policy"
)

// Table is the name of the table in nftables.
const Table = "weft-policy"

// LogGroup is the netfilter log group that samples of dropped packets go to.
const LogGroup = 6783

// ErrNoNFT says that the host has no nft program, or one that does not work.
var ErrNoNFT = errors.New("firewall: the nft program is missing or does not work")

// Firewall is a packet filter for the pods of a node. Its methods may be called concurrently.
type Firewall interface {
	// Apply makes r what is enforced, in one transaction. On an error the decisions stay as they were.
	Apply(ctx context.Context, r *policy.Ruleset) error
	// Intact reports whether what Apply has made is still there, and only that. Before the first Apply it is not.
	Intact(ctx context.Context) (bool, error)
	// Dropped returns how many packets have been dropped, by the direction that forbade them.
	Dropped(ctx context.Context) (map[policy.Direction]uint64, error)
}
