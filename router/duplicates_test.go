package router

import (
	"testing"
	"testing/synctest"

	"weft/internal/ether"
)

// TestDuplicates: a hardware address that frames show behind two nodes in turn is reported.
func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		for range 4 {
			deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'b'))
			deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'c'))
		}
		if got := nodes[0].Duplicates(); len(got) != 1 || got[0].MAC != mac(2) {
			t.Errorf("flapped: %+v", got)
		}
	})
}
