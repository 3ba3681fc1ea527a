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
	container := cni.HolderOf("weft", "abc", "eth0")
	var leases []ipam.Lease
	for i, owner := range []string{pod, living, container, "somebody", reservedPrefix + "expose"} {
		leases = append(leases, ipam.Lease{Holder: owner, Addr: netip.AddrFrom4([4]byte{10, 32, 0, byte(i)}), Since: start})
	}
	there := map[string]bool{hostLink(living): true}
	exists := func(name string) bool { return there[name] }
	var g garbage
	const grace = time.Minute
	at := func(d time.Duration) []string { return g.collect(leases, exists, start.Add(d), time.Time{}, grace) }
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

// TestGarbageOfBeforeTheBoot ends leases of containers at once that were there before the host was booted; others wait.
func TestGarbageOfBeforeTheBoot(t *testing.T) {
	booted := time.Unix(1000, 0)
	old, young := cni.HolderOf("weft", "old", "eth0"), cni.HolderOf("weft", "young", "eth0")
	leases := []ipam.Lease{
		{Holder: old, Since: booted.Add(-time.Second)}, {Holder: young, Since: booted.Add(time.Second)},
		{Holder: attachPrefix + "/run/netns/p/eth0", Since: booted.Add(-time.Hour)}, // whose script may attach it again
		{Holder: "somebody", Since: booted.Add(-time.Hour)},
	}
	var g garbage
	gone := g.collect(leases, func(string) bool { return false }, booted.Add(2*time.Second), booted, time.Minute)
	if !slices.Equal(gone, []string{old}) {
		t.Errorf("%v, want %s alone", gone, old)
	}
}
