package paxos

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/peer"
)

func sample() []State {
	v := []peer.ID{id(1), id(2), id(3)}
	b := Ballot{Round: 7, By: id(2)}
	return []State{
		{Node: id(1), Seq: 4, Needed: 3, Floor: 3, Promised: Ballot{9, id(1)}, Accepted: b, Value: v},
		{Node: id(2), Seq: 1, Needed: 3},
		{Node: id(3), Seq: 300, Needed: 2, Floor: 2, Promised: b, Accepted: b, Value: v},
	}
}

func TestEncodingRoundTrip(t *testing.T) {
	for n := range len(sample()) + 1 {
		want := sample()[:n]
		got, err := Decode(Append(nil, want))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
	if once, twice := Append(nil, sample()[:1]), Append(nil, sample()); len(twice) > len(once)+50 {
		t.Errorf("the value is written twice: %d and %d bytes", len(once), len(twice))
	}
}

func TestDecodeRefuses(t *testing.T) {
	valid := Append(nil, sample())
	for n := range len(valid) {
		if _, err := Decode(valid[:n]); !errors.Is(err, ErrEncoding) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for name, edit := range map[string]func(*State){
		"no node":                 func(s *State) { s.Node = peer.ID{} },
		"seq 0":                   func(s *State) { s.Seq = 0 },
		"seq too high":            func(s *State) { s.Seq = MaxCount + 1 },
		"round too high":          func(s *State) { s.Promised.Round = MaxCount + 1 },
		"needs too many":          func(s *State) { s.Needed = MaxAcceptors + 1 },
		"accepted above promised": func(s *State) { s.Accepted.Round = 99 },
		"accepted nothing":        func(s *State) { s.Value = nil },
		"unsorted value":          func(s *State) { s.Value[0], s.Value[1] = s.Value[1], s.Value[0] },
		"zero in value":           func(s *State) { s.Value[0] = peer.ID{} },
	} {
		states := sample()[:1]
		edit(&states[0])
		if _, err := Decode(Append(nil, states)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Decode(append([]byte{2}, valid[1:]...)); !errors.Is(err, ErrEncoding) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzDecodeMerge(f *testing.F) {
	f.Add(Append(nil, sample()))
	f.Add(Append(nil, sample()[1:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		states, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(Append(nil, states))
		if diff := cmp.Diff(states, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("round trip: %v %s", err, diff)
		}
		n := New(id(1), 3, State{})
		if _, err := n.Merge(states); err != nil {
			return
		}
		n.Propose()
		n.Decided()
		if own := n.Own(); !own.valid() && own.Seq < MaxCount && own.Promised.Round < MaxCount {
			t.Fatalf("own state %+v", own)
		}
	})
}
