package direct

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEncode: what a node publishes is read again; of further addresses of a kind and of later kinds nothing is taken.
func TestEncode(t *testing.T) {
	addr := netip.MustParseAddr
	want := Node{
		Probes: []netip.Addr{addr("10.32.0.9"), addr("fd32::9")}, Link: addr("fe80::9"), Hosts: []netip.Addr{addr("10.32.0.1"), addr("fd32::1")},
		Share: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/24")},
	}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	compare := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	for _, more := range [][]byte{nil, {9, 1, 7}, {kindProbe, 4, 10, 32, 0, 8}, {kindLink, 4, 10, 0, 0, 1}, {kindProbe, 3, 1, 2, 3}} {
		if diff := cmp.Diff(want, Decode(append(slices.Clone(b), more...), want.Share), compare); diff != "" {
			t.Errorf("with %x: %s", more, diff)
		}
	}
	for n := range b {
		if got := Decode(b[:n], nil); len(got.Probes) > 2 || n == len(b)-1 && len(got.Probes) > 0 {
			t.Errorf("the first %d bytes: %+v", n, got)
		}
	}
	for range 20 {
		want.Hosts = append(want.Hosts, addr("fd32::1"))
	}
	if _, err := want.Encode(); err == nil {
		t.Error("more addresses than fit were encoded")
	}
}

// FuzzDecode reads what other nodes publish.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{kindProbe, 4, 10, 32, 0, 1, kindLink, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := Decode(b, nil); len(n.Probes) > 2 {
			t.Errorf("%+v", n)
		}
	})
}
