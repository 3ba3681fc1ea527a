package keyring

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// alone are the Members of a node that knows no other.
type alone struct{}

func (alone) Others() []Member { return nil }

// testKeys returns keys by name: one character each, the preferred one first.
func testKeys(names string) []Key {
	var keys []Key
	for _, name := range names {
		k := Key{Fingerprint: uint32(name)}
		copy(k.Key[:], strings.Repeat(string(name), len(k.Key)))
		keys = append(keys, k)
	}
	return keys
}

// TestReplaceBesideReaders replaces keys while a goroutine reads them as the transport does, for the race detector.
func TestReplaceBesideReaders(t *testing.T) {
	k, err := New(testKeys("a"), "weft", alone{})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop.Store(true)
	readers.Go(func() {
		for !stop.Load() {
			if u := k.InUse(); len(u.Derived) != len(u.Own) || !slices.Contains(u.Derived, u.Sealer) {
				t.Error("torn keys")
			}
		}
	})
	for range 200 {
		for _, keys := range []string{"abcd", "dbe", "e", "fedcba", "bdf", "a"} {
			if err := k.Replace(testKeys(keys)); err != nil {
				t.Fatal(err)
			}
			u := k.InUse()
			if diff := cmp.Diff(testKeys(keys), u.Own); diff != "" || u.Sealer != u.Derived[u.index(k.sealer)] {
				t.Fatal(diff)
			}
		}
	}
}
