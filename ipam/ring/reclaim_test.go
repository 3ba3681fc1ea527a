package ring

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weft/internal/peer"
)

// TestReturningOwnersWriteNothingInTheHeirsName: X gave half of its share to Y, which nobody else heard of before both
// died. H took X's share and gave the same half to Z. Y comes back and hears of the first only: it must not write anything
// that contradicts the second, whoever of H and Z has the lower ID.
func TestReturningOwnersWriteNothingInTheHeirsName(t *testing.T) {
	x, y := id(1), id(2)
	for _, heir := range []byte{3, 9} {
		h, z := id(heir), id(5)
		owner := newRing(t, "10.0.0.0/24")
		if _, err := owner.Bootstrap([]peer.ID{x}); err != nil {
			t.Fatal(err)
		}
		heirs := owner.Clone()
		gift, err := owner.Grant(x, y, Span{128, 256}, Span.Len)
		if err != nil {
			t.Fatal(err)
		}
		returning := heirs.Clone()
		if _, _, err := returning.Merge(y, gift); err != nil {
			t.Fatal(err)
		}
		taken := heirs.Reclaim(x, h)
		if _, err := heirs.Grant(h, z, Span{128, 256}, Span.Len); err != nil {
			t.Fatal(err)
		}
		_, conflicts, err := returning.Merge(y, taken)
		if err != nil || len(conflicts) != 1 || !conflicts[0].Reclaimed || len(returning.Owned(y)) != 0 {
			t.Errorf("heir %d: Y: %v, %v, owns %v", heir, conflicts, err, returning.Owned(y))
		}
		if _, conflicts, err := heirs.Merge(h, returning); err != nil || len(conflicts) > 0 {
			t.Errorf("heir %d: H: %v, %v", heir, conflicts, err)
		}
		if _, conflicts, err := heirs.Merge(h, gift); err != nil || len(conflicts) > 0 {
			t.Errorf("heir %d: H hears of the old gift: %v, %v", heir, conflicts, err)
		}
		want := []Token{
			{0, 128, h, first(1) + 1, 127}, {128, 256, z, first(1), 127},
		}
		if diff := cmp.Diff(want, heirs.Tokens()); diff != "" {
			t.Errorf("heir %d: %s", heir, diff)
		}
	}
}

// TestReclaimTakesAllThatIsNamed: what lies behind a gift of the one that is gone, of which nobody knows whose it is, goes
// to the heir as well.
func TestReclaimTakesAllThatIsNamed(t *testing.T) {
	r := newRing(t, "10.0.0.0/24")
	r.founding = ClusterID{1}
	r.tokens = []Token{{0, 64, id(3), 1, 63}, {64, 256, id(1), 4, 9}, {96, 128, id(2), 1, 32}, {160, 200, id(1), 1, 40}, {170, 180, id(4), 2, 10}}
	r.Reclaim(id(1), id(3))
	check(t, r)
	want := []Token{
		{0, 64, id(3), 1, 63}, {64, 96, id(3), first(1), 32}, {96, 128, id(2), 1, 32}, {128, 160, id(3), first(1), 32},
		{160, 170, id(3), first(1), 10}, {170, 180, id(4), 2, 10}, {180, 200, id(3), first(1), 20}, {200, 256, id(3), first(1), 55},
	}
	if diff := cmp.Diff(want, r.Tokens()); diff != "" {
		t.Error(diff)
	}
}

// TestReclaimsConverge lets nodes die, be replaced by the word of all that live and come back with what they knew, while
// their gifts are still on the way. Nobody ever believes to own what another one owns, and all views become the same.
func TestReclaimsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		dead := make([]bool, len(c.views))
		alive := func() (ids []int) {
			for i := range dead {
				if !dead[i] {
					ids = append(ids, i)
				}
			}
			return ids
		}
		reclaimed := func(at int, msg *Ring) {
			_, conflicts, err := c.views[at].Merge(nodeID(at), msg)
			if err != nil {
				t.Fatal(err)
			}
			for _, conflict := range conflicts {
				if !conflict.Reclaimed {
					t.Fatalf("node %d: %v\n%s", at, conflict, c.dump())
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"grant": func(t *rapid.T) {
				from := rapid.SampledFrom(alive()).Draw(t, "from")
				c.grantFrom(t, from, rapid.IntRange(0, len(c.views)-1).Draw(t, "to"))
			},
			"deliver": func(t *rapid.T) {
				if len(c.air) > 0 {
					reclaimed(rapid.IntRange(0, len(c.views)-1).Draw(t, "at"), rapid.SampledFrom(c.air).Draw(t, "message"))
				}
			},
			"push-pull": func(t *rapid.T) { // with the dead as well: they may have come back
				from := rapid.IntRange(0, len(c.views)-1).Draw(t, "from")
				reclaimed(rapid.IntRange(0, len(c.views)-1).Draw(t, "to"), c.views[from].Clone())
			},
			"reclaim": func(t *rapid.T) {
				ids := alive()
				if len(ids) < 2 {
					return
				}
				gone := rapid.SampledFrom(ids).Draw(t, "gone")
				dead[gone] = true
				heir := rapid.SampledFrom(alive()).Draw(t, "heir")
				for _, i := range alive() {
					reclaimed(heir, c.views[i].Clone())
				}
				delta := c.views[heir].Reclaim(nodeID(gone), nodeID(heir))
				for _, tok := range delta.tokens {
					for o := tok.Start; o < tok.End; o++ {
						c.model[o] = heir
					}
				}
				for _, i := range alive() { // each knows the outcome before it takes anything more
					reclaimed(i, delta)
				}
				c.send(t, delta)
			},
			"": func(t *rapid.T) {
				for i, view := range c.views {
					if err := view.Check(); err != nil {
						t.Fatal(err)
					}
					for _, s := range owns(view, i) {
						for o := s.Start; o < s.End && !dead[i]; o++ {
							if c.model[o] != i {
								t.Fatalf("node %d believes to own %d, which is node %d's\n%s", i, o, c.model[o], c.dump())
							}
						}
					}
				}
			},
		})
		for range 3 {
			for i := range c.views {
				for j := range c.views {
					reclaimed(j, c.views[i].Clone())
				}
			}
		}
		for _, view := range c.views {
			if !view.Equal(c.views[0]) {
				t.Fatalf("views differ\n%s", c.dump())
			}
		}
	})
}
