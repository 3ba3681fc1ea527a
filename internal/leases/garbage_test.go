package leases

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/leases/holder"
	"weft/ipam"
)

func TestGarbage(t *testing.T) {
	start := time.Unix(1000, 0)
	pod, living := holder.ForNamespace("/run/netns/p", "eth0"), holder.ForNamespace("/run/netns/q", "eth0")
	container := holder.ForContainer("weft", "abc", "eth0")
	var leases []ipam.Lease
	for i, h := range []holder.Holder{pod, living, container, holder.Parse("web"), holder.ForHost()} {
		leases = append(leases, ipam.Lease{Holder: h.String(), Addr: netip.AddrFrom4([4]byte{10, 32, 0, byte(i)}), Since: start})
	}
	there := map[string]bool{living.AttachLink(): true}
	exists := func(name string) bool { return there[name] }
	var g garbage
	const grace = time.Minute
	at := func(d time.Duration) []holder.Holder {
		return g.collect(leases, exists, start.Add(d), time.Time{}, grace)
	}
	if ended := at(time.Hour); len(ended) > 0 {
		t.Errorf("on the first look: %v", ended)
	}
	if ended := at(time.Hour + grace - 1); len(ended) > 0 {
		t.Errorf("too early: %v", ended)
	}
	name, _ := container.HostLink()
	there[name] = true // its runtime made it again
	if ended := at(time.Hour + grace); !slices.Equal(ended, []holder.Holder{pod}) {
		t.Errorf("%v, want %s alone", ended, pod)
	}
	there[name] = false
	if ended := at(time.Hour + grace + 1); !slices.Equal(ended, []holder.Holder{pod}) {
		t.Errorf("%v: the grace of one that came back starts again", ended)
	}
}

// TestGarbageFromBeforeTheBoot: leases of containers that existed before the host was booted end at once; others wait.
func TestGarbageFromBeforeTheBoot(t *testing.T) {
	booted := time.Unix(1000, 0)
	old, young := holder.ForContainer("weft", "old", "eth0"), holder.ForContainer("weft", "young", "eth0")
	leases := []ipam.Lease{
		{Holder: old.String(), Since: booted.Add(-time.Second)}, {Holder: young.String(), Since: booted.Add(time.Second)},
		{Holder: holder.ForNamespace("/run/netns/p", "eth0").String(), Since: booted.Add(-time.Hour)}, // a script may attach it again
		{Holder: "web", Since: booted.Add(-time.Hour)},
	}
	var g garbage
	ended := g.collect(leases, func(string) bool { return false }, booted.Add(2*time.Second), booted, time.Minute)
	if !slices.Equal(ended, []holder.Holder{old}) {
		t.Errorf("%v, want %s alone", ended, old)
	}
}
