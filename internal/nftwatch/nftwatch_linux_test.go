package nftwatch_test

import (
	"errors"
	"testing"
	"time"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nftsum"
	"weft/internal/nftwatch"
)

// watch is a Watcher of the table t in a namespace.
type watch struct {
	*nettest.Host
	w *nftwatch.Watcher
}

func newWatch(t *testing.T) watch {
	t.Helper()
	h := watch{Host: labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")}
	if err := h.Do(func() (err error) { h.w, err = nftwatch.Open("t", nftsum.Inet, nftsum.Bridge); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.w.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// count returns the number of transactions that changed the table, up to now, and the present generation.
func (h watch) count(t *testing.T) (n int, generation uint32) {
	t.Helper()
	err := h.Do(func() (err error) { generation, err = nftwatch.Generation(); return err })
	if err == nil {
		n, err = h.w.Count(t.Context(), generation)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n, generation
}

// TestCount: each transaction that changes a table of the name in one of the families counts once, and no other does.
func TestCount(t *testing.T) {
	h := newWatch(t)
	for _, c := range []struct {
		script string
		want   int
	}{
		{"add table inet t", 1},
		{"add table bridge t", 1},
		{"add table ip t", 0},
		{"add table inet other; add chain inet other c; add rule inet other c accept", 0},
		{"add set inet t s { type ipv4_addr; }; add chain inet t c; add rule inet t c accept; add counter inet t n", 1},
		{"add element inet t s { 192.0.2.1 }", 1},
		{"add element inet t s { 192.0.2.1 }", 0}, // it is one already
		{"delete element inet t s { 192.0.2.1 }", 1},
		{"add set inet other s { type ipv4_addr; elements = { 192.0.2.1 }; }", 0},
		{"flush chain inet t c", 1},
		{"delete table bridge t", 1},
		{"flush ruleset", 1},
	} {
		labtest.Run(t, h.Space, "nft", c.script)
		n, generation := h.count(t)
		if n != c.want {
			t.Errorf("%s: %d, want %d", c.script, n, c.want)
		}
		h.w.Forget(generation)
		if n, _ := h.count(t); n != 0 {
			t.Errorf("%s: %d after they were forgotten", c.script, n)
		}
	}
	labtest.Run(t, h.Space, "nft", "add table inet t")
	labtest.Run(t, h.Space, "nft", "add chain inet t c")
	if n, _ := h.count(t); n != 2 {
		t.Errorf("two transactions count %d", n)
	}
	h.w.Reset()
	if n, _ := h.count(t); n != 0 {
		t.Errorf("%d after Reset", n)
	}
}

// TestWakes: a change of the table wakes, one of another table does not.
func TestWakes(t *testing.T) {
	h := newWatch(t)
	labtest.Run(t, h.Space, "nft", "add table inet other")
	h.count(t) // until its report has come
	select {
	case <-h.w.Changed():
		t.Error("another table woke")
	default:
	}
	labtest.Run(t, h.Space, "nft", "add table inet t")
	select {
	case <-h.w.Changed():
	case <-time.After(10 * time.Second):
		t.Error("no wake-up")
	}
}

// TestLost: a Watcher that many changes overtake reports that it has lost some, until it is reset.
func TestLost(t *testing.T) {
	h := newWatch(t)
	labtest.Run(t, h.Space, "nft", "add table inet t; add set inet t s { type ipv4_addr; }")
	// Each line of an interactive nft is a transaction.
	const lines = "for i in $(seq 530); do echo 'add element inet t s { 192.0.2.1 }'; echo 'delete element inet t s { 192.0.2.1 }'; done"
	labtest.Run(t, h.Space, "sh", "-c", lines+" | nft -i")
	var generation uint32
	if err := h.Do(func() (err error) { generation, err = nftwatch.Generation(); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := h.w.Count(t.Context(), generation); !errors.Is(err, nftwatch.ErrLost) {
		t.Errorf("after 1060 changes: %v", err)
	}
	h.w.Reset()
	if n, err := h.w.Count(t.Context(), generation); n != 0 || err != nil {
		t.Errorf("after Reset: %d, %v", n, err)
	}
	if _, err := h.w.Count(t.Context(), generation+1); !errors.Is(err, nftwatch.ErrLost) {
		t.Errorf("a generation that does not come: %v", err)
	}
}
