package duplicates

import (
	"net/netip"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// mac returns the nth hardware address of the tests.
func mac(n int) ether.Addr { return ether.Addr{0x0a, 0, 0, 0, 0, byte(n)} }

// addr is an address of a pod.
var addr = netip.MustParseAddr("10.32.0.5")

// TestDuplicates: an address that moves once is no duplicate, one that flaps is, until ten minutes after its last flap.
func TestDuplicates(t *testing.T) {
	var d Table
	now := time.Unix(1_700_000_000, 0)
	note := func(n int) {
		now = now.Add(time.Second)
		d.NoteMove(mac(2), peer.ID{byte(n)}, now)
		d.NoteClaim(addr, mac(n), now)
	}
	note(1)
	note(2)
	if got := d.List(now); len(got) != 0 {
		t.Errorf("moved once: %+v", got)
	}
	for range minFlaps/2 + 1 {
		note(1)
		note(2)
	}
	got := d.List(now)
	if len(got) != 2 || got[0].Addr.IsValid() == got[1].Addr.IsValid() || got[0].MAC != mac(2) || got[1].MAC != mac(2) {
		t.Errorf("flapped: %+v", got)
	}
	now = now.Add(flapReported)
	if got := d.List(now); len(got) != 0 {
		t.Errorf("long after: %+v", got)
	}
	for i := range 4 * minFlaps {
		now = now.Add(2 * flapWithin)
		note(1 + i%2)
	}
	if got := d.List(now); len(got) != 0 {
		t.Errorf("moves from time to time: %+v", got)
	}
}

// TestRestarts: an address that is assigned to one pod after another, each with a hardware address of its own, is no
// duplicate. One that flaps between three is.
func TestRestarts(t *testing.T) {
	var d Table
	now := time.Unix(1_700_000_000, 0)
	claim := func(n int) {
		now = now.Add(time.Second)
		d.NoteClaim(addr, mac(n), now)
	}
	for i := range 4 * minFlaps {
		claim(i + 1)
	}
	if got := d.List(now); len(got) != 0 {
		t.Errorf("restarted repeatedly: %+v", got)
	}
	for i := range minFlaps + 3 {
		claim(100 + i%3)
	}
	if got := d.List(now); len(got) != 1 || got[0].Addr != addr {
		t.Errorf("three have it: %+v", got)
	}
	for i := range 4 * minFlaps { // as in migrations
		now = now.Add(time.Second)
		d.NoteMove(mac(200), peer.ID{byte(i)}, now)
	}
	if got := d.List(now); len(got) != 1 {
		t.Errorf("moved from node to node to node: %+v", got)
	}
}

// TestBound: addresses that come and go do not fill the memory.
func TestBound(t *testing.T) {
	var d Table
	now := time.Unix(1_700_000_000, 0)
	for i := range 3 * maxClaims {
		d.NoteClaim(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), mac(1), now)
		d.NoteMove(ether.Addr{2, byte(i >> 16), byte(i >> 8), byte(i)}, peer.ID{1}, now)
		if len(d.claims) > maxClaims || len(d.moves) > maxClaims {
			t.Fatalf("%d claims, %d moves", len(d.claims), len(d.moves))
		}
	}
}
