package dialback

import (
	"testing"
	"time"

	"weft/internal/peer"
)

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestRequests: a request ends by its own token, once, and not by another.
func TestRequests(t *testing.T) {
	var table Table
	r := table.Add(7)
	table.Arrive(8)
	table.Confirm(8)
	if isClosed(r.Arrived) || isClosed(r.Confirmed) {
		t.Error("ended by another token")
	}
	for range 2 {
		table.Arrive(7)
		table.Confirm(7)
	}
	if !isClosed(r.Arrived) || !isClosed(r.Confirmed) {
		t.Error("not ended by its token")
	}
	table.Remove(7)
	table.Arrive(7)
}

// TestAllow: twenty dial-backs a second are done, two for one node, and one node that asks all the time does not keep the
// others from theirs.
func TestAllow(t *testing.T) {
	var table Table
	now := time.Unix(1_700_000_000, 0)
	count := map[peer.ID]int{}
	for i := range 10_000 { // ten seconds
		if table.Allow(peer.ID{1}, now) {
			count[peer.ID{1}]++
		}
		if other := (peer.ID{2, byte(i % 40)}); table.Allow(other, now) {
			count[other]++
		}
		now = now.Add(time.Millisecond)
	}
	total := 0
	for id, n := range count {
		if total += n; n > 20 {
			t.Errorf("%d dial-backs for %s in 10 s", n, id)
		}
	}
	if total > 200 || total < 150 || count[peer.ID{1}] == 0 {
		t.Errorf("%d dial-backs in 10 s, %d for the first node", total, count[peer.ID{1}])
	}
	if now = now.Add(-time.Hour); !table.Allow(peer.ID{9}, now) {
		t.Error("none after the clock was set back")
	}
}
