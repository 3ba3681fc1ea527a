package storetest

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/peer"
	"weft/ipam/store"
)

// TestStore checks a store.Store. Within one subtest, open opens the same store each time, empty at first; the suite
// closes it before it opens it again.
func TestStore(t *testing.T, newStore func(t *testing.T) (open func() store.Store)) {
	for name, test := range map[string]func(*testing.T, func() store.Store){
		"Empty":      testEmpty,
		"Everything": testEverything,
		"Replace":    testReplace,
		"Rollback":   testRollback,
		"Owned":      testOwned,
		"Concurrent": testConcurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

var (
	cidr4 = netip.MustParsePrefix("10.32.0.0/12")
	cidr6 = netip.MustParsePrefix("fd00::/64")
	since = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
)

func lease(owner, addr string) store.Lease {
	return store.Lease{Holder: owner, Addr: netip.MustParseAddr(addr), In: cidr4, Since: since}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks that s holds the state, except for its source.
func want(t *testing.T, s store.Store, state store.State) {
	t.Helper()
	got, err := s.Load()
	must(t, err)
	if got.Source == "" {
		t.Error("no source")
	}
	byValue := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	ignore := cmpopts.IgnoreFields(store.State{}, "Source")
	if diff := cmp.Diff(state, got, byValue, addrs, ignore, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func testEmpty(t *testing.T, open func() store.Store) {
	s := open()
	want(t, s, store.State{})
	must(t, s.Close())
	s = open()
	want(t, s, store.State{})
	must(t, s.Close())
}

func testEverything(t *testing.T, open func() store.Store) {
	s := open()
	must(t, s.Update(func(tx store.Tx) error {
		return errors.Join(
			tx.SetSelf(peer.ID{1, 2}),
			tx.SetRing(cidr4, []byte("ring 4")),
			tx.SetRing(cidr6, []byte("ring 6")),
			tx.SetBootstrapState(cidr6, []byte("state 6")),
			tx.PutLease(lease("b", "10.32.0.10")),
			tx.PutLease(lease("a", "10.32.0.9")),
			tx.PutLease(lease("a/\x00\"ü", "fd00::1")),
		)
	}))
	all := store.State{
		Self: peer.ID{1, 2},
		Ranges: map[netip.Prefix]store.Range{
			cidr4: {Ring: []byte("ring 4")},
			cidr6: {Ring: []byte("ring 6"), BootstrapState: []byte("state 6")},
		},
		Leases: []store.Lease{lease("a", "10.32.0.9"), lease("b", "10.32.0.10"), lease("a/\x00\"ü", "fd00::1")},
	}
	want(t, s, all)
	must(t, s.Close())
	s = open()
	want(t, s, all)
	must(t, s.Close())
}

func testReplace(t *testing.T, open func() store.Store) {
	s := open()
	for _, owner := range []string{"a", "b"} {
		must(t, s.Update(func(tx store.Tx) error {
			return errors.Join(
				tx.SetSelf(peer.ID{1}),
				tx.SetRing(cidr4, []byte(owner)),
				tx.SetBootstrapState(cidr4, []byte(owner)),
				tx.PutLease(lease(owner, "10.32.0.1")),
				tx.PutLease(lease(owner, "10.32.0.2")),
				tx.DeleteLease(netip.MustParseAddr("10.32.0.2")),
				tx.DeleteLease(netip.MustParseAddr("10.32.0.3")),
			)
		}))
		want(t, s, store.State{
			Self:   peer.ID{1},
			Ranges: map[netip.Prefix]store.Range{cidr4: {Ring: []byte(owner), BootstrapState: []byte(owner)}},
			Leases: []store.Lease{lease(owner, "10.32.0.1")},
		})
	}
	must(t, s.Close())
}

func testRollback(t *testing.T, open func() store.Store) {
	s := open()
	refused := errors.New("refused")
	err := s.Update(func(tx store.Tx) error {
		must(t, errors.Join(tx.SetSelf(peer.ID{1}), tx.SetRing(cidr4, []byte("x")), tx.PutLease(lease("a", "10.32.0.1"))))
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("Update: %v", err)
	}
	want(t, s, store.State{})
	must(t, s.Close())
}

// testOwned checks that the store and its caller share no slices.
func testOwned(t *testing.T, open func() store.Store) {
	s := open()
	ring := []byte("ring")
	must(t, s.Update(func(tx store.Tx) error { return tx.SetRing(cidr4, ring) }))
	ring[0] = 'X'
	got, err := s.Load()
	must(t, err)
	copy(got.Ranges[cidr4].Ring, "Y")
	want(t, s, store.State{Ranges: map[netip.Prefix]store.Range{cidr4: {Ring: []byte("ring")}}})
	must(t, s.Close())
}

func testConcurrent(t *testing.T, open func() store.Store) {
	s := open()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := s.Update(func(tx store.Tx) error {
				return tx.PutLease(lease("a", netip.AddrFrom4([4]byte{10, 32, 0, byte(i)}).String()))
			})
			if _, loadErr := s.Load(); err != nil || loadErr != nil {
				t.Error(err, loadErr)
			}
		})
	}
	wg.Wait()
	if got, err := s.Load(); err != nil || len(got.Leases) != 8 {
		t.Errorf("%d leases, %v", len(got.Leases), err)
	}
	must(t, s.Close())
}
