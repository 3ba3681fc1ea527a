package storetest

import (
	"errors"
	"testing"

	"weft/ipam/store"
)

func TestMemory(t *testing.T) {
	TestStore(t, func(*testing.T) func() store.Store {
		m := NewMemory()
		return func() store.Store { return m.Reopen() }
	})
}

func TestMemoryCrashes(t *testing.T) {
	for _, written := range []bool{false, true} {
		m := NewMemory()
		m.OnUpdate(func(update int) (bool, bool) { return update == 1, written })
		put := func(addr string) error {
			return m.Update(func(tx store.Tx) error { return tx.PutLease(lease("a", addr)) })
		}
		must(t, put("10.32.0.1"))
		if err := put("10.32.0.2"); !errors.Is(err, ErrCrash) {
			t.Error(err)
		}
		if _, err := m.Load(); !errors.Is(err, ErrCrash) {
			t.Error("a crashed store answers")
		}
		state, err := m.Reopen().Load()
		must(t, err)
		if got, want := len(state.Leases), map[bool]int{false: 1, true: 2}[written]; got != want {
			t.Errorf("written %v: %d leases, want %d", written, got, want)
		}
		if m.Updates() != 2 {
			t.Errorf("%d updates", m.Updates())
		}
	}
}
