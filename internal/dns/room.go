package dns

import (
	"maps"
	"time"

	"weft/internal/peer"
)

// Anyone that can send gossip can make up entries of any node. So the entries of members come first: those of other nodes have a
// bound of their own, expire, give way, and are not passed on. Among members, a node with few entries comes before one with many.

// Bounds of the entries, including tombstones.
const (
	maxEntries     = 64 << 10
	maxNodeEntries = 4096
	// maxNonMember bounds the entries of nodes that are no members.
	maxNonMember = 8 << 10
	// nonMemberTTL is how long such an entry is kept: the node may become a member shortly after its names arrive.
	nonMemberTTL = 10 * time.Minute
	// maxSample bounds how many nodes are compared to find one with many entries.
	maxSample = 256
)

// isMember reports whether a node is this one or a member, and records it in the table; mu is held.
func (r *Registry) isMember(node peer.ID) bool {
	member := node == r.cfg.Self || r.cfg.Membership.Known(node)
	r.table.mark(node, !member)
	return member
}

// makeRoom makes room for e, which must not be in the table, and reports whether there is any; mu is held.
//
// For a node at its bound, an entry that is not removed replaces the oldest tombstone: if another node still has the entry of that
// tombstone, its own node corrects it. A tombstone never replaces another one, or nodes at the bound would send each other
// the same tombstones without end.
//
// In a full table an entry of a member replaces one of a non-member, else one of a node that has at least two more than its
// own. Each replacement makes the numbers of the nodes more equal, so nodes with full tables do not send each other the same
// entries without end.
func (r *Registry) makeRoom(e Entry) bool {
	t, member := &r.table, r.isMember(e.Node)
	switch own := len(t.nodes[e.Node]); {
	case own >= maxNodeEntries:
		return !e.Removed && t.dropOldestTombstone(e.Node)
	case !member:
		return t.outside < maxNonMember && t.total < maxEntries
	case t.total < maxEntries:
		return true
	case len(t.nonMembers) > 0:
		return t.dropOneOf(largest(t.nodes, maps.Keys(t.nonMembers)))
	default:
		node := largest(t.nodes, maps.Keys(t.nodes))
		return node != r.cfg.Self && len(t.nodes[node]) >= own+2 && t.dropOneOf(node)
	}
}

// largest returns the node with the most entries among maxSample nodes.
func largest(nodes map[peer.ID]map[key]Entry, candidates func(yield func(peer.ID) bool)) (node peer.ID) {
	n := 0
	for candidate := range candidates {
		if len(nodes[candidate]) > len(nodes[node]) {
			node = candidate
		}
		if n++; n == maxSample {
			break
		}
	}
	return node
}

// dropOneOf drops an entry of a node, and reports whether it has any.
func (t *table) dropOneOf(node peer.ID) bool {
	for _, e := range t.nodes[node] {
		t.drop(e)
		return true
	}
	return false
}

// mark records whether a node is a non-member; without entries it is not recorded.
func (t *table) mark(node peer.ID, outside bool) {
	if _, was := t.nonMembers[node]; was == outside || outside && len(t.nodes[node]) == 0 {
		return
	}
	if outside {
		t.nonMembers[node] = struct{}{}
		t.outside += len(t.nodes[node])
	} else {
		delete(t.nonMembers, node)
		t.outside -= len(t.nodes[node])
	}
}

// expireNonMembers drops the entries of non-members that were received at or before the given time; mu is held.
func (r *Registry) expireNonMembers(before time.Time) {
	for node, entries := range r.table.nodes {
		if r.isMember(node) {
			continue
		}
		for _, e := range entries {
			if !e.At.After(before) {
				r.table.drop(e)
			}
		}
	}
}
