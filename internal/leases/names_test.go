package leases_test

import (
	"testing"

	"weft/internal/api"
	"weft/internal/leases"
)

// TestNameOfANewPodStays: a name that is given while stale names are looked for stays, as its lease is older than it; a name without a
// lease ends.
func TestNameOfANewPodStays(t *testing.T) {
	b := newBench(t)
	if _, err := b.Join(t.Context(), api.JoinRequest{Owner: "first"}); err != nil { // divides the range
		t.Fatal(err)
	}
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "web"}
	b.names.onHeld = func() {
		b.names.onHeld = nil
		if _, err := b.Attach(t.Context(), in); err != nil {
			t.Error(err)
		}
	}
	leases.EndStaleNames(b.Manager)
	if len(b.names.addrs["web"]) != 1 {
		t.Errorf("names %v, want that of the new pod", b.names.addrs)
	}
	if err := b.ipam.Release("netns:/run/netns/p/eth0", b.names.addrs["web"][0]); err != nil {
		t.Fatal(err)
	}
	leases.EndStaleNames(b.Manager)
	if len(b.names.names) != 0 {
		t.Errorf("names %v, want none without a lease", b.names.addrs)
	}
}
