package daemon

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/cni"
	"weft/ipam"
)

func TestGarbage(t *testing.T) {
	start := time.Unix(1000, 0)
	pod, living := attachPrefix+"/run/netns/p/eth0", attachPrefix+"/run/netns/q/eth0"
	container := cni.Owner("weft", "abc", "eth0")
	var leases []ipam.Lease
	for i, owner := range []string{pod, living, container, "somebody", reservedPrefix + "expose"} {
		leases = append(leases, ipam.Lease{Owner: owner, Addr: netip.AddrFrom4([4]byte{10, 32, 0, byte(i)}), Since: start})
	}
	there := map[string]bool{hostLink(living): true}
	exists := func(name string) bool { return there[name] }
	var g garbage
	const grace = time.Minute
	at := func(d time.Duration) []string { return g.collect(leases, exists, start.Add(d), grace) }
	if gone := at(time.Hour); len(gone) > 0 {
		t.Errorf("at first sight: %v", gone)
	}
	if gone := at(time.Hour + grace - 1); len(gone) > 0 {
		t.Errorf("too early: %v", gone)
	}
	name, _ := hostLinkOf(container)
	there[name] = true // its runtime has made it again
	if gone := at(time.Hour + grace); !slices.Equal(gone, []string{pod}) {
		t.Errorf("%v, want %s alone", gone, pod)
	}
	there[name] = false
	if gone := at(time.Hour + grace + 1); !slices.Equal(gone, []string{pod}) {
		t.Errorf("%v: one that was there meanwhile begins anew", gone)
	}
}
