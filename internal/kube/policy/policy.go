// Package policy compiles Kubernetes' network policies into rules for a packet filter. It is pure: what it is given are the
// objects of a cluster, what it returns are sets of addresses and chains of decisions, which package firewall brings into
// nftables.
//
//	NetworkPolicy ─────────┐
//	AdminNetworkPolicy ────┼─> rules in tiers ──> per pod and direction: chains over named sets
//	BaselineAdminNetwork… ─┘
//
// How a packet is decided, in the compiled form: the pod's address leads to a chain, protocol and port in one look-up to
// a chain for exactly these, and there the other end's address is looked for in a set, that of all who are allowed. However many
// policies select a pod, the number of steps is the same (with AdminNetworkPolicies: one more for each change of mind among them).
//
// Two things make changes cheap. A set is named for what it says (selectors, blocks), not for what is in it: a pod that
// comes or goes adds or removes elements. A chain is named for its content, and so never changes: another policy is
// another chain, and pods with the same policies share theirs.
//
// The semantics are those of k8s.io/api/networking/v1 and sigs.k8s.io/network-policy-api/apis/v1alpha1. Who asks is the node
// that a pod is on: each node enforces both directions for its own pods. Pods of the host network are the host, and no policy
// selects them.
package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
)

// Cluster is all that the decision about a packet depends on. Compile does not change it.
type Cluster struct {
	Namespaces map[string]Labels
	// Pods are those that have addresses of the overlay: not those of the host network, and none that have ended.
	Pods     []*Pod
	Nodes    []Node
	Policies []*networkingv1.NetworkPolicy
	Admin    []*v1alpha1.AdminNetworkPolicy
	// Baseline is what holds where nothing else says anything; at most one is allowed, and of more the first by name counts.
	Baseline []*v1alpha1.BaselineAdminNetworkPolicy
}

// Labels are an object's labels.
type Labels = map[string]string

// Pod is a pod as far as policies see it.
type Pod struct {
	Namespace, Name string
	Labels          Labels
	IPs             []netip.Addr
	Ports           []Port
	// Local says that the pod is on this node, which decides for it.
	Local bool
}

// Port is a port of a container that has a name.
type Port struct {
	Name     string
	Protocol corev1.Protocol // never empty
	Number   uint16
}

// Node is a node as far as policies see it.
type Node struct {
	Labels Labels
	IPs    []netip.Addr
}

// Direction says from which end of a connection a rule is seen.
type Direction uint8

// The directions.
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

// Ruleset is what Compile makes: all decisions of one node.
type Ruleset struct {
	// Sets are by name, which stands for their definition: the content may change under it.
	Sets map[string]Set
	// Chains are by name, which stands for their content.
	Chains map[string]Chain
	// Pods are the addresses of this node's pods that are selected by a policy.
	Pods map[netip.Addr]PodChains
	// Problems are policies that could not be taken as they are, by kind, namespace and name.
	Problems []Problem
}

// PodChains names the chain that a pod's connections go through by direction; empty: everything is allowed.
type PodChains struct{ Ingress, Egress string }

// Set is a set of addresses.
type Set struct {
	// Prefixes are sorted and do not overlap.
	Prefixes []netip.Prefix
	// Blocks says that they may be more than single addresses; it follows from the name.
	Blocks bool
}

// Chain decides about a connection of a pod. Ports come first: the jump that holds the connection's protocol and
// destination port decides alone. What none holds is up to the first of Rules whose set holds the other end's address: the source
// for ingress, the destination for egress. Where there is none End decides.
type Chain struct {
	Direction Direction
	Ports     []PortJump // sorted, do not overlap
	Rules     []Rule
	End       Target
}

// PortJump sends connections to ports First to Last to another chain.
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

// Target is what becomes of a connection: the zero Target is invalid.
type Target struct {
	Action Action
	Chain  string // for Goto
}

// Action is the kind of a Target.
type Action uint8

// The actions.
const (
	Allow Action = iota + 1
	Deny
	Goto
)

// Problem says what is wrong with a policy, and what is done about it.
type Problem struct {
	Kind, Namespace, Name, UID string
	Message                    string
}
