package ring

import (
	"errors"
	"testing"
)

// forged returns a message with the first token of r as a hostile member has changed it.
func forged(r *Ring, owner byte, version uint64) *Ring {
	f := r.pick([]uint64{0})
	f.tokens[0].Owner, f.tokens[0].Version, f.tokens[0].Free = id(owner), version, r.capacity(f.tokens[0].Span())
	return f
}

// deliver merges delta, as others decode it, at nodes by their numbers.
func deliver(t *testing.T, delta *Ring, nodes map[byte]*Ring) {
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

// TestVersionsCannotBeUsedUp: a token that a member has claimed with the highest version of its epoch comes back by a reclaim, and all
// accept what its owner writes then.
func TestVersionsCannotBeUsedUp(t *testing.T) {
	for name, version := range map[string]uint64{
		"first epoch": maxCount, "a later epoch": 5<<epochBits | maxCount, "before the last epoch": (maxEpoch-1)<<epochBits | maxCount,
	} {
		t.Run(name, func(t *testing.T) {
			a := bootstrapped(t, "10.0.0.0/24", 2)
			a.ReportFree(id(1), func(Span) uint64 { return 100 }, nil) // it is in use
			b := a.Clone()
			nodes := map[byte]*Ring{1: a, 2: b}
			deliver(t, forged(a, 9, version), nodes)
			if !a.Equal(b) || a.tokens[0].Owner != id(9) {
				t.Fatalf("%+v and %+v", a.tokens, b.tokens)
			}
			deliver(t, b.Reclaim(id(9), id(2)), nodes)
			deliver(t, b.ReportFree(id(2), func(Span) uint64 { return 50 }, nil), nodes)
			if !a.Equal(b) || a.tokens[0].Owner != id(2) || a.tokens[0].Free != 50 {
				t.Errorf("%+v and %+v", a.tokens, b.tokens)
			}
		})
	}
}

// TestOwnerWithoutAHigherVersion: an owner that has the highest version of its epoch changes nothing, and does not reach the next
// epoch: a reclaim while it is cut off counts.
func TestOwnerWithoutAHigherVersion(t *testing.T) {
	a := bootstrapped(t, "10.0.0.0/24", 2)
	b := a.Clone()
	deliver(t, forged(a, 1, maxCount), map[byte]*Ring{1: a, 2: b})
	before := a.Clone()
	if _, err := a.Grant(id(1), id(2), Span{3, 9}, all); !errors.Is(err, ErrFinal) || !a.Equal(before) {
		t.Errorf("Grant: %v", err)
	}
	if delta := a.ReportFree(id(1), func(Span) uint64 { return 7 }, nil); delta.Len() != 0 || !a.Equal(before) {
		t.Errorf("ReportFree: %+v", delta.tokens)
	}
	b.Reclaim(id(1), id(2))
	deliver(t, a, map[byte]*Ring{2: b})
	deliver(t, b, map[byte]*Ring{1: a})
	if !a.Equal(b) || len(a.Owned(id(1))) != 0 {
		t.Errorf("%+v and %+v", a.tokens, b.tokens)
	}
}

// TestInnerTokenWithoutAHigherVersion: an owner that cannot write above a token within its own gives that part up, everywhere alike.
func TestInnerTokenWithoutAHigherVersion(t *testing.T) {
	a := bootstrapped(t, "10.0.0.0/24", 2)
	a.ReportFree(id(1), func(Span) uint64 { return 100 }, nil)
	b := a.Clone()
	nodes := map[byte]*Ring{1: a, 2: b}
	inner := a.pick([]uint64{0})
	inner.tokens[0] = Token{Start: 16, End: 32, Owner: id(9), Version: maxCount, Free: 16}
	deliver(t, inner, nodes)
	deliver(t, a, nodes)
	deliver(t, b, nodes)
	if owner, _ := b.Owner(20); !a.Equal(b) || owner != id(9) || a.owns(id(1), Span{16, 17}) || !a.owns(id(1), Span{32, 128}) {
		t.Errorf("%+v and %+v", a.tokens, b.tokens)
	}
}

// TestClaimOverOtherTokens: a token with the highest version that reaches over another node's keeps that node from nothing.
func TestClaimOverOtherTokens(t *testing.T) {
	a := bootstrapped(t, "10.0.0.0/24", 3)
	claim := forged(a, 9, maxCount)
	claim.tokens[0].End = 256
	deliver(t, claim, map[byte]*Ring{2: a})
	owned := a.Owned(id(2))
	if _, err := a.Grant(id(2), id(3), Span{owned[0].Start + 1, owned[0].Start + 9}, all); err != nil {
		t.Error(err)
	}
}

// TestLastEpochIsNotReclaimed: there is no epoch above it, and two owners of one address would be worse.
func TestLastEpochIsNotReclaimed(t *testing.T) {
	a := bootstrapped(t, "10.0.0.0/24", 2)
	deliver(t, forged(a, 9, first(maxEpoch)), map[byte]*Ring{1: a})
	if delta := a.Reclaim(id(9), id(1)); delta.Len() != 0 {
		t.Errorf("%+v", delta.tokens)
	}
}
