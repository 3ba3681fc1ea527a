package paxos

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"weft/internal/peer"
)

// sim is some electors, an observer, and all messages ever sent: any of them may arrive again, later or never.
type sim struct {
	nodes   []*Node
	disk    []State // what each node wrote before it said anything
	needed  []int
	air     [][]byte
	side    []int // the partition a node is in
	first   []peer.ID
	decided bool
}

func newSim(t *rapid.T) *sim {
	n := rapid.IntRange(1, 6).Draw(t, "electors")
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

// say writes the node's state and sends what changed, or all it knows.
func (s *sim) say(i int, states []State) {
	s.disk[i] = s.nodes[i].Own()
	s.air = append(s.air, Append(nil, states))
}

func (s *sim) hear(t *rapid.T, i int, msg []byte) {
	states, err := Decode(msg)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := s.nodes[i].Merge(states)
	if err != nil {
		t.Fatal(err)
	}
	if len(changed) > 0 {
		s.say(i, changed)
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
		hear := func(t *rapid.T) {
			if len(s.air) > 0 {
				s.hear(t, node(t), rapid.SampledFrom(s.air).Draw(t, "message"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"propose": func(t *rapid.T) {
				i := node(t)
				if s.nodes[i].Propose() {
					s.say(i, []State{s.nodes[i].Own()})
				}
			},
			"impatient": func(t *rapid.T) { // a duel: out of turn
				i := node(t)
				for range 2 * len(s.nodes) {
					if s.nodes[i].Propose() {
						s.say(i, s.nodes[i].States())
					}
				}
			},
			"say": func(t *rapid.T) {
				i := node(t)
				s.say(i, s.nodes[i].States())
			},
			"hear": hear, "hear 2": hear, "hear 3": hear,
			"partition": func(t *rapid.T) {
				for i := range s.side {
					s.side[i] = rapid.IntRange(0, 1).Draw(t, "side")
				}
			},
			"push-pull": func(t *rapid.T) {
				i, j := node(t), node(t)
				if s.side[i] == s.side[j] {
					s.hear(t, i, Append(nil, s.nodes[j].States()))
					s.hear(t, j, Append(nil, s.nodes[i].States()))
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

// heal lets everybody hear everybody, and demands a decision.
func (s *sim) heal(t *rapid.T) {
	for range 4 * len(s.nodes) {
		for i := range s.nodes {
			for j := range s.nodes {
				s.hear(t, j, Append(nil, s.nodes[i].States()))
			}
			s.check(t)
			s.nodes[i].Propose()
		}
	}
	for i, n := range s.nodes {
		if _, ok := n.Decided(); !ok {
			t.Fatalf("node %d has not learnt a decision: %+v", i, n.States())
		}
	}
	s.check(t)
}
