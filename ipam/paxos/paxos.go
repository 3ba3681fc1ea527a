// Package paxos lets nodes that communicate only by gossip agree once on a value. It has two kinds of instance.
//
// A Node takes part in the instance that bootstraps a range: it decides on the set of nodes that divide the range
// first. An Acceptor and a Proposal are the two sides of an instance in which the proposer asks every acceptor by
// message; it decides on the new owner of a dead node's addresses. The rest of this comment is about Node.
//
// It is Paxos for a single value (Lamport, "Paxos Made Simple", 2001) without messages of its own. The acceptor state of
// each node, its promise and its acceptance, is gossiped, and a node acts on the states that it knows:
//
//   - prepare: the proposer raises its own promise to a ballot of its own, above all that it knows;
//   - promise: an acceptor that learns of a higher promise makes the same promise;
//   - accept: once a quorum of acceptors has promised exactly its ballot, the proposer accepts a value: that of the
//     highest ballot accepted among them, or else all acceptors that it knows;
//   - an acceptor that learns of a value accepted under a ballot not below its promise accepts it as well;
//   - the value that a quorum has accepted under one ballot is decided.
//
// A node's state counts its changes (Seq), so of two states of one node the later wins, and gossip may lose, repeat and
// reorder states. The caller must write Own to disk after every call that changed it, before it sends the state.
//
// The acceptors are known only by gossip: each publishes how many must meet (Needed), and the highest number counts. No
// node proposes, and nothing is decided, before that many are known. With k acceptors known, a quorum is the larger of
// k/2+1 and k-n/2, where n is the lowest number that one of them may have counted as needed in its state: a majority
// while only those n have joined, and all but n/2 where there are more. So of two sets of acceptors of which one
// contains the other, quorums always intersect, and late nodes cannot decide again what the first n decided: of the e
// >= n acceptors of the first set, less than e/2 were missing from its quorum, and at most n/2 are missing from the
// second's.
//
// Sets of acceptors that met without knowing of each other may decide separately. They can exist only where more nodes
// take part than are needed: n should count all nodes that start before the range is divided. Package ring detects
// rings that were bootstrapped separately, by their cluster IDs.
//
// docs/adr/0025-paxos-not-raft.md compares with raft.
//
// The package is pure: no goroutine, no I/O, no clock. A Node is not safe for concurrent use.
package paxos

import (
	"errors"
	"fmt"
	"slices"

	"weft/internal/peer"
)

// Bounds on the state of other nodes.
const (
	// MaxAcceptors is how many nodes' states a Node keeps.
	MaxAcceptors = 4096
	// MaxValue is how many nodes a value names: where more acceptors are known, those with the lowest IDs are proposed.
	// It keeps a state within one datagram of gossip. A node that the value does not name asks those nodes for a share.
	MaxValue = 96
	// MaxCount bounds rounds and Seq in states that are read from other nodes, so that no peer can exhaust a counter.
	MaxCount = 1 << 48
)

// slowdown is the number of acceptors per additional call of Propose that each turn lasts.
const slowdown = 16

// ErrAcceptors is wrapped by Merge when the states would be of more than MaxAcceptors nodes.
var ErrAcceptors = errors.New("paxos: too many acceptors")

// Ballot orders proposals: by round, then by the ID of the proposer. The zero Ballot is below all others.
type Ballot struct {
	Round uint64
	By    peer.ID
}

// IsZero reports whether b is the zero Ballot.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// Less reports whether b is below other.
func (b Ballot) Less(other Ballot) bool {
	if b.Round != other.Round {
		return b.Round < other.Round
	}
	return b.By.Compare(other.By) < 0
}

// State is the state of one acceptor, as it is gossiped.
type State struct {
	Node     peer.ID
	Seq      uint64 // counts the changes of this state
	Needed   uint64 // how many acceptors must meet, by the configuration of this node; 0 for an observer
	Floor    uint64 // the lowest number that it counted as needed in a promise or acceptance; 0 before the first
	Promised Ballot // ballots below are refused
	Accepted Ballot // never above Promised
	Value    []peer.ID
}

// IsZero reports whether s is the zero State.
func (s State) IsZero() bool { return s.Node.IsZero() }

// Node is one node's part in the bootstrap instance, with the states of the others that it knows.
type Node struct {
	self    peer.ID
	states  map[peer.ID]State
	turn    int // calls of Propose without a decision
	decided []peer.ID
}

// New returns a node that requires needed acceptors to meet; 0 makes it an observer, which learns the decision but
// neither proposes nor accepts. Pass the State that was last written to disk, or the zero State. A node that has made a
// promise remains an acceptor, whatever needed is now, because its state may be part of a decision.
func New(self peer.ID, needed int, stored State) *Node {
	n := &Node{self: self, states: make(map[peer.ID]State)}
	own := stored
	if stored.Node != self {
		own = State{Node: self}
	}
	if needed == 0 && own.Promised.IsZero() {
		return n
	}
	if needed > 0 && own.Needed != uint64(needed) {
		own.Needed = uint64(needed)
		own.Seq++
	}
	n.states[self] = own
	n.step()
	return n
}

// Own returns this node's state, to be written to disk and gossiped; zero for an observer.
func (n *Node) Own() State { return n.states[n.self] }

// States returns all known states, sorted by node. Values are shared and must not be changed.
func (n *Node) States() []State {
	states := make([]State, 0, len(n.states))
	for _, s := range n.states {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return a.Node.Compare(b.Node) })
	return states
}

// Known returns the number of acceptors that are known, including this node if it is one.
func (n *Node) Known() int { return len(n.states) }

// Waiting returns how many acceptors have met and how many must.
func (n *Node) Waiting() (met, needed int) {
	for _, s := range n.states {
		needed = max(needed, int(s.Needed))
	}
	return len(n.states), needed
}

// Merge applies the newer ones of states, promises and accepts as they require, and returns all states that changed,
// including this node's own. Where it returns ErrAcceptors, wrapped, nothing was merged.
func (n *Node) Merge(states []State) (changed []State, err error) {
	unknown := 0
	for _, s := range states {
		if _, known := n.states[s.Node]; !known {
			unknown++
		}
	}
	if len(n.states)+unknown > MaxAcceptors {
		return nil, fmt.Errorf("%w: %d", ErrAcceptors, len(n.states)+unknown)
	}
	before := n.Own()
	for _, s := range states {
		if s.Seq > n.states[s.Node].Seq {
			n.states[s.Node] = s
			if s.Node != n.self { // a state of this node from before it lost its disk is returned below
				changed = append(changed, s)
			}
		}
	}
	n.step()
	if own := n.Own(); own.Seq != before.Seq {
		changed = append(changed, own)
	}
	return changed, nil
}

// Propose starts a ballot if it is this node's turn, and reports whether its state changed. Call it about once a
// second, with some jitter, until there is a decision. The acceptor with the lowest ID has the first turn, and turns
// pass on every second call, so that duels end and a dead node does not block the others. With many acceptors turns
// pass more slowly, because gossip needs longer to deliver their promises.
func (n *Node) Propose() (changed bool) {
	met, needed := n.Waiting()
	own, isAcceptor := n.states[n.self]
	if _, done := n.Decided(); done || !isAcceptor || met < needed {
		return false
	}
	turn := n.turn
	n.turn++
	hold := 2 + met/slowdown
	if turn%hold != 0 || turn/hold%met != n.rank() {
		return false
	}
	var highest uint64
	for _, s := range n.states {
		highest = max(highest, s.Promised.Round, s.Accepted.Round)
	}
	own.Promised = Ballot{Round: highest + 1, By: n.self}
	n.record(own)
	n.step()
	return true
}

// Decided returns the decided bootstrap nodes, sorted; false while there is no decision. Once it has returned true it
// always does.
func (n *Node) Decided() (bootstrapNodes []peer.ID, ok bool) {
	if n.decided != nil {
		return slices.Clone(n.decided), true
	}
	if met, needed := n.Waiting(); met == 0 || met < needed {
		return nil, false
	}
	quorum := n.quorum()
	accepted := make(map[Ballot]int)
	for _, s := range n.states {
		if s.Accepted.IsZero() {
			continue
		}
		if accepted[s.Accepted]++; accepted[s.Accepted] >= quorum {
			n.decided = s.Value
			return slices.Clone(s.Value), true
		}
	}
	return nil, false
}

// quorum returns the size of a quorum; see the package comment.
func (n *Node) quorum() int {
	met := len(n.states)
	lowest := uint64(met)
	for _, s := range n.states {
		if s.Floor > 0 {
			lowest = min(lowest, s.Floor)
		} else {
			lowest = min(lowest, s.Needed)
		}
	}
	return max(met/2+1, met-int(lowest/2))
}

// rank returns the position of this node among the acceptors, by ID.
func (n *Node) rank() (rank int) {
	for id := range n.states {
		if id.Compare(n.self) < 0 {
			rank++
		}
	}
	return rank
}

// record makes own, which contains a new promise or acceptance, this node's state.
func (n *Node) record(own State) {
	_, needed := n.Waiting()
	if own.Floor == 0 || uint64(needed) < own.Floor {
		own.Floor = uint64(needed)
	}
	own.Seq++
	n.states[n.self] = own
}

// step applies the rules for acceptors and proposer to all known states: accept, promise, and accept under its own
// ballot.
func (n *Node) step() {
	own, isAcceptor := n.states[n.self]
	if !isAcceptor {
		return
	}
	changed := false
	promise := own.Promised
	for _, s := range n.states {
		if own.Accepted.Less(s.Accepted) && !s.Accepted.Less(own.Promised) {
			own.Promised, own.Accepted, own.Value = s.Accepted, s.Accepted, s.Value
			changed = true
		}
		if promise.Less(s.Promised) {
			promise = s.Promised
		}
	}
	if own.Promised.Less(promise) {
		own.Promised = promise
		changed = true
	}
	if value, ok := n.promised(own); ok {
		own.Accepted, own.Value = own.Promised, value
		changed = true
	}
	if changed {
		n.record(own)
	}
}

// promised returns the value to accept under own's ballot, once a quorum has promised it.
func (n *Node) promised(own State) (value []peer.ID, ok bool) {
	met, needed := n.Waiting()
	if own.Promised.By != n.self || own.Accepted == own.Promised || met < needed {
		return nil, false
	}
	count := 0
	var highest Ballot
	for _, s := range n.states {
		if s.Node == n.self {
			s = own
		}
		if s.Promised != own.Promised {
			continue
		}
		count++
		if highest.Less(s.Accepted) {
			highest, value = s.Accepted, s.Value
		}
	}
	if count < n.quorum() {
		return nil, false
	}
	if value != nil {
		return value, true
	}
	for _, s := range n.States() {
		value = append(value, s.Node)
	}
	return value[:min(len(value), MaxValue)], true
}
