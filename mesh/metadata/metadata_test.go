package metadata

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/ether"
	"weft/internal/peer"
)

// comparePrefix compares prefixes, which have no exported fields.
var comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestRoundTrip(t *testing.T) {
	want := Node{
		Leaving: true, DataPort: 6784, ProtoMin: 1, ProtoMax: 3, Started: time.Unix(1, 2), Instance: 1 << 63,
		Capabilities: 7, Public: [peer.KeySize]byte{1, 31: 2}, Name: "knot", Accepts: []uint32{1, 1 << 31},
		ClusterIDs: []ClusterID{{1, 2}, {3, 1 << 31}}, VNI: 0xabcdef,
		Direct: []byte{1, 2, 3}, Gateway: ether.Addr{6, 1, 2, 3, 4, 5}, DNSDomain: "pods.example.org",
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd00::/64")}, Version: "v1.2",
	}
	b := want.Encode()
	got, err := Parse(append(b, 200, 3, 'n', 'e', 'w', 201, 0)) // extensions of a later build
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, comparePrefix); diff != "" {
		t.Error(diff)
	}
	withoutVersion := len(b) - 2 - len(want.Version)
	withoutRanges := withoutVersion - 2 - 2 - 4 - 2 - 16
	withoutDomain := withoutRanges - 2 - len(want.DNSDomain)
	withoutGateway := withoutDomain - 2 - len(want.Gateway)
	withoutDirect := withoutGateway - 2 - len(want.Direct)
	withoutExtensions := withoutDirect - 2 - vniLen
	withoutClusterIDs := withoutExtensions - 1 - 8*len(want.ClusterIDs)
	withoutAccepts := withoutClusterIDs - 1 - 4*len(want.Accepts)
	older := want
	older.Version = ""
	ends := []int{
		withoutVersion, withoutRanges, withoutDomain, withoutGateway, withoutDirect, withoutExtensions, withoutClusterIDs, withoutAccepts,
	}
	for _, end := range ends {
		if end < withoutVersion {
			older.Ranges = nil
		}
		if end < withoutRanges {
			older.DNSDomain = ""
		}
		if end < withoutDomain {
			older.Gateway = ether.Addr{}
		}
		if end < withoutGateway {
			older.Direct = nil
		}
		if end < withoutDirect {
			older.VNI = 0
		}
		if end < withoutExtensions {
			older.ClusterIDs = nil
		}
		if end < withoutClusterIDs {
			older.Accepts = nil
		}
		if got, err = Parse(b[:end]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(older, got, comparePrefix); diff != "" {
			t.Error(diff)
		}
	}
	for n := range len(b) {
		if slices.Contains(ends, n) {
			continue
		}
		if _, err := Parse(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse of the first %d bytes: %v", n, err)
		}
	}
	for _, extension := range [][]byte{
		{extensionVNI, 2, 1, 2}, {extensionVNI, 4, 0, 1, 2, 3}, {200}, {200, 1},
		{extensionDirect, 3, 4, 10}, {extensionGateway, 5, 1, 2, 3, 4, 5},
		{extensionRanges, 3, 12, 4, 10}, {extensionRanges, 2, 12, 5}, {extensionRanges, 6, 33, 4, 10, 0, 0, 0},
	} {
		if _, err := Parse(append(want.Encode(), extension...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse with the extension %x: %v", extension, err)
		}
	}
	long := Node{
		Name: string(make([]byte, 1000)), Accepts: make([]uint32, 8), ClusterIDs: make([]ClusterID, MaxClusterIDs), VNI: 1,
		Ranges: want.Ranges, Version: string(make([]byte, 1000)), DNSDomain: string(make([]byte, 1000)),
	}
	if n := len(long.Encode()); n > 512 {
		t.Errorf("metadata of %d bytes, memberlist accepts 512", n)
	}
}

// TestNicknameIsPrintable: another node's nickname cannot act on a terminal, and a long one is cut between characters.
func TestNicknameIsPrintable(t *testing.T) {
	got, err := Parse(Node{Name: "x\x1b]0;owned\x07\x1b[2J\nroot\u202e\u200b ö"}.Encode())
	if want := "x.]0;owned..[2J.root.. ö"; err != nil || got.Name != want {
		t.Errorf("%q, %v, want %q", got.Name, err, want)
	}
	long := strings.Repeat("ö", MaxName)
	if got, err = Parse(Node{Name: long}.Encode()); err != nil || got.Name != long[:MaxName-1] {
		t.Errorf("%q, %v, want the first %d bytes", got.Name, err, MaxName-1)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Node{Name: "a", Started: time.Unix(0, 0)}.Encode())
	f.Add(Node{Name: "a", Started: time.Unix(0, 0), Accepts: []uint32{7}}.Encode())
	f.Add(Node{Name: "a", Started: time.Unix(0, 0), ClusterIDs: []ClusterID{{1, 2}}, VNI: 7}.Encode())
	f.Add(append(Node{Started: time.Unix(0, 0)}.Encode(), 2, 1, 0, extensionVNI, 3, 0, 0, 1))
	f.Add(append(Node{Started: time.Unix(0, 0)}.Encode(), extensionCertificate, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(m.Encode())
		if diff := cmp.Diff(m, again, comparePrefix); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	})
}
