package datapath

import (
	"testing"

	"weft/internal/peer"
	"weft/router/carrier"
)

// TestKernelCounts: counts do not fall when a device is made again, or while there is none.
func TestKernelCounts(t *testing.T) {
	a, b := peer.ID{1}, peer.ID{2}
	var k kernelCounts
	for i, step := range []struct{ now, want map[peer.ID]carrier.Counts }{
		{nil, map[peer.ID]carrier.Counts{}},
		{map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}, map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}},
		{nil, map[peer.ID]carrier.Counts{a: {RxFrames: 5, TxBytes: 7}}},
		{map[peer.ID]carrier.Counts{a: {RxFrames: 3}, b: {TxFrames: 1}},
			map[peer.ID]carrier.Counts{a: {RxFrames: 8, TxBytes: 7}, b: {TxFrames: 1}}},
		{map[peer.ID]carrier.Counts{a: {RxFrames: 4, TxBytes: 9}}, map[peer.ID]carrier.Counts{a: {RxFrames: 9, TxBytes: 16}, b: {TxFrames: 1}}},
	} {
		got := k.update(step.now)
		if len(got) != len(step.want) || got[a] != step.want[a] || got[b] != step.want[b] {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
	}
	k.keepOnly(func(id peer.ID) bool { return id == b })
	if got := k.update(nil); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}
