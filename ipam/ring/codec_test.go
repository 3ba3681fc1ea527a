package ring

import (
	"bytes"
	"errors"
	"testing"
)

func TestEncodingRoundTrip(t *testing.T) {
	for _, cidr := range []string{"10.32.0.0/12", "fd00::/64", "10.0.0.0/30"} {
		for _, n := range []int{0, 1, 3, 200} {
			r := newRing(t, cidr)
			if n > 0 {
				r = bootstrapped(t, cidr, n)
			}
			got, err := Decode(r.Append(nil))
			if err != nil || !got.Equal(r) {
				t.Errorf("%s by %d: %+v, %v", cidr, n, got, err)
			}
		}
	}
}

func TestChunksAreSmallAndMergeAlone(t *testing.T) {
	whole := bootstrapped(t, "fd00::/64", 200)
	chunks := whole.Chunks(1000)
	if len(chunks) < 2 {
		t.Fatalf("%d chunks", len(chunks))
	}
	got := newRing(t, "fd00::/64")
	for i := len(chunks) - 1; i >= 0; i-- {
		if len(chunks[i]) > 1000 {
			t.Errorf("chunk of %d bytes", len(chunks[i]))
		}
		part, err := Decode(chunks[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := got.Merge(id(1), part); err != nil {
			t.Fatal(err)
		}
		check(t, got)
	}
	if !got.Equal(whole) {
		t.Error("the chunks do not add up")
	}
	if n := len(newRing(t, "fd00::/64").Chunks(1000)); n != 0 {
		t.Errorf("%d chunks of an empty ring", n)
	}
}

func TestDecodeRefuses(t *testing.T) {
	valid := bootstrapped(t, "10.0.0.0/24", 3).Append(nil)
	if _, err := Decode(valid); err != nil {
		t.Fatal(err)
	}
	for n := range len(valid) {
		if _, err := Decode(valid[:n]); !errors.Is(err, ErrEncoding) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	edit := func(f func(*Ring)) []byte {
		r := bootstrapped(t, "10.0.0.0/24", 3)
		f(r)
		return r.Append(nil)
	}
	for name, b := range map[string][]byte{
		"trailing":         append(bytes.Clone(valid), 0),
		"version":          append([]byte{9}, valid[1:]...),
		"duplicate":        edit(func(r *Ring) { r.tokens[1] = r.tokens[0] }),
		"unsorted":         edit(func(r *Ring) { r.tokens[0], r.tokens[1] = r.tokens[1], r.tokens[0] }),
		"out of range":     edit(func(r *Ring) { r.tokens[2].End = 257 }),
		"empty token":      edit(func(r *Ring) { r.tokens[2].End = r.tokens[2].Start }),
		"no owner":         edit(func(r *Ring) { r.tokens[2].Owner = id(0) }),
		"version 0":        edit(func(r *Ring) { r.tokens[2].Version = 0 }),
		"epoch":            edit(func(r *Ring) { r.tokens[2].Version = first(maxEpoch) + 1<<epochBits }),
		"count":            edit(func(r *Ring) { r.tokens[2].Version = maxCount + 1 }),
		"free":             edit(func(r *Ring) { r.tokens[2].Free = 100 }),
		"not bootstrapped": edit(func(r *Ring) { r.clusterID = ClusterID{} }),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeMerge(f *testing.F) {
	base := bootstrapped(f, "10.0.0.0/24", 3)
	f.Add(base.Append(nil))
	other := base.Clone()
	if _, err := other.Grant(id(1), id(2), Span{3, 9}, all); err != nil {
		f.Fatal(err)
	}
	f.Add(other.Append(nil))
	other.tokens[1].Owner = id(7)
	f.Add(other.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Decode(b)
		if err != nil {
			return
		}
		check(t, in)
		again, err := Decode(in.Append(nil))
		if err != nil || !again.Equal(in) {
			t.Fatalf("round trip: %v", err)
		}
		r := base.Clone()
		r.clusterID = in.clusterID
		if !in.Bootstrapped() {
			r.clusterID = base.clusterID
		}
		if _, _, err := r.Merge(id(1), in); err != nil {
			return
		}
		check(t, r)
		for i := range r.tokens {
			if r.tokens[i].Owner == id(1) && r.effective(i).End != r.tokens[i].End {
				t.Fatalf("a token of another node in the middle of ours: %+v", r.tokens)
			}
		}
	})
}
