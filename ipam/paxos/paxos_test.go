package paxos

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

func id(n int) peer.ID { return peer.ID{byte(n >> 8), byte(n)} }

// exchange merges the states of every node into every other until nothing changes.
func exchange(t testing.TB, nodes ...*Node) {
	t.Helper()
	for again := true; again; {
		again = false
		for _, from := range nodes {
			for _, to := range nodes {
				changed, err := to.Merge(from.States())
				if err != nil {
					t.Fatal(err)
				}
				again = again || len(changed) > 0
			}
		}
	}
}

func TestThreeNodesAgree(t *testing.T) {
	a, b, c := New(id(1), 3, State{}), New(id(2), 3, State{}), New(id(3), 3, State{})
	exchange(t, a, b)
	if a.Propose() || b.Propose() {
		t.Error("proposed before the three have met")
	}
	if met, needed := a.Waiting(); met != 2 || needed != 3 {
		t.Errorf("waiting: %d of %d", met, needed)
	}
	exchange(t, a, b, c)
	if b.Propose() || c.Propose() {
		t.Error("proposed before the lowest")
	}
	if !a.Propose() {
		t.Error("the lowest does not propose")
	}
	exchange(t, a, b, c)
	for _, n := range []*Node{a, b, c} {
		got, ok := n.Decided()
		if diff := cmp.Diff([]peer.ID{id(1), id(2), id(3)}, got); !ok || diff != "" {
			t.Errorf("%v %s", ok, diff)
		}
		if n.Propose() {
			t.Error("proposed after the decision")
		}
	}
}

func TestOneNodeDecidesAlone(t *testing.T) {
	n := New(id(1), 1, State{})
	if _, ok := n.Decided(); ok {
		t.Error("decided before it proposed")
	}
	n.Propose()
	if got, ok := n.Decided(); !ok || !slices.Equal(got, []peer.ID{id(1)}) {
		t.Errorf("%v, %v", got, ok)
	}
}

func TestObserverLearnsButNeverAccepts(t *testing.T) {
	a, b, o := New(id(2), 2, State{}), New(id(3), 2, State{}), New(id(1), 0, State{})
	exchange(t, a, o)
	if o.Propose() || !o.Own().IsZero() || a.Known() != 1 {
		t.Errorf("observer took part: %+v", o.Own())
	}
	exchange(t, a, b, o)
	for range 10 {
		a.Propose()
		exchange(t, a, b, o)
	}
	got, ok := o.Decided()
	if !ok || !slices.Equal(got, []peer.ID{id(2), id(3)}) {
		t.Errorf("%v, %v", got, ok)
	}
}

func TestTurnsPassWhenTheLowestNodeIsDead(t *testing.T) {
	a, b, c := New(id(1), 3, State{}), New(id(2), 3, State{}), New(id(3), 3, State{})
	exchange(t, a, b, c)
	for range 20 {
		b.Propose()
		c.Propose()
		exchange(t, b, c)
	}
	got, ok := b.Decided()
	if !ok || !slices.Equal(got, []peer.ID{id(1), id(2), id(3)}) {
		t.Errorf("%v, %v: a majority could not decide without the dead node", got, ok)
	}
}

func TestLatecomersCannotDecideAgain(t *testing.T) {
	a, b, c := New(id(1), 3, State{}), New(id(2), 3, State{}), New(id(3), 3, State{})
	exchange(t, a, b, c)
	a.Propose()
	exchange(t, a, b)
	first, ok := a.Decided()
	if !ok {
		t.Fatal("no decision by two of three")
	}
	// a and b are cut off; c and two that joined through it are a majority of the five, but not a quorum.
	cNew := New(id(3), 3, State{})
	if _, err := cNew.Merge([]State{{Node: id(1), Seq: 1, Needed: 3}, {Node: id(2), Seq: 1, Needed: 3}}); err != nil {
		t.Fatal(err)
	}
	d, e := New(id(4), 3, State{}), New(id(5), 3, State{})
	exchange(t, cNew, d, e)
	for range 20 {
		for _, n := range []*Node{cNew, d, e} {
			n.Propose()
			exchange(t, cNew, d, e)
			if got, ok := n.Decided(); ok {
				t.Fatalf("decided again: %v, first %v", got, first)
			}
		}
	}
	exchange(t, a, b, cNew, d, e)
	for range 20 {
		for _, n := range []*Node{a, b, cNew, d, e} {
			n.Propose()
			exchange(t, a, b, cNew, d, e)
		}
	}
	for _, n := range []*Node{a, b, cNew, d, e} {
		if got, ok := n.Decided(); !ok || !slices.Equal(got, first) {
			t.Errorf("%v, %v, want %v", got, ok, first)
		}
	}
}

func TestLoneNodeThatDecidedIsNotOverruled(t *testing.T) {
	a := New(id(9), 1, State{})
	b, c := New(id(2), 2, State{}), New(id(3), 2, State{})
	before := a.States()
	a.Propose() // alone, before it knows any other node
	for _, n := range []*Node{b, c} {
		if _, err := n.Merge(before); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		b.Propose()
		c.Propose()
		exchange(t, b, c)
	}
	if got, ok := b.Decided(); ok {
		t.Errorf("decided %v without the node that may have decided alone", got)
	}
}

func TestRestoredNodeKeepsItsState(t *testing.T) {
	a, b := New(id(1), 2, State{}), New(id(2), 2, State{})
	exchange(t, a, b)
	a.Propose()
	exchange(t, a, b)
	again := New(id(2), 0, b.Own())
	if diff := cmp.Diff(b.Own(), again.Own()); diff != "" {
		t.Errorf("restored as an observer, after it accepted: %s", diff)
	}
	other := New(id(2), 5, b.Own())
	if own := other.Own(); own.Needed != 5 || own.Seq <= b.Own().Seq || own.Floor != 2 || own.Accepted != b.Own().Accepted {
		t.Errorf("restored with another number: %+v", own)
	}
	// A node that lost its disk receives its own state from the others.
	lost := New(id(2), 2, State{})
	if _, err := lost.Merge(a.States()); err != nil {
		t.Fatal(err)
	}
	if own := lost.Own(); own.Accepted != b.Own().Accepted {
		t.Errorf("after a loss: %+v", own)
	}
}

func TestMergeBoundsAcceptors(t *testing.T) {
	n := New(id(1), 1, State{})
	var states []State
	for i := range MaxAcceptors {
		states = append(states, State{Node: id(i + 2), Seq: 1, Needed: 1})
	}
	if _, err := n.Merge(states); !errors.Is(err, ErrAcceptors) || n.Known() != 1 {
		t.Errorf("%d known, %v", n.Known(), err)
	}
}

func TestValueIsBounded(t *testing.T) {
	n := New(id(MaxValue+50), 1, State{})
	var states []State
	for i := range MaxValue + 10 {
		states = append(states, State{Node: id(i + 1), Seq: 1, Needed: 1})
	}
	if _, err := n.Merge(states); err != nil {
		t.Fatal(err)
	}
	b := Ballot{Round: 1, By: n.self}
	for _, s := range states {
		s.Seq, s.Floor, s.Promised = 2, 1, b
		n.states[s.Node] = s
	}
	own := n.Own()
	own.Promised = b
	n.record(own)
	n.step()
	if got := len(n.Own().Value); got != MaxValue {
		t.Errorf("a value of %d", got)
	}
	for _, chunk := range Chunks(n.States(), 900) {
		if len(chunk) > 900 {
			t.Errorf("a chunk of %d bytes", len(chunk))
		}
	}
}
