package statuspage

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
)

// TestAdvice: commands of a remedy are apart from its sentences; those at its end follow it, each once.
func TestAdvice(t *testing.T) {
	for _, c := range []struct{ remedy, text, commands string }{
		{"", "", ""},
		{"Restart these pods.", "Restart these pods.", ""},
		{`Start it again, or if it will not return run "weft reclaim 86".`, "Start it again, or if it will not return run:", "weft reclaim 86"},
		{`Run "weft status" there: it shows the reason.`, "Run <weft status> there: it shows the reason.", "weft status"},
		{`Find out why: "kubectl get csr", "kubectl describe csr NAME".`, "Find out why:", "kubectl get csr|kubectl describe csr NAME"},
		{`Run "weft hide", then "weft hide" again.`, "Run <weft hide>, then <weft hide> again.", "weft hide"},
		{`Annotate it with weft.network/guard: "off".`, `Annotate it with weft.network/guard: "off".`, ""},
	} {
		spans, commands := advice(c.remedy)
		var text strings.Builder
		for _, s := range spans {
			if s.Code {
				s.Text = "<" + s.Text + ">"
			}
			text.WriteString(s.Text)
		}
		if text.String() != c.text || strings.Join(commands, "|") != c.commands {
			t.Errorf("%q: %q with commands %q, want %q with %q", c.remedy, text.String(), commands, c.text, c.commands)
		}
	}
}

// TestPeers: nodes that need attention are first, this node is last. It and a dead one have no link, which is not "not reached".
// Nodes that left are apart.
func TestPeers(t *testing.T) {
	s := troubled(6)
	s.Peers[3].Drops = map[string]uint64{"no_route": 1204, "busy": 0, "relay": 3}
	v := newPeersView(s, nil)
	var links []string
	for _, row := range v.Rows {
		links = append(links, strings.TrimSpace(row.Name+" "+row.LinkText+" "+row.Carrier))
	}
	if got, want := strings.Join(links, "; "), "n4 –; n3 not reached; n2 relay via n1; n1 direct by the kernel, vxlan; n0 –"; got != want {
		t.Errorf("links %s, want %s", got, want)
	}
	if len(v.Left) != 1 || v.Left[0].Name != "n5" || v.Counts != "4 alive, 1 dead, 1 left" {
		t.Errorf("left: %+v, counts %s", v.Left, v.Counts)
	}
	if row := v.Rows[1]; row.DropCount != "1\u202f207" || row.DropNames != "no route, relay" {
		t.Errorf("drops %s: %s", row.DropCount, row.DropNames)
	}
	if v.Rows[4].Flows != nil || v.Rows[3].Flows == nil || v.Rows[2].Flows == nil {
		t.Error("all but this node have traffic")
	}
}

// TestPods: each lease has what it is for and its names; names without a lease have a row, those of other nodes do not.
func TestPods(t *testing.T) {
	s := network(2)
	now := time.Unix(1_800_000_000, 0)
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 32, 0, n}) }
	for n, owner := range map[byte]string{
		1: "weft:expose", 2: "netns:/run/netns/web/eth0", 3: "cni/weft/3f2a1bd09c77e1fdd33a/eth0", 4: "netns:/proc/71/ns/net/eth0",
		5: "weft:orphan/vethwe7", 6: "vm1", 7: "weft:gateway",
	} {
		s.Leases = append(s.Leases, api.Lease{Owner: owner, IP: netip.PrefixFrom(addr(n), 12), Since: now.Add(-time.Hour)})
	}
	s.Names = []api.Name{
		{Name: "web", IP: addr(2), Node: id(0)}, {Name: "printer", IP: addr(9), Node: id(0)}, {Name: "db", IP: addr(8), Node: id(1)},
	}
	s.Status.DNSDomain = "pods.example.org"
	v := newPodsView(s, now)
	var rows []string
	for _, r := range v.Rows {
		rows = append(rows, fmt.Sprintf("%s %s %s %v", r.IP, r.Kind, r.What, r.Names))
	}
	want := "10.32.0.1 this host, the gateway of its pods  []; 10.32.0.2 namespace /run/netns/web eth0 [web]; " +
		"10.32.0.3 container 3f2a1bd09c77… eth0 []; 10.32.0.4 process 71 eth0 []; 10.32.0.5 pod without a lease vethwe7 []; " +
		"10.32.0.6 claimed vm1 []; 10.32.0.7 reserved for this host: the gateway of pods  []; 10.32.0.9 name only  [printer]"
	if got := strings.Join(rows, "; "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if v.Names != 3 || v.Domain != "pods.example.org" || v.Rows[0].Since.Distance != "1 h ago" || v.Rows[7].Since != nil {
		t.Errorf("%d names, %+v", v.Names, v.Rows)
	}
}

// TestFacts: the summary has targets with their state, the gateway, and drops by reason.
func TestFacts(t *testing.T) {
	s := api.Status{
		Targets: []api.Target{{Addr: "host2:6783"}, {Addr: "host3:6783", Error: "refused"}}, MTU: 1422,
		Exposed: []netip.Prefix{netip.MustParsePrefix("10.32.0.1/12")}, Drops: map[string]uint64{"no_route": 2, "busy": 1204, "relay": 0},
		Guard: api.GuardStatus{Bound: 2, Dropped: map[string]uint64{"source": 1}}, Encrypted: true, Network: api.NetworkIdentities,
		Identity: &api.Identity{Expires: time.Unix(1_800_000_000, 0)},
	}
	found := map[string]string{}
	for _, f := range newFacts(s, time.Unix(1_800_000_000, 0).Add(-5*24*time.Hour)) {
		var values []string
		for _, v := range f.Values {
			if v.At != nil {
				v.Text += " " + v.At.Distance
			}
			values = append(values, strings.TrimSpace(v.Text+" "+v.Tail))
		}
		found[f.Name] = strings.Join(values, "; ")
	}
	for name, want := range map[string]string{
		"Targets": "host2:6783 reached; host3:6783 not reached", "Gateway": "10.32.0.1/12", "Dropped": "busy 1\u202f204; no route 2",
		"MTU of pods": "1\u202f422 bytes", "Guard": "2 bound, 0 open; source 1", "Encryption": "on, by identities; certificate expires in 5 days",
	} {
		if found[name] != want {
			t.Errorf("%s: %q, want %q", name, found[name], want)
		}
	}
}
