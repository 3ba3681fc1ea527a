package ring

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"weft/internal/peer"
)

// TestReturningOwnersDoNotContradictTheNewOwner: X granted half of its share to Y, which no other node learned of
// before both died. H reclaimed X's share and granted the same half to Z. Y comes back and receives only the reclaim:
// it must not write anything that contradicts the grant to Z, whether H or Z has the lower ID.
func TestReturningOwnersDoNotContradictTheNewOwner(t *testing.T) {
	x, y := id(1), id(2)
	for _, newOwner := range []byte{3, 9} {
		h, z := id(newOwner), id(5)
		owner := newRing(t, "10.0.0.0/24")
		if _, err := owner.Bootstrap([]peer.ID{x}); err != nil {
			t.Fatal(err)
		}
		newOwners := owner.Clone()
		grant, err := owner.Grant(x, y, Span{128, 256}, Span.Len)
		if err != nil {
			t.Fatal(err)
		}
		returning := newOwners.Clone()
		if _, _, err := returning.Merge(y, grant); err != nil {
			t.Fatal(err)
		}
		taken := newOwners.Reclaim(x, h)
		if _, err := newOwners.Grant(h, z, Span{128, 256}, Span.Len); err != nil {
			t.Fatal(err)
		}
		_, conflicts, err := returning.Merge(y, taken)
		if err != nil || len(conflicts) != 1 || !conflicts[0].Reclaimed || len(returning.Owned(y)) != 0 {
			t.Errorf("new owner %d: Y: %v, %v, owns %v", newOwner, conflicts, err, returning.Owned(y))
		}
		if _, conflicts, err := newOwners.Merge(h, returning); err != nil || len(conflicts) > 0 {
			t.Errorf("new owner %d: H: %v, %v", newOwner, conflicts, err)
		}
		if _, conflicts, err := newOwners.Merge(h, grant); err != nil || len(conflicts) > 0 {
			t.Errorf("new owner %d: H receives the old grant: %v, %v", newOwner, conflicts, err)
		}
		want := []Token{
			{0, 128, h, first(1) + 1, 127}, {128, 256, z, first(1), 127},
		}
		if diff := cmp.Diff(want, newOwners.Tokens()); diff != "" {
			t.Errorf("new owner %d: %s", newOwner, diff)
		}
	}
}

// TestReclaimTakesAllThatIsCovered: the addresses behind a grant of the dead node, of which the owner is unknown, go to
// the new owner as well.
func TestReclaimTakesAllThatIsCovered(t *testing.T) {
	r := newRing(t, "10.0.0.0/24")
	r.clusterID = ClusterID{1}
	r.tokens = []Token{
		{0, 64, id(3), 1, 63}, {64, 256, id(1), 4, 9}, {96, 128, id(2), 1, 32}, {160, 200, id(1), 1, 40}, {170, 180, id(4), 2, 10},
	}
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

// TestReclaimsConverge has nodes die, be reclaimed with the agreement of all live nodes, and come back with their old
// state, while their grants are still in flight. No live node ever owns, in its own view, an address that another node
// owns, and all views become equal.
func TestReclaimsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		isDead := make([]bool, len(c.views))
		alive := func() (ids []int) {
			for i := range isDead {
				if !isDead[i] {
					ids = append(ids, i)
				}
			}
			return ids
		}
		merge := func(at int, msg *Ring) {
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
					merge(rapid.IntRange(0, len(c.views)-1).Draw(t, "at"), rapid.SampledFrom(c.air).Draw(t, "message"))
				}
			},
			"push-pull": func(t *rapid.T) { // with dead nodes as well: they may have come back
				from := rapid.IntRange(0, len(c.views)-1).Draw(t, "from")
				merge(rapid.IntRange(0, len(c.views)-1).Draw(t, "to"), c.views[from].Clone())
			},
			"reclaim": func(t *rapid.T) {
				ids := alive()
				if len(ids) < 2 {
					return
				}
				dead := rapid.SampledFrom(ids).Draw(t, "dead")
				isDead[dead] = true
				newOwner := rapid.SampledFrom(alive()).Draw(t, "new owner")
				for _, i := range alive() {
					merge(newOwner, c.views[i].Clone())
				}
				delta := c.views[newOwner].Reclaim(nodeID(dead), nodeID(newOwner))
				for _, tok := range delta.tokens {
					for o := tok.Start; o < tok.End; o++ {
						c.model[o] = newOwner
					}
				}
				for _, i := range alive() { // each learns the outcome before it merges anything else
					merge(i, delta)
				}
				c.send(t, delta)
			},
			"": func(t *rapid.T) {
				for i, view := range c.views {
					if err := view.Check(); err != nil {
						t.Fatal(err)
					}
					for _, s := range owns(view, i) {
						for o := s.Start; o < s.End && !isDead[i]; o++ {
							if c.model[o] != i {
								t.Fatalf("node %d owns %d in its view, but node %d owns it\n%s", i, o, c.model[o], c.dump())
							}
						}
					}
				}
			},
		})
		for range 3 {
			for i := range c.views {
				for j := range c.views {
					merge(j, c.views[i].Clone())
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
