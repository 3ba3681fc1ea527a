// Package firewall enforces the decisions of package policy with nftables. It uses one table of its own, undoes changes of
// other programs to it, and does not touch other tables.
//
//	table inet weft-policy {
//	    map ingress4, ingress6, egress4, egress6     address of a pod : jump to its chain
//	    set self4, self6                             address . address of pods: a pod may connect to itself
//	    set s…v4, s…v6                               addresses that policies select
//	    chain c…v4, c…v6                             chains of package policy: return means allow
//	    chain drop-ingress, drop-egress              count, sample to a log group, drop
//	    chain forward { type filter hook forward priority filter
//	        ct direction reply accept                replies of allowed connections pass
//	        ct state related accept
//	        icmpv6 type nd-… accept                  neighbor discovery passes, whatever the policies
//	        ip saddr . ip daddr @self4 accept
//	        ip saddr vmap @egress4
//	        ip daddr vmap @ingress4
//	    }
//	}
//
// Each packet from the client to the server of a connection is decided anew, so changed policies also apply to established
// connections. Pods are ports of a bridge. The hook sees frames between them only with br_netfilter: the settings
// net.bridge.bridge-nf-call-iptables and -ip6tables must be 1 (Services need them, too). Packets from the host to its pods,
// such as the kubelet's probes, pass the output hook, and packets from pods to their own host pass the input hook. Both are
// always allowed, as Kubernetes specifies.
package firewall

import (
	"context"
	"errors"

	"weft/internal/kube/policy"
)

// Table is the name of the table in nftables.
const Table = "weft-policy"

// LogGroup is the netfilter log group that receives samples of dropped packets.
const LogGroup = 6783

// ErrNoNFT means that the nft program is missing or does not work.
var ErrNoNFT = errors.New("firewall: the nft program is missing or does not work")

// Firewall is a packet filter for the pods of a node. Its methods may be called concurrently.
type Firewall interface {
	// Apply replaces the enforced rules by r, in one transaction. On an error the previous rules stay.
	Apply(ctx context.Context, r *policy.Ruleset) error
	// Intact reports whether the table is exactly as Apply left it; false before the first Apply.
	Intact(ctx context.Context) (bool, error)
	// Dropped returns how many packets have been dropped, by the direction of the policies that dropped them.
	Dropped(ctx context.Context) (map[policy.Direction]uint64, error)
}
