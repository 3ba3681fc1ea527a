package ring

import "testing"

// TestVersionsCannotBeUsedUp: after a member has claimed a token with the highest version that others accept, its owner, and the
// node that reclaims it, still write versions that all accept.
func TestVersionsCannotBeUsedUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		forged uint64 // version
		owner  byte   // of the token in the end
	}{
		{"highest count", maxCount, 1},
		{"latest epoch", first(maxEpochsAhead), 9},
		{"latest epoch, highest count", maxEpochsAhead<<epochBits | maxCount, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := map[byte]*Ring{1: bootstrapped(t, "10.0.0.0/24", 2)}
			nodes[1].ReportFree(id(1), func(Span) uint64 { return 100 }, nil) // it is in use
			nodes[2] = nodes[1].Clone()
			publish := func(delta *Ring) {
				t.Helper()
				in, err := Decode(delta.Append(nil))
				if err != nil {
					t.Fatal(err)
				}
				for n, r := range nodes {
					if _, _, err := r.Merge(id(n), in); err != nil {
						t.Fatal(err)
					}
				}
			}
			forged := nodes[1].Clone()
			forged.tokens = forged.tokens[:1]
			forged.tokens[0].Owner, forged.tokens[0].Version, forged.tokens[0].Free = id(9), tt.forged, 127
			publish(forged)
			publish(nodes[1].pick([]uint64{0}))
			for n, r := range nodes {
				if r.tokens[0].Owner != id(tt.owner) {
					t.Fatalf("in the view of node %d, node %v owns the token, want %d", n, r.tokens[0].Owner, tt.owner)
				}
			}
			if tt.owner == 9 {
				publish(nodes[2].Reclaim(id(9), id(2)))
			}
			before := nodes[1].tokens[0]
			publish(nodes[before.Owner[0]].ReportFree(before.Owner, func(Span) uint64 { return 50 }, nil))
			if !nodes[1].Equal(nodes[2]) || nodes[1].tokens[0].Owner == id(9) || nodes[1].tokens[0].Free != 50 {
				t.Errorf("%+v and %+v", nodes[1].tokens, nodes[2].tokens)
			}
		})
	}
}

// TestEpochFarAheadIsPassedOver: a merge changes nothing, and reports the contradiction. A node that knows nothing accepts all.
func TestEpochFarAheadIsPassedOver(t *testing.T) {
	r := bootstrapped(t, "10.0.0.0/24", 2)
	forged := r.Clone()
	forged.tokens[1].Owner, forged.tokens[1].Version = id(9), first(maxEpochsAhead+1)
	before := r.Clone()
	delta, conflicts, err := r.Merge(id(1), forged)
	if err != nil || delta.Len() != 0 || !r.Equal(before) || len(conflicts) != 1 || conflicts[0].Kept != before.tokens[1] {
		t.Errorf("%+v, %v, %v", delta, conflicts, err)
	}
	empty := newRing(t, "10.0.0.0/24")
	if _, _, err := empty.Merge(id(3), forged); err != nil || !empty.Equal(forged) {
		t.Errorf("%+v, %v", empty.tokens, err)
	}
}

// TestNext: versions grow, are valid, and end at the highest one.
func TestNext(t *testing.T) {
	const last = maxEpoch<<epochBits | maxCount
	for was, want := range map[uint64]uint64{
		1: 2, maxCount - 1: maxCount, maxCount: first(1), first(3): first(3) + 1, last - 1: last, last: last,
	} {
		if got := next(was); got != want || !valid(got) {
			t.Errorf("next(%x) = %x, want %x", was, got, want)
		}
	}
	if first(maxEpoch+1) != first(maxEpoch) {
		t.Error("an epoch above the last one")
	}
}
