package hoststate_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/hoststate"
)

// TestPods: a host end is restored to what it was when it was complete, and a new one is left alone for some seconds.
func TestPods(t *testing.T) {
	pods := hoststate.Pods{Prefix: "vweft"}
	start := time.Unix(1e9, 0)
	step := func(after time.Duration, want map[string]hoststate.Pod, links ...hoststate.Link) {
		t.Helper()
		o := hoststate.Observed{Links: map[string]hoststate.Link{}}
		for _, l := range links {
			o.Links[l.Name] = l
		}
		pods.Observe(o, "weave", start.Add(after))
		if diff := cmp.Diff(want, pods.Desired()); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", after, diff)
		}
	}
	none := map[string]hoststate.Pod{}
	end := hoststate.Link{Name: "vweft1", Kind: "veth", Index: 5, MTU: 1400}
	step(0, none, end, hoststate.Link{Name: "veth1", Kind: "veth", Master: "weave", Up: true}, hoststate.Link{Name: "vweft9", Kind: "dummy"})
	end.Master = "weave"
	step(1, none, end)
	end.Port, end.Up = map[hoststate.Flag]bool{hoststate.Hairpin: false}, true
	known := map[string]hoststate.Pod{"vweft1": {MTU: 1400}}
	step(2, known, end)
	broken := hoststate.Link{Name: "vweft1", Kind: "veth", Index: 5, MTU: 1300}
	step(3, known, broken)
	end.MTU = 1450
	step(4, map[string]hoststate.Pod{"vweft1": {MTU: 1450}}, end)
	step(5, none, hoststate.Link{Name: "vweft1", Kind: "veth", Index: 6, MTU: 1400}) // another one with the name
	step(6, none)
	lost := hoststate.Link{Name: "vweft2", Kind: "veth", Index: 7, MTU: 1400}
	other := hoststate.Link{Name: "vweft3", Kind: "veth", Index: 8, MTU: 1400, Master: "weave2", Up: true} // of another network
	step(7, none, lost, other)
	down := hoststate.Link{Name: "vweft2", Kind: "veth", Index: 7, Master: "weave"}
	if !pods.Observe(hoststate.Observed{Links: map[string]hoststate.Link{"vweft2": down}}, "weave", start.Add(8)) {
		t.Error("the host end is not pending")
	}
	step(8+hoststate.Grace, none, lost, other)
	pods.Adopt()
	pods.Records = map[string]hoststate.Record{"vweft2": {}}
	lost.Alias = "a record"
	step(9+hoststate.Grace, map[string]hoststate.Pod{"vweft2": {MTU: 1400}}, lost, other)
	pods.Records = nil
	lost.Alias = "of another program"
	step(10+hoststate.Grace, map[string]hoststate.Pod{"vweft2": {MTU: 1400, Alias: "a record"}}, lost, other)
}

// TestAdoptLeased: a host end without a bridge, or on another one, is ours if its pod has a lease, and belongs to another network
// otherwise.
func TestAdoptLeased(t *testing.T) {
	pods := hoststate.Pods{Prefix: "vweft"}
	pods.AdoptLeased([]string{"vweft1", "vweft3"})
	start := time.Unix(1e9, 0)
	o := hoststate.Observed{Links: map[string]hoststate.Link{
		"vweft1": {Name: "vweft1", Kind: "veth", Index: 5, MTU: 1400}, "vweft2": {Name: "vweft2", Kind: "veth", Index: 6, MTU: 1400},
		"vweft3": {Name: "vweft3", Kind: "veth", Index: 7, MTU: 1400, Master: "br9"},
	}}
	for _, after := range []time.Duration{0, hoststate.Grace} {
		pods.Observe(o, "weave", start.Add(after))
	}
	pod := hoststate.Pod{MTU: 1400, Hairpin: true}
	if diff := cmp.Diff(map[string]hoststate.Pod{"vweft1": pod, "vweft3": pod}, pods.Desired()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPace: a change that comes back soon after each repair is repaired at once a few times, then with growing pauses. It is
// contested then, and no longer when it stays away.
func TestPace(t *testing.T) {
	var pace hoststate.Pace
	now := time.Unix(1e9, 0)
	key := hoststate.Key{Kind: hoststate.SetUp, Object: "weft0"}
	var pauses []time.Duration
	for range 14 {
		wait := pace.Wait(key, now)
		pauses = append(pauses, wait)
		now = now.Add(wait)
		pace.Repaired(key, now)
	}
	want := []time.Duration{0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	contested := pace.Contested(now.Add(time.Second))
	if len(contested) != 1 || contested[0].Key != key || contested[0].Repairs != 14 || contested[0].Pause != 2*time.Second {
		t.Errorf("contested: %+v", contested)
	}
	if !pace.IsContested(key, now) || pace.IsContested(key, now.Add(time.Minute)) {
		t.Error("the change is contested while it comes back, and no longer")
	}
	pace.Failed(key)
	if list := pace.Contested(now); len(list) != 0 {
		t.Errorf("a repair that fails is contested: %+v", list)
	}
	if wait := pace.Wait(hoststate.Key{Kind: hoststate.SetUp, Object: "weave"}, now); wait != 0 {
		t.Errorf("another change waits %v", wait)
	}
	later := now.Add(5 * time.Minute)
	if list, wait := pace.Contested(later), pace.Wait(key, later); len(list) != 0 || wait != 0 {
		t.Errorf("later: %+v, wait %v", list, wait)
	}
	// Changes that are far apart are no fight.
	for range 20 {
		now = now.Add(time.Minute)
		if wait := pace.Wait(key, now); wait != 0 {
			t.Errorf("a change a minute waits %v", wait)
		}
		pace.Repaired(key, now)
	}
}
