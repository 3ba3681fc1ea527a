package ring

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMergeRefusesOtherRangesAndClusterIDs(t *testing.T) {
	r := bootstrapped(t, "10.0.0.0/24", 2)
	before := r.Clone()
	if _, _, err := r.Merge(id(1), bootstrapped(t, "10.0.1.0/24", 2)); !errors.Is(err, ErrRange) {
		t.Errorf("another range: %v", err)
	}
	other := bootstrapped(t, "10.0.0.0/24", 3)
	var mismatch *ClusterMismatchError
	if _, _, err := r.Merge(id(1), other); !errors.As(err, &mismatch) {
		t.Fatalf("another cluster ID: %v", err)
	}
	if mismatch.Ours != r.ClusterID() || mismatch.Theirs != other.ClusterID() {
		t.Errorf("%v", mismatch)
	}
	if !r.Equal(before) {
		t.Error("a refused merge changed the ring")
	}
}

func TestMergeKeepsTheHigherVersion(t *testing.T) {
	a := bootstrapped(t, "10.0.0.0/24", 2)
	b := a.Clone()
	delta := b.ReportFree(id(2), func(Span) uint64 { return 7 }, nil)
	got, conflicts, err := a.Merge(id(1), delta)
	if err != nil || len(conflicts) != 0 || !got.Equal(delta) || !a.Equal(b) {
		t.Errorf("delta %+v, conflicts %v, err %v", got, conflicts, err)
	}
	got, conflicts, err = a.Merge(id(1), delta)
	if err != nil || len(conflicts) != 0 || got.Len() != 0 {
		t.Errorf("the second time: delta %+v, conflicts %v, err %v", got, conflicts, err)
	}
}

// TestConflictsResolveTheSameEverywhere: each case is a contradiction; every node that merges it must end with want.
func TestConflictsResolveTheSameEverywhere(t *testing.T) {
	tests := []struct {
		name         string
		ours, theirs []Token // on a ring of 256 addresses, of which 1..254 may be allocated
		self         byte
		want         []Token
	}{
		{
			name:   "same version, theirs in use",
			ours:   []Token{{0, 256, id(1), 3, 254}},
			theirs: []Token{{0, 256, id(2), 3, 100}},
			self:   1,
			want:   []Token{{0, 256, id(2), 3, 100}},
		},
		{
			name:   "same version, neither in use: lower ID",
			ours:   []Token{{0, 256, id(2), 3, 254}},
			theirs: []Token{{0, 256, id(1), 3, 254}},
			self:   2,
			want:   []Token{{0, 256, id(1), 3, 254}},
		},
		{
			name:   "taken over while in use",
			ours:   []Token{{0, 256, id(1), 3, 100}},
			theirs: []Token{{0, 256, id(2), 5, 254}},
			self:   1,
			want:   []Token{{0, 256, id(1), 6, 100}},
		},
		{
			name:   "taken over, both in use: higher version",
			ours:   []Token{{0, 256, id(1), 3, 100}},
			theirs: []Token{{0, 256, id(2), 5, 99}},
			self:   1,
			want:   []Token{{0, 256, id(2), 5, 99}},
		},
		{
			name:   "a later version of our own",
			ours:   []Token{{0, 256, id(1), 3, 100}},
			theirs: []Token{{0, 128, id(1), 5, 127}},
			self:   1,
			want:   []Token{{0, 128, id(1), 5, 127}},
		},
		{
			name:   "in the middle of ours, in use",
			ours:   []Token{{0, 256, id(1), 3, 100}},
			theirs: []Token{{64, 128, id(2), 1, 63}},
			self:   1,
			want:   []Token{{0, 64, id(1), 4, 63}, {64, 128, id(2), 1, 63}, {128, 256, id(1), 1, 100}},
		},
		{
			name:   "in the middle of ours, only ours in use",
			ours:   []Token{{0, 256, id(1), 3, 100}},
			theirs: []Token{{64, 128, id(2), 9, 64}},
			self:   1,
			want:   []Token{{0, 64, id(1), 4, 63}, {64, 128, id(1), 10, 64}, {128, 256, id(1), 1, 100}},
		},
		{
			name:   "several in the middle, one reaching out",
			ours:   []Token{{0, 128, id(1), 3, 127}, {128, 256, id(3), 1, 127}},
			theirs: []Token{{32, 64, id(2), 9, 32}, {96, 200, id(2), 1, 5}},
			self:   1,
			want: []Token{{0, 32, id(1), 4, 31}, {32, 64, id(2), 9, 32}, {64, 96, id(1), 1, 32},
				{96, 200, id(2), 1, 5}, {128, 256, id(3), 1, 127}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing(t, "10.0.0.0/24")
			r.clusterID, r.tokens = ClusterID{1}, tt.ours
			in := newRing(t, "10.0.0.0/24")
			in.clusterID, in.tokens = ClusterID{1}, tt.theirs
			check(t, r)
			check(t, in)
			third := r.Clone()
			delta, conflicts, err := r.Merge(id(tt.self), in)
			if err != nil || len(conflicts) == 0 {
				t.Fatalf("conflicts %v, err %v", conflicts, err)
			}
			check(t, r)
			if diff := cmp.Diff(tt.want, r.Tokens()); diff != "" {
				t.Error(diff)
			}
			if conflicts[0].String() == "" {
				t.Error("a conflict without a text")
			}
			// A third node, which merges in the other order, ends with the same tokens.
			for _, msg := range []*Ring{in, delta, in} {
				if _, _, err := third.Merge(id(9), msg); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, third.Tokens()); diff != "" {
				t.Errorf("third node: %s", diff)
			}
		})
	}
}
