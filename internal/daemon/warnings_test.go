package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/peer"
	"weft/ipam"
	"weft/mesh"
	"weft/router/vxlan"
)

func wantWarning(t *testing.T, what string, got []string, says ...string) {
	t.Helper()
	if (len(says) == 0) != (len(got) == 0) {
		t.Errorf("%s: %q, want one that says %q", what, got, says)
		return
	}
	for _, s := range says {
		if !strings.Contains(strings.Join(got, "\n"), s) {
			t.Errorf("%s: %q, want one that says %q", what, got, s)
		}
	}
}

func TestClockWarnings(t *testing.T) {
	node := func(name string, skew time.Duration) mesh.Member {
		return mesh.Member{Name: name, ID: peer.ID{name[0]}, State: mesh.StateAlive, RTT: time.Millisecond, Skew: skew}
	}
	wantWarning(t, "all well", clockWarnings([]mesh.Member{node("a", time.Second), node("b", -skewMany)}))
	wantWarning(t, "one wrong", clockWarnings([]mesh.Member{node("a", 0), node("b", -37*time.Second)}), "clock of node b", "37s behind this node's", "NTP")
	wantWarning(t, "this one wrong", clockWarnings([]mesh.Member{node("a", 62*time.Second), node("b", time.Minute)}),
		"clock of this node is 1m2s behind those of all others")
	dead, unmeasured := node("c", time.Hour), node("d", time.Hour)
	dead.State, unmeasured.RTT = mesh.StateDead, 0
	wantWarning(t, "not known", clockWarnings([]mesh.Member{dead, unmeasured}))
}

func TestSpaceWarnings(t *testing.T) {
	status := func(owners ...ipam.Owner) ipam.Status {
		return ipam.Status{Ranges: []ipam.RangeStatus{{CIDR: netip.MustParsePrefix("10.32.0.0/24"), Owners: owners}}}
	}
	half := ipam.Owner{Addresses: 128, Free: 100, Reachable: true}
	away := ipam.Owner{Addresses: 128, Free: 128}
	little := ipam.Owner{Addresses: 128, Free: 12, Reachable: true}
	wantWarning(t, "not divided", spaceWarnings(status()))
	wantWarning(t, "half", spaceWarnings(status(half, little)))
	wantWarning(t, "nearly full", spaceWarnings(status(little, little, away)), "10.32.0.0/24 is nearly full: 24 of 384", "weft ip list")
}

func TestBridgeWarnings(t *testing.T) {
	d := &Daemon{cfg: Config{Bridge: "weave", Tap: "weft0"}}
	p := &plane{d: d}
	now := time.Now()
	wantWarning(t, "nothing happened", p.bridgeWarnings(now))
	p.mended.Store(&mended{count: 3, last: now.Add(-time.Minute)})
	wantWarning(t, "mended", p.bridgeWarnings(now), "vanished, 3 times", "NetworkManager")
	wantWarning(t, "long ago", p.bridgeWarnings(now.Add(mendedFor)))
	p.mended.Store(&mended{err: errStarting()})
	wantWarning(t, "not mended", p.bridgeWarnings(now), "cannot be mended")
}

func TestDroppingChain(t *testing.T) {
	text := []byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"chain": {"family": "bridge", "table": "b", "name": "f", "hook": "forward", "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}},
		{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}]}`)
	for hook, want := range map[string]string{"forward": "chain FORWARD of table ip filter", "input": ""} {
		if got := droppingChain(text, hook); got != want {
			t.Errorf("%s: %q, want %q", hook, got, want)
		}
	}
	if got := droppingChain([]byte("no JSON"), "input"); got != "" {
		t.Errorf("of what is no JSON: %q", got)
	}
}

// TestKernelPathUnproven: only peers that the kernel may carry and has not carried for a minute are reported.
func TestKernelPathUnproven(t *testing.T) {
	now := time.Now()
	a, b := peer.ID{1}, peer.ID{2}
	peers := []vxlan.PeerStatus{{ID: a, State: vxlan.Probing, Since: now}, {ID: b, State: vxlan.Kernel, Since: now}}
	if ids := unprovenAmong(peers, now.Add(kernelPatience-1)); len(ids) != 0 {
		t.Errorf("at once: %v", ids)
	}
	if ids := unprovenAmong(peers, now.Add(kernelPatience)); len(ids) != 1 || ids[0] != a {
		t.Errorf("after a minute: %v, want %s", ids, a)
	}
	if ids := unprovenAmong(nil, now.Add(time.Hour)); len(ids) != 0 {
		t.Errorf("no peers any more: %v", ids)
	}
}
