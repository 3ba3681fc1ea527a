package ring

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

func id(n byte) peer.ID { return peer.ID{n} }

func newRing(t testing.TB, cidr string) *Ring {
	t.Helper()
	r, err := New(netip.MustParsePrefix(cidr))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bootstrapped returns a ring of cidr divided among nodes 1 to n.
func bootstrapped(t testing.TB, cidr string, n int) *Ring {
	t.Helper()
	r := newRing(t, cidr)
	var bootstrapNodes []peer.ID
	for i := range n {
		bootstrapNodes = append(bootstrapNodes, id(byte(i+1)))
	}
	if _, err := r.Bootstrap(bootstrapNodes); err != nil {
		t.Fatal(err)
	}
	return r
}

func all(s Span) uint64 { return s.Len() }

func check(t testing.TB, r *Ring) {
	t.Helper()
	if err := r.Check(); err != nil {
		t.Fatalf("%v\n%+v", err, r.tokens)
	}
}

func TestOffsets(t *testing.T) {
	for _, tt := range []struct {
		cidr   string
		size   uint64
		usable Span
		last   string // the address at the last usable offset
	}{
		{"10.32.0.0/12", 1 << 20, Span{1, 1<<20 - 1}, "10.47.255.254"},
		{"10.0.0.0/30", 4, Span{1, 3}, "10.0.0.2"},
		{"10.0.0.0/31", 2, Span{0, 2}, "10.0.0.1"},
		{"10.0.0.7/32", 1, Span{0, 1}, "10.0.0.7"},
		{"0.0.0.0/0", 1 << 32, Span{1, 1<<32 - 1}, "255.255.255.254"},
		{"fd00::/48", 1 << 40, Span{1, 1 << 40}, "fd00::ff:ffff:ffff"},
		{"fd00::fff0/124", 16, Span{1, 16}, "fd00::ffff"},
		{"fd00::8/127", 2, Span{0, 2}, "fd00::9"},
	} {
		r := newRing(t, tt.cidr)
		if got := r.Size(); got != tt.size {
			t.Errorf("%s: size %d, want %d", tt.cidr, got, tt.size)
		}
		if got := r.Usable(); got != tt.usable {
			t.Errorf("%s: usable %v, want %v", tt.cidr, got, tt.usable)
		}
		last := r.Addr(tt.usable.End - 1)
		if last.String() != tt.last {
			t.Errorf("%s: last %s, want %s", tt.cidr, last, tt.last)
		}
		if o, ok := r.Offset(last); !ok || o != tt.usable.End-1 {
			t.Errorf("%s: Offset(%s) = %d, %v", tt.cidr, last, o, ok)
		}
	}
}

func TestOffsetOutside(t *testing.T) {
	r := newRing(t, "fd00::/48")
	for _, s := range []string{"fd00::100:0:0", "fd00:0:0:1::", "fd01::", "10.0.0.1"} {
		if o, ok := r.Offset(netip.MustParseAddr(s)); ok {
			t.Errorf("Offset(%s) = %d, want none", s, o)
		}
	}
}

func TestHosts(t *testing.T) {
	r := newRing(t, "10.32.0.0/16")
	for _, tt := range []struct {
		in   string
		want Span
		ok   bool
	}{
		{"10.32.0.0/16", Span{1, 1<<16 - 1}, true},
		{"10.32.1.0/24", Span{257, 511}, true},
		{"10.32.1.77/24", Span{257, 511}, true},
		{"10.32.0.0/31", Span{1, 2}, true},
		{"10.32.255.255/32", Span{1<<16 - 1, 1<<16 - 1}, true},
		{"10.33.0.0/24", Span{}, false},
		{"10.0.0.0/8", Span{}, false},
		{"fd00::/120", Span{}, false},
	} {
		got, ok := r.Hosts(netip.MustParsePrefix(tt.in))
		if ok != tt.ok || got != tt.want && got.Len()+tt.want.Len() > 0 {
			t.Errorf("Hosts(%s) = %v, %v, want %v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

func TestBootstrapIsTheSameInAnyOrder(t *testing.T) {
	a, b := newRing(t, "10.0.0.0/24"), newRing(t, "10.0.0.0/24")
	if _, err := a.Bootstrap([]peer.ID{id(3), id(1), id(2), id(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Bootstrap([]peer.ID{id(1), id(2), id(3)}); err != nil {
		t.Fatal(err)
	}
	if !a.Equal(b) {
		t.Errorf("%+v\n%+v", a.tokens, b.tokens)
	}
	want := []Total{{id(1), 86, 85}, {id(2), 85, 85}, {id(3), 85, 84}}
	if diff := cmp.Diff(want, a.Totals()); diff != "" {
		t.Error(diff)
	}
}

func TestBootstrapKeepsABootstrappedRing(t *testing.T) {
	whole := bootstrapped(t, "10.0.0.0/24", 3)
	part := newRing(t, "10.0.0.0/24")
	if _, _, err := part.Merge(id(2), whole.pick([]uint64{0})); err != nil {
		t.Fatal(err)
	}
	delta, err := part.Bootstrap([]peer.ID{id(1), id(2), id(3)})
	if err != nil || delta.Len() != 0 || part.Len() != 1 {
		t.Errorf("delta %+v, err %v, ring %+v", delta, err, part)
	}
	var mismatch *ClusterMismatchError
	if _, err := part.Bootstrap([]peer.ID{id(1)}); !errors.As(err, &mismatch) {
		t.Errorf("second bootstrap by others: %v", err)
	}
}

func TestGrantCutsAndHandsOver(t *testing.T) {
	r := bootstrapped(t, "10.0.0.0/24", 1)
	delta, err := r.Grant(id(1), id(2), Span{64, 128}, all)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r)
	want := []Token{
		{0, 64, id(1), 2, 63},
		{64, 128, id(2), 2, 64},
		{128, 256, id(1), 1, 127},
	}
	if diff := cmp.Diff(want, r.Tokens()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, delta.Tokens()); diff != "" {
		t.Error(diff)
	}
	if _, err := r.Grant(id(1), id(3), Span{0, 65}, all); !errors.Is(err, ErrNotOwner) {
		t.Errorf("granted a span of another owner: %v", err)
	}
	// A grant along boundaries that exist adds no token; one over several tokens hands each over.
	if _, err := r.Grant(id(2), id(1), Span{64, 128}, all); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Grant(id(1), id(3), Span{0, 256}, all); err != nil {
		t.Fatal(err)
	}
	if r.Len() != 3 {
		t.Errorf("%d tokens, want 3", r.Len())
	}
	if diff := cmp.Diff([]Span{{0, 256}}, r.Owned(id(3))); diff != "" {
		t.Error(diff)
	}
}

func TestAFullRingGrantsWholeTokensOnly(t *testing.T) {
	r := newRing(t, "10.0.0.0/8")
	r.clusterID = ClusterID{1}
	for i := range uint64(MaxTokens) {
		r.tokens = append(r.tokens, Token{Start: 4 * i, End: 4*i + 4, Owner: id(1), Version: 1})
	}
	check(t, r)
	if _, err := r.Grant(id(1), id(2), Span{0, 6}, all); !errors.Is(err, ErrFull) {
		t.Errorf("a cut: %v", err)
	}
	if _, err := r.Grant(id(1), id(2), Span{0, 8}, all); err != nil {
		t.Errorf("whole tokens: %v", err)
	}
}

func TestRecipientNeverOverestimates(t *testing.T) {
	donor := bootstrapped(t, "10.0.0.0/24", 1)
	delta, err := donor.Grant(id(1), id(2), Span{64, 128}, all)
	if err != nil {
		t.Fatal(err)
	}
	// The recipient learns of its own token only; the token that follows is lost.
	recipient := newRing(t, "10.0.0.0/24")
	if _, _, err := recipient.Merge(id(2), delta.pick([]uint64{64})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Span{{64, 128}}, recipient.Owned(id(2))); diff != "" {
		t.Error(diff)
	}
	if owner, ok := recipient.Owner(200); ok {
		t.Errorf("owner of a gap: %s", owner)
	}
	// A third node that missed the donor's cut reads the donor's stale token as ending where the next begins.
	third := bootstrapped(t, "10.0.0.0/24", 1)
	if _, _, err := third.Merge(id(3), delta.pick([]uint64{64})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Span{{0, 64}}, third.Owned(id(1))); diff != "" {
		t.Error(diff)
	}
}

func TestReportFree(t *testing.T) {
	r := bootstrapped(t, "10.0.0.0/24", 2)
	delta := r.ReportFree(id(1), func(Span) uint64 { return 1000 }, nil)
	if delta.Len() != 0 {
		t.Errorf("clamped to the known count, yet published: %+v", delta.tokens)
	}
	never := func(_, _, _ uint64) bool { return false }
	if d := r.ReportFree(id(1), func(Span) uint64 { return 5 }, never); d.Len() != 0 {
		t.Errorf("published a change that is not worth it: %+v", d.tokens)
	}
	delta = r.ReportFree(id(1), func(Span) uint64 { return 5 }, nil)
	if diff := cmp.Diff([]Token{{0, 128, id(1), 2, 5}}, delta.Tokens()); diff != "" {
		t.Error(diff)
	}
}

func TestTotalsWithin(t *testing.T) {
	r := bootstrapped(t, "10.0.0.0/24", 2)
	want := []Total{{id(1), 28, 28}, {id(2), 2, 2}}
	if diff := cmp.Diff(want, r.TotalsWithin(Span{100, 130})); diff != "" {
		t.Error(diff)
	}
}

func TestFillIn(t *testing.T) {
	bootstrapNodes := []peer.ID{{1}, {2}, {3}}
	cidr := netip.MustParsePrefix("10.32.0.0/24")
	whole, err := New(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := whole.Bootstrap(bootstrapNodes); err != nil {
		t.Fatal(err)
	}
	// The second node has granted part of its share; the third's share is all that the other ring knows.
	moved := whole.Clone()
	if _, err := moved.Grant(peer.ID{2}, peer.ID{4}, Span{100, 120}, Span.Len); err != nil {
		t.Fatal(err)
	}
	part, err := New(cidr)
	if err != nil {
		t.Fatal(err)
	}
	known := moved.Select(func(t Token) bool { return t.Owner == peer.ID{3} || t.Owner == peer.ID{4} })
	if _, _, err := part.Merge(peer.ID{1}, known); err != nil {
		t.Fatal(err)
	}
	if part.FillIn(bootstrapNodes[:2]) || part.Len() != 2 {
		t.Errorf("filled in from the wrong nodes: %v", part.Tokens())
	}
	if !part.FillIn(bootstrapNodes) {
		t.Error("not filled in from the bootstrap nodes")
	}
	if got := part.Owned(peer.ID{1}); len(got) != 1 || got[0] != (Span{0, 86}) {
		t.Errorf("the first node owns %v", got)
	}
	if got := part.Owned(peer.ID{2}); len(got) != 0 {
		t.Errorf("a share that was granted since was filled in as %v", got)
	}
	if err := part.Check(); err != nil {
		t.Error(err)
	}
	if _, _, err := part.Merge(peer.ID{1}, moved); err != nil || !part.Equal(moved) {
		t.Errorf("%v; merged with all tokens it holds %v, want %v", err, part.Tokens(), moved.Tokens())
	}
}
