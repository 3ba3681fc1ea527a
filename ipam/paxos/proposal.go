package paxos

import "weft/internal/peer"

// Proposal is a proposer's record of the answers to one ballot, in an instance with Acceptor states. The caller knows the
// acceptors, and all of them have to answer: first with a promise, then with an acceptance of Value.
type Proposal struct {
	Ballot   Ballot
	promised map[peer.ID]bool
	accepted map[peer.ID]bool
	highest  Ballot
	value    peer.ID
}

// NewProposal returns the record of a ballot that no acceptor has answered yet.
func NewProposal(b Ballot) *Proposal {
	return &Proposal{Ballot: b, promised: make(map[peer.ID]bool), accepted: make(map[peer.ID]bool)}
}

// Record records the state that an acceptor sent as its answer: a promise, or an acceptance. It reports false where the
// acceptor has promised another ballot; if that one is higher, this ballot cannot succeed.
func (p *Proposal) Record(acceptor peer.ID, a Acceptor) bool {
	if a.Promised != p.Ballot {
		return false
	}
	if a.Accepted == p.Ballot {
		p.accepted[acceptor] = true
	}
	p.promised[acceptor] = true
	if !a.Value.IsZero() && p.highest.Less(a.Accepted) {
		p.highest, p.value = a.Accepted, a.Value
	}
	return true
}

// WithoutPromise returns those of acceptors that have not promised the ballot, in the same order.
func (p *Proposal) WithoutPromise(acceptors []peer.ID) []peer.ID {
	return without(acceptors, p.promised)
}

// WithoutAcceptance returns those of acceptors that have not accepted a value under the ballot, in the same order.
func (p *Proposal) WithoutAcceptance(acceptors []peer.ID) []peer.ID {
	return without(acceptors, p.accepted)
}

// Value returns the value to propose once all acceptors have promised: the one that was accepted under the highest ballot
// among them, or preferred where none was accepted.
func (p *Proposal) Value(preferred peer.ID) peer.ID {
	if !p.value.IsZero() {
		return p.value
	}
	return preferred
}

func without(ids []peer.ID, answered map[peer.ID]bool) (missing []peer.ID) {
	for _, id := range ids {
		if !answered[id] {
			missing = append(missing, id)
		}
	}
	return missing
}
