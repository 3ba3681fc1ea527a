// Package firewall enforces the decisions of package policy with nftables. It uses two tables of its own, undoes changes of
// other programs to them, and does not touch other tables.
//
// The table of the family inet judges packets by their addresses:
//
//	table inet weft-policy {
//	    map ingress4, ingress6, egress4, egress6     address of a pod : jump to its chain
//	    set self4, self6                             address . address of pods: a pod may connect to itself
//	    set s…v4, s…v6                               addresses that policies select
//	    chain c…v4, c…v6                             chains of package policy: return means allow
//	    chain drop-ingress, drop-egress              count, sample to a log group, drop
//	    chain deny-ingress, deny-egress              go to midstream for packets of an open connection, else to drop-…
//	    chain midstream, c…r4, c…r6                  the same decisions for packets from the server to the client
//	    chain forward { type filter hook forward priority filter
//	        ct direction reply accept                replies of allowed connections pass
//	        ct state related accept
//	        icmpv6 type nd-… accept                  neighbor discovery passes, whatever the policies
//	        ip saddr . ip daddr @self4 accept
//	        goto judge
//	    }
//	    set askers4, askers6                         pods with rules by domain name
//	    chain answers-forward, answers-output        copy the DNS answers that they get to a log group, while there are any
//	    chain judge {
//	        ip saddr vmap @egress4
//	        ip daddr vmap @ingress4
//	        meta mark … vmap @egress4m, @ingress4m   packets that the other table has marked
//	    }
//	}
//
// An address is not enough. A pod also gets broadcasts, multicasts, and packets to an address that it has given itself, and it may
// send from any address. The table of the family bridge knows the ports of pods:
//
//	table bridge weft-policy {
//	    set own4, own6                               port . address of pods
//	    set pods4, pods6                             addresses of all pods of the cluster
//	    map from, to                                 ports : jump to the chain for frames from the pod, and to it
//	    chain ingress-…, egress-…                    one for each chain of package policy
//	    chain forward { type filter hook forward priority -200
//	        iifname vmap @from
//	        oifname vmap @to
//	    }
//	    chain input, output, forwarded               packets to and from the router; after the inet table
//	}
//
// A frame with the port's own address is left to the inet table. Any other IP packet of a pod that a policy selects gets a mark with
// the number of the pod's chain, which the inet table evaluates in addition. A copy of a flooded frame has its own mark. Other frames,
// such as those with a VLAN tag, are dropped, except ARP. A packet with the address of another pod is dropped in any case.
//
// All packets of a selected pod are also marked as unjudged. The inet table removes that mark. What still has it behind the inet
// table is dropped: the pod is closed while bridged packets do not pass the host's packet filter.
// See docs/adr/0030-policies-by-port.md.
//
// Each packet from the client to the server of a connection is decided anew, so changed policies also apply to established
// connections. The inet table sees frames between ports of a bridge only with br_netfilter, see package bridgenf. Packets from the
// host to its pods, such as the kubelet's probes, pass the output hook, and packets from pods to their own host pass the input hook.
// Both are always allowed, as Kubernetes specifies.
package firewall

import (
	"context"
	"errors"

	"weft/internal/kube/policy"
)

// Table is the name of both tables in nftables.
const Table = "weft-policy"

// LogGroup is the netfilter log group that receives samples of dropped packets.
const LogGroup = 6783

// ErrNoNFT means that the nft program is missing, or that the kernel lacks what the rules need.
var ErrNoNFT = errors.New("firewall: the nft program is missing, or the kernel lacks nftables for the families inet and bridge")

// Firewall is a packet filter for the pods of a node. Its methods may be called concurrently.
type Firewall interface {
	// Apply replaces the enforced rules by r, in one transaction. On an error the previous rules stay.
	Apply(ctx context.Context, r *policy.Ruleset) error
	// Change changes the enforced rules, which must be those before c, in one transaction. After an error they may be those before c or
	// those of another program, and only Apply sets them.
	Change(ctx context.Context, c policy.Change) error
	// Intact reports whether the tables are exactly as Apply and Change left them; false before the first Apply.
	Intact(ctx context.Context) (bool, error)
	// Dropped returns how many packets have been dropped, by the direction of the policies that dropped them.
	Dropped(ctx context.Context) (map[policy.Direction]uint64, error)
}
