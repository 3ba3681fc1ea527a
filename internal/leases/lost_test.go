package leases_test

import (
	"testing"

	"weft/internal/leases"
	"weft/internal/leases/holder"
)

// TestLostRemedy: what an operator is asked to run changes the address of a pod that still has the lost one, and not only its lease.
func TestLostRemedy(t *testing.T) {
	for _, c := range []struct {
		holder   string
		attached bool
		want     string
	}{
		{"netns:/run/netns/p/eth0", true, `Run "weft attach --netns /run/netns/p": it gets another address.`},
		{"netns:/proc/71/ns/net/eth1", true, `Run "weft attach --pid 71 --ifname eth1": it gets another address.`},
		{"cni/weft/3f2a/eth0", true, "Start that container again."},
		{"vm1", false, `Run "weft ip allocate vm1", or "weft ip release vm1" if it needs none any more.`},
		{"vm1", true, `Run "weft attach" for its namespace with --owner vm1 again: it gets another address.`},
		{"weft:expose", false, `Run "weft hide", then "weft expose".`},
		{"weft:gateway", false, `Run "weft hide", then "weft expose".`},
	} {
		if got := leases.LostRemedy(holder.Parse(c.holder), c.attached); got != c.want {
			t.Errorf("%s: %s", c.holder, got)
		}
	}
}
