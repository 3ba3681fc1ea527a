package datapath

import (
	"net/netip"
	"testing"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/podlink"
)

func TestNextMTU(t *testing.T) {
	for _, c := range []struct{ has, before, want, next int }{
		{1438, 1438, 1438, 1438}, // nothing changes
		{1438, 1438, 1400, 1400}, // follows down
		{1400, 1400, 1438, 1438}, // follows up
		{1300, 1438, 1400, 1300}, // keeps a smaller one of its own
		{1300, 1400, 1438, 1300},
		{9000, 1438, 1438, 1438}, // the overlay carries no more
		{1420, 1438, 1400, 1400},
		{1438, 0, 1400, 1400}, // not known what it followed
		{1300, 0, 1400, 1300},
	} {
		if got := nextMTU(c.has, c.before, c.want); got != c.next {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestMTUFindings(t *testing.T) {
	d := &Datapath{}
	d.underlay.Store(&Underlay{MTU: 1400})
	healthtest.Want(t, "not known", d.mtuFindings(), "")
	d.mtus.large.Store(&[]largePod{})
	healthtest.Want(t, "none", d.mtuFindings(), "")
	d.mtus.large.Store(&[]largePod{
		{podlink.Port{Name: "vweftp", Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.2")}}, 1438, podlink.ErrHidden},
		{podlink.Port{Name: "vweftq"}, 1420, podlink.ErrHidden},
	})
	healthtest.Want(t, "two", d.mtuFindings(), health.PodMTULarge, "1400 bytes", "10.32.0.2 on vweftp (1438)", "vweftq (1420)")
}

// TestLinkMTU: links are never below the largest pod.
func TestLinkMTU(t *testing.T) {
	d := &Datapath{}
	d.underlay.Store(&Underlay{MTU: 1400})
	if got := d.linkMTU(); got != 1400 {
		t.Errorf("%d without pods", got)
	}
	d.mtus.links.Store(1438)
	if got := d.linkMTU(); got != 1438 {
		t.Errorf("%d with a pod of 1438", got)
	}
}
