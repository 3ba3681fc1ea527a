// Package policy compiles Kubernetes network policies to rules for a packet filter. It is pure: its input are the objects of a
// cluster, its output are sets of addresses and chains of decisions, which package firewall writes to nftables.
//
//	NetworkPolicy ─────────┐
//	AdminNetworkPolicy ────┼─> rules in tiers ──> per pod and direction: chains over named sets
//	BaselineAdminNetwork… ─┘
//
// A packet is decided in these steps: the pod's address selects a chain; protocol and port select, in one lookup, a chain for
// exactly these; this chain looks up the address of the other end in a set of all allowed addresses. The number of steps does
// not depend on the number of policies that select a pod (with AdminNetworkPolicies: one more step for each change of the
// verdict in their order).
//
// Two properties make changes cheap. The name of a set is a digest of its definition (selectors, blocks), not of its elements:
// a new or deleted pod only adds or removes elements. The name of a chain is a digest of its content, so a chain never
// changes: a changed policy is another chain, and pods with the same policies share their chains.
//
// A rule by domain name allows the addresses that the name has resolved to. The caller learns them from DNS answers and sets them: see
// State.SetDomain.
//
// Packets need not have the address of a pod: broadcasts, multicasts, and packets to or from an address that a pod has given
// itself. The ruleset names the bridge port of each local pod, with the chains that decide these.
//
// The semantics are those of k8s.io/api/networking/v1 and sigs.k8s.io/network-policy-api/apis/v1alpha1. Each node enforces both
// directions for its own pods. No policy selects pods of the host network: they count as the host.
package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// Cluster is the complete input of Compile, which does not change it.
type Cluster struct {
	Namespaces map[string]Labels
	// Pods are the pods with addresses of the overlay, without finished pods and those of the host network.
	Pods  []*Pod
	Nodes []Node
	// Names are the addresses that DNS names have resolved to, for rules by domain name. Names are in lower case, without a dot at the end.
	Names map[string][]netip.Addr
	Policies
}

// Policies are all policies of a cluster.
type Policies struct {
	Network []*networkingv1.NetworkPolicy
	Cluster []*v1beta1.ClusterNetworkPolicy
	Admin   []*v1alpha1.AdminNetworkPolicy
	// Baseline applies where no other policy decides. Kubernetes allows one; of several, the first by name counts.
	Baseline []*v1alpha1.BaselineAdminNetworkPolicy
}

// Labels are an object's labels.
type Labels = map[string]string

// Pod has the properties of a pod that policies depend on.
type Pod struct {
	Namespace, Name string
	Labels          Labels
	IPs             []netip.Addr
	// LinkLocal is the IPv6 link-local address of the pod's interface; invalid if it is unknown.
	LinkLocal netip.Addr
	Ports     []Port
	// Local is true for pods of this node, which enforces their policies.
	Local bool
	// Link is the name of the bridge port of a local pod; empty if it is unknown.
	Link string
}

// Port is a named port of a container.
type Port struct {
	Name     string
	Protocol corev1.Protocol // never empty
	Number   uint16
}

// Node has the properties of a node that policies depend on.
type Node struct {
	Name   string // unique
	Labels Labels
	IPs    []netip.Addr
	// Aliases are further addresses of the node, from which its host network reaches pods of other nodes: those of its bridge. What a
	// policy says about an address of the node counts for them, too.
	Aliases []netip.Addr
}

// Direction is that of a connection, as the selected pod sees it. The zero Direction is invalid.
type Direction uint8

// Directions of connections.
const (
	Ingress Direction = iota + 1
	Egress
)

// String implements fmt.Stringer.
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Ruleset is the result of Compile: all decisions of one node.
type Ruleset struct {
	// Sets by name. The name is a digest of the definition: sets with one name may have different content at other times.
	Sets map[string]Set
	// Chains by name. The name is a digest of the content.
	Chains map[string]Chain
	// Pods are the chains of this node's pods that a policy selects, by address.
	Pods map[netip.Addr]PodChains
	// Links are the bridge ports of this node's pods, by name, whether a policy selects them or not. Empty in a cluster without
	// policies.
	Links map[string]Link
	// Addrs are the addresses of all pods of the cluster, sorted. Empty in a cluster without policies.
	Addrs []netip.Addr
	// Problems are policies that cannot be enforced as written, sorted by kind, namespace and name.
	Problems []Problem
	// Askers are the addresses of this node's pods that rules by domain name apply to, sorted: the DNS answers that they get are of
	// interest. Resolvers is the name of the set with the pods of the cluster's DNS; empty while there are no Askers.
	Askers    []netip.Addr
	Resolvers string
}

// PodChains has the name of the chain that decides the connections of a pod in each direction; empty: all are allowed.
type PodChains struct{ Ingress, Egress string }

// In returns the name of the chain for a direction.
func (c PodChains) In(d Direction) string {
	if d == Egress {
		return c.Egress
	}
	return c.Ingress
}

// Link is the bridge port of a pod. Its chains decide packets to the pod (from the pod) with a destination (source) that is not in
// Addrs. If Addrs has no address of a family, a pod that a policy selects in a direction has no packets of that family in it.
type Link struct {
	Addrs  []netip.Addr // sorted
	Chains PodChains
}

// Set is a set of addresses.
type Set struct {
	// Prefixes are sorted and do not overlap.
	Prefixes []netip.Prefix
	// Blocks is true where prefixes may be larger than single addresses. Sets with equal names have equal Blocks.
	Blocks bool
}

// Chain decides about a connection of a pod. If one of Ports matches the connection's protocol and destination port, only the
// chain that it jumps to decides. Otherwise the first of Rules decides that has the address of the other end in its set: the
// source for ingress, the destination for egress. If none has, End decides.
type Chain struct {
	Direction Direction
	Ports     []PortJump // sorted, do not overlap
	Rules     []Rule
	End       Target
}

// PortJump delegates connections to ports First to Last, both included, to another chain.
type PortJump struct {
	Protocol    corev1.Protocol
	First, Last uint16
	Chain       string
}

// Rule is one decision; an empty Set holds all addresses.
type Rule struct {
	Set    string
	Target Target
}

// Target is the decision about a connection. The zero Target is invalid.
type Target struct {
	Action Action
	Chain  string // for Goto
}

// Action is the kind of a Target. The zero Action is invalid.
type Action uint8

// Actions of a Target.
const (
	Allow Action = iota + 1
	Deny
	Goto
)

// Problem describes an error in a policy. Message also states how the policy is enforced in spite of it.
type Problem struct {
	Kind, Namespace, Name, UID string
	Message                    string
}
