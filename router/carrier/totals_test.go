package carrier_test

import (
	"errors"
	"testing"

	"weft/internal/peer"
	"weft/router/carrier"
)

// TestTotals: counts do not fall when a device is made again, or while there is none.
func TestTotals(t *testing.T) {
	a, b := peer.ID{1}, peer.ID{2}
	var totals carrier.Totals
	for i, step := range []struct {
		source    int
		now, want map[peer.ID]carrier.Counts
	}{
		{0, nil, map[peer.ID]carrier.Counts{}},
		{0, map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}, map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}},
		{0, nil, map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}},
		{0, map[peer.ID]carrier.Counts{a: {RxFrames: 3}, b: {TxFrames: 1}},
			map[peer.ID]carrier.Counts{a: {RxFrames: 8, TxBytes: 7}, b: {TxFrames: 1}}},
		{0, map[peer.ID]carrier.Counts{a: {RxFrames: 4, TxBytes: 9}},
			map[peer.ID]carrier.Counts{a: {RxFrames: 9, TxBytes: 16}, b: {TxFrames: 1}}},
		{1, map[peer.ID]carrier.Counts{a: {RxFrames: 4, TxBytes: 9}},
			map[peer.ID]carrier.Counts{a: {RxFrames: 13, TxBytes: 25}, b: {TxFrames: 1}}},
	} {
		got, err := totals.Update(func() (any, map[peer.ID]carrier.Counts, error) { return step.source, step.now, nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(step.want) || got[a] != step.want[a] || got[b] != step.want[b] {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
	}
	totals.KeepOnly(func(id peer.ID) bool { return id == b })
	failed := errors.New("failed")
	got, err := totals.Update(func() (any, map[peer.ID]carrier.Counts, error) { return 1, nil, failed })
	if len(got) != 1 || !errors.Is(err, failed) {
		t.Errorf("%+v, %v", got, err)
	}
}
