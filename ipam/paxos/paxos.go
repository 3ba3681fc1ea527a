// Package paxos lets nodes that only gossip agree once: on the set of nodes that divide a range first.
//
// It is single-decree Paxos (Lamport, "Paxos Made Simple", 2001) without messages of its own. Each node's acceptor state,
// what it promised and what it accepted, is gossiped; a node acts on what it has heard of all:
//
//   - prepare: the proposer raises its own promise to a ballot of its own, above all it has heard of;
//   - promise: an elector that hears of a higher promise makes it its own;
//   - accept: once a quorum of electors has promised exactly its ballot, the proposer accepts, as value what the highest
//     ballot accepted among them carries, or else all electors it knows;
//   - an elector that hears of a value accepted under a ballot not below its promise accepts it as well;
//   - decided is the value that a quorum has accepted under one ballot.
//
// A node's state counts its changes (Seq), so of two states of one node the later wins, and gossip may lose, repeat and
// reorder as it pleases. The caller must write Own to disk after every call that changed it, before anybody hears of it.
//
// Who the electors are is known by hearsay only: each says how many must meet (Needed), and the highest number said
// counts. Nobody proposes, and nothing is decided, before that many are known. With k electors known, a quorum is the larger
// of k/2+1 and k-n/2, where n is the lowest number that one of them may have voted with: a majority while nobody but the n
// has come, and all but n/2 where there are more. So two electorates of which one holds the other always have quorums that
// meet, and latecomers cannot decide again what the first n decided: of the e >= n electors of the first, less than e/2 were
// missing from its quorum, and at most n/2 are missing from the second's.
//
// Electorates that met without knowing of each other may decide apart. They can exist only where more nodes take part than
// are needed: n should count all that start before the range is divided. Package ring tells rings founded apart from
// each other.
//
// The package is pure: no goroutine, no I/O, no clock. A Node is not safe for concurrent use.
package paxos

import (
	"errors"
	"fmt"
	"slices"

	"weft/internal/peer"
)

// Bounds on what is kept of others.
const (
	// MaxElectors is how many nodes' states a Node keeps.
	MaxAcceptors = 4096
	// MaxValue is how many nodes a value names: where more electors are known, the lowest IDs are proposed. It keeps a
	// state within one datagram of gossip; who is not among the founders asks them for a share.
	MaxValue = 96
	// MaxCount bounds rounds and Seq in what is read from others, so that no peer can push a counter to its end.
	MaxCount = 1 << 48
)

// slowdown is how many electors have each turn last one call of Propose longer.
const slowdown = 16

// ErrElectors is wrapped by Merge when the states would be of more than MaxElectors nodes.
var ErrElectors = errors.New("paxos: too many electors")

// Ballot orders proposals: by round, then by the node that proposes. The zero Ballot is below all.
type Ballot struct {
	Round uint64
	By    peer.ID
}

// IsZero reports whether b is no ballot at all.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// Less reports whether b is below other.
func (b Ballot) Less(other Ballot) bool {
	if b.Round != other.Round {
		return b.Round < other.Round
	}
	return b.By.Compare(other.By) < 0
}

// State is what one elector has promised and accepted.
type State struct {
	Node     peer.ID
	Seq      uint64 // counts the changes of this state
	Needed   uint64 // how many electors must meet, as this one was told; 0 where it is no elector
	Floor    uint64 // the lowest number of electors it has taken as needed when it voted; 0 before its first vote
	Promised Ballot // it takes no part in ballots below
	Accepted Ballot // never above Promised
	Value    []peer.ID
}

// IsZero reports whether s is no state.
func (s State) IsZero() bool { return s.Node.IsZero() }

// Node is one node's part in the decree, with all it has heard of the others.
type Node struct {
	self    peer.ID
	states  map[peer.ID]State
	turn    int // calls of Propose without a decision
	decided []peer.ID
}

// New returns a node that asks for needed electors to meet; 0 makes it an observer, which learns the decision but neither
// proposes nor votes. Pass the State that was last written to disk, or the zero State. A node that has voted stays an
// elector, whatever needed now says: its votes may be part of a decision.
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

// Own is this node's state, to be written to disk and gossiped; zero for an observer.
func (n *Node) Own() State { return n.states[n.self] }

// States returns all that is known, sorted by node. Values are shared and must not be changed.
func (n *Node) States() []State {
	states := make([]State, 0, len(n.states))
	for _, s := range n.states {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return a.Node.Compare(b.Node) })
	return states
}

// Known is the number of electors heard of, this node among them if it is one.
func (n *Node) Known() int { return len(n.states) }

// Waiting returns how many electors have met and how many must.
func (n *Node) Waiting() (met, needed int) {
	for _, s := range n.states {
		needed = max(needed, int(s.Needed))
	}
	return len(n.states), needed
}

// Merge takes over what of states is news, promises and accepts in turn, and returns all that changed, this node's own
// state included. Where it returns ErrElectors, wrapped, nothing was merged.
func (n *Node) Merge(states []State) (changed []State, err error) {
	unknown := 0
	for _, s := range states {
		if _, known := n.states[s.Node]; !known {
			unknown++
		}
	}
	if len(n.states)+unknown > MaxAcceptors {
		return nil, fmt.Errorf("%w: %d", ErrElectors, len(n.states)+unknown)
	}
	before := n.Own()
	for _, s := range states {
		if s.Seq > n.states[s.Node].Seq {
			n.states[s.Node] = s
			if s.Node != n.self { // a state of this node, from before it lost its disk, is told below
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

// Propose starts a ballot if it is this node's turn, and reports whether its state changed. Call it now and then, at a
// second's distance or so with some jitter, until there is a decision: the lowest elector has the first turn, and turns
// pass on every second call, so that duels end and a node that died does not hold up the rest. Where there are many
// electors they pass more slowly, as gossip takes longer to bring their promises.
func (n *Node) Propose() (changed bool) {
	met, needed := n.Waiting()
	own, elector := n.states[n.self]
	if _, done := n.Decided(); done || !elector || met < needed {
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
	n.vote(own)
	n.step()
	return true
}

// Decided returns the founders that were agreed on, sorted; false while there is no decision. Once it was true it stays so.
func (n *Node) Decided() (founders []peer.ID, ok bool) {
	if n.decided != nil {
		return slices.Clone(n.decided), true
	}
	if met, needed := n.Waiting(); met == 0 || met < needed {
		return nil, false
	}
	votes := make(map[Ballot]int)
	for _, s := range n.states {
		if s.Accepted.IsZero() {
			continue
		}
		if votes[s.Accepted]++; votes[s.Accepted] >= n.quorum() {
			n.decided = s.Value
			return slices.Clone(s.Value), true
		}
	}
	return nil, false
}

// quorum is how many electors it takes; see the package comment.
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

// rank is this node's place among the electors by ID.
func (n *Node) rank() (rank int) {
	for id := range n.states {
		if id.Compare(n.self) < 0 {
			rank++
		}
	}
	return rank
}

// vote makes own, which promises or accepts anew, this node's state.
func (n *Node) vote(own State) {
	_, needed := n.Waiting()
	if own.Floor == 0 || uint64(needed) < own.Floor {
		own.Floor = uint64(needed)
	}
	own.Seq++
	n.states[n.self] = own
}

// step lets this node do what follows from all it knows: accept, promise, and accept its own ballot.
func (n *Node) step() {
	own, elector := n.states[n.self]
	if !elector {
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
		n.vote(own)
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
