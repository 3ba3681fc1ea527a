package mesh

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

// unusedAddr is an address at which no node is.
var unusedAddr = netip.MustParseAddrPort("127.0.0.1:9")

func TestMetaRoundTrip(t *testing.T) {
	want := meta{
		leaving: true, dataPort: 6784, protoMin: 1, protoMax: 3, started: time.Unix(1, 2), instance: 1 << 63,
		capabilities: 7, public: [peer.KeySize]byte{1, 31: 2}, name: "knot", accepts: []uint32{1, 1 << 31},
		clusterIDs: []ClusterID{{1, 2}, {3, 1 << 31}}, vni: 0xabcdef,
	}
	b := want.encode()
	got, err := parseMeta(append(b, 200, 3, 'n', 'e', 'w', 201, 0)) // extensions of a later build
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(meta{})); diff != "" {
		t.Error(diff)
	}
	withoutExtensions := len(b) - 2 - vniLen
	withoutClusterIDs := withoutExtensions - 1 - 8*len(want.clusterIDs)
	withoutAccepts := withoutClusterIDs - 1 - 4*len(want.accepts)
	older := want
	older.vni = 0
	for _, end := range []int{withoutExtensions, withoutClusterIDs, withoutAccepts} {
		if end < withoutExtensions {
			older.clusterIDs = nil
		}
		if end < withoutClusterIDs {
			older.accepts = nil
		}
		if got, err = parseMeta(b[:end]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(older, got, cmp.AllowUnexported(meta{})); diff != "" {
			t.Error(diff)
		}
	}
	for n := range len(b) {
		if n == withoutAccepts || n == withoutClusterIDs || n == withoutExtensions {
			continue
		}
		if _, err := parseMeta(b[:n]); !errors.Is(err, errMeta) {
			t.Errorf("parseMeta of the first %d bytes: %v", n, err)
		}
	}
	for _, extension := range [][]byte{{extensionVNI, 2, 1, 2}, {extensionVNI, 4, 0, 1, 2, 3}, {200}, {200, 1}} {
		if _, err := parseMeta(append(want.encode(), extension...)); !errors.Is(err, errMeta) {
			t.Errorf("parseMeta with the extension %x: %v", extension, err)
		}
	}
	long := meta{
		name: string(make([]byte, 1000)), accepts: make([]uint32, MaxKeys), clusterIDs: make([]ClusterID, MaxClusterIDs), vni: 1,
	}
	if n := len(long.encode()); n > 512 {
		t.Errorf("metadata of %d bytes, memberlist accepts 512", n)
	}
}

// TestNicknameIsPrintable: another node's nickname cannot act on a terminal, and a long one is cut between characters.
func TestNicknameIsPrintable(t *testing.T) {
	got, err := parseMeta(meta{name: "x\x1b]0;owned\x07\x1b[2J\nroot\u202e\u200b ö"}.encode())
	if want := "x.]0;owned..[2J.root.. ö"; err != nil || got.name != want {
		t.Errorf("%q, %v, want %q", got.name, err, want)
	}
	long := strings.Repeat("ö", maxName)
	if got, err = parseMeta(meta{name: long}.encode()); err != nil || got.name != long[:maxName-1] {
		t.Errorf("%q, %v, want the first %d bytes", got.name, err, maxName-1)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add(meta{name: "a", started: time.Unix(0, 0)}.encode())
	f.Add(meta{name: "a", started: time.Unix(0, 0), accepts: []uint32{7}}.encode())
	f.Add(meta{name: "a", started: time.Unix(0, 0), clusterIDs: []ClusterID{{1, 2}}, vni: 7}.encode())
	f.Add(append(meta{started: time.Unix(0, 0)}.encode(), 2, 1, 0, extensionVNI, 3, 0, 0, 1))
	f.Add(append(meta{started: time.Unix(0, 0)}.encode(), extensionCertificate, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		again, err := parseMeta(m.encode())
		if diff := cmp.Diff(m, again, cmp.AllowUnexported(meta{})); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	})
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadIdentity(dir)
	if err != nil || again != first {
		t.Fatalf("second load: %v, %v; want %v", again.ID, err, first.ID)
	}
	path := filepath.Join(dir, KeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	for _, bad := range []string{"", "hello", "weft-node-key-1 ", "weft-node-key-1 AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); !errors.Is(err, ErrBadKey) {
			t.Errorf("key file %q: %v, want ErrBadKey", bad, err)
		}
		if text, _ := os.ReadFile(path); string(text) != bad {
			t.Errorf("a bad key file was overwritten with %q", text)
		}
	}
}
