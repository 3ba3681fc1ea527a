package nftwatch

import (
	"errors"
	"testing"
)

// TestGap: a generation without a report means that reports were lost; numbers wrap around without 0.
func TestGap(t *testing.T) {
	for _, c := range []struct {
		seen    uint32
		reports []uint32
		lost    bool
	}{
		{7, []uint32{8, 9}, false},
		{7, []uint32{6, 7, 8}, false}, // from before Open
		{7, []uint32{9}, true},
		{7, []uint32{8, 10}, true},
		{1<<32 - 2, []uint32{1<<32 - 1, 1, 2}, false},
		{1<<32 - 1, []uint32{2}, true},
	} {
		w := &Watcher{seen: c.seen, news: make(chan struct{})}
		for _, g := range c.reports {
			w.update(func() { w.add(g, true) })
		}
		_, err := w.Count(t.Context(), c.reports[len(c.reports)-1])
		if errors.Is(err, ErrLost) != c.lost {
			t.Errorf("after %d, %d: %v, want lost: %v", c.seen, c.reports, err, c.lost)
		}
	}
}
