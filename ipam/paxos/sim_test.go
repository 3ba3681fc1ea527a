package paxos

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/peer"
)

// sim is some acceptors, an observer, and all messages that were sent: any of them may arrive again, later or never.
type sim struct {
	nodes   []*Node
	disk    []State // the state that each node wrote before it sent anything
	needed  []int
	air     [][]byte
	side    []int // the partition a node is in
	first   []peer.ID
	decided bool
}

func newSim(t *rapid.T) *sim {
	n := rapid.IntRange(1, 6).Draw(t, "acceptors")
	s := &sim{}
	for i := range n + 1 {
		needed := n
		if i == n {
			needed = 0
		}
		s.needed = append(s.needed, needed)
		s.nodes = append(s.nodes, New(id(i+1), needed, State{}))
		s.disk = append(s.disk, s.nodes[i].Own())
		s.side = append(s.side, 0)
	}
	return s
}

// send writes the node's state and sends states.
func (s *sim) send(i int, states []State) {
	s.disk[i] = s.nodes[i].Own()
	s.air = append(s.air, Append(nil, states))
}

func (s *sim) receive(t *rapid.T, i int, msg []byte) {
	states, err := Decode(msg)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := s.nodes[i].Merge(states)
	if err != nil {
		t.Fatal(err)
	}
	if len(changed) > 0 {
		s.send(i, changed)
	}
}

func (s *sim) check(t *rapid.T) {
	for i, n := range s.nodes {
		got, ok := n.Decided()
		if !ok {
			continue
		}
		if s.decided && !slices.Equal(got, s.first) {
			t.Fatalf("node %d decided %v, another %v", i, got, s.first)
		}
		s.first, s.decided = got, true
	}
}

func TestNeverTwoDecisionsAndOneOnceHealed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		node := func(t *rapid.T) int { return rapid.IntRange(0, len(s.nodes)-1).Draw(t, "node") }
		receive := func(t *rapid.T) {
			if len(s.air) > 0 {
				s.receive(t, node(t), rapid.SampledFrom(s.air).Draw(t, "message"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"propose": func(t *rapid.T) {
				i := node(t)
				if s.nodes[i].Propose() {
					s.send(i, []State{s.nodes[i].Own()})
				}
			},
			"impatient": func(t *rapid.T) { // a duel: out of turn
				i := node(t)
				for range 2 * len(s.nodes) {
					if s.nodes[i].Propose() {
						s.send(i, s.nodes[i].States())
					}
				}
			},
			"send": func(t *rapid.T) {
				i := node(t)
				s.send(i, s.nodes[i].States())
			},
			"receive": receive, "receive 2": receive, "receive 3": receive,
			"partition": func(t *rapid.T) {
				for i := range s.side {
					s.side[i] = rapid.IntRange(0, 1).Draw(t, "side")
				}
			},
			"push-pull": func(t *rapid.T) {
				i, j := node(t), node(t)
				if s.side[i] == s.side[j] {
					s.receive(t, i, Append(nil, s.nodes[j].States()))
					s.receive(t, j, Append(nil, s.nodes[i].States()))
				}
			},
			"crash": func(t *rapid.T) {
				i := node(t)
				s.nodes[i] = New(id(i+1), s.needed[i], s.disk[i])
				s.disk[i] = s.nodes[i].Own()
			},
			"": s.check,
		})
		s.heal(t)
	})
}

// heal delivers the state of each node to each other, and checks that there is a decision.
func (s *sim) heal(t *rapid.T) {
	for range 4 * len(s.nodes) {
		for i := range s.nodes {
			for j := range s.nodes {
				s.receive(t, j, Append(nil, s.nodes[i].States()))
			}
			s.check(t)
			s.nodes[i].Propose()
		}
	}
	for i, n := range s.nodes {
		if _, ok := n.Decided(); !ok {
			t.Fatalf("node %d has not learned a decision: %+v", i, n.States())
		}
	}
	s.check(t)
}
