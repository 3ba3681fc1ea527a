package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// waitCondition waits until a node has a condition of the code with all the texts in it, or none if there are no texts.
func waitCondition(t *testing.T, n *cluster.Node, what string, code health.Code, texts ...string) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		found := conditions(t, n, code)
		if (len(found) > 0) != (len(texts) > 0) {
			return fmt.Errorf("%s: conditions %+v", what, found)
		}
		for _, text := range texts {
			if !strings.Contains(found[0].Text+" "+found[0].Remedy, text) {
				return fmt.Errorf("%s: %+v, want %q", what, found[0], text)
			}
		}
		return nil
	})
}

// readyz returns the status of /readyz and its text.
func readyz(t *testing.T, n *cluster.Node) (status, text string) {
	t.Helper()
	out := labtest.Run(t, n.Space, "curl", "--silent", "--write-out", "%{http_code}", "http://127.0.0.1:6782/readyz")
	at := max(len(out)-3, 0)
	return out[at:], out[:at]
}

// runLines runs commands in the node's namespace.
func runLines(t *testing.T, n *cluster.Node, lines ...string) {
	t.Helper()
	for _, line := range lines {
		labtest.Run(t, n.Space, "sh", "-c", line)
	}
}

// TestFiltersThatDropPods: whatever tool drops frames between pods, the node has a condition that names the rule and the remedy, is
// not ready, and doctor warns; all of it ends with the rule. The remedy works.
func TestFiltersThatDropPods(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "iptables-legacy")
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n}, "--init-peers", "1")
	from, to := attach(t, n, "p"), attach(t, n, "q")
	from.reaches(t, to.addr)
	for _, tt := range []struct {
		what, rules, undo string
		says, remedy      string
	}{
		{
			"policy of iptables-legacy", "iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F FORWARD",
			"chain FORWARD of table filter of iptables-legacy drops by default", "iptables-legacy -I FORWARD -i weave -j ACCEPT",
		},
		{
			"final rule of iptables-legacy",
			"iptables-legacy -A FORWARD -m state --state ESTABLISHED -j ACCEPT; iptables-legacy -A FORWARD -j REJECT",
			"iptables-legacy -F FORWARD", "-A FORWARD -j REJECT", "iptables-legacy -I FORWARD -i weave -j ACCEPT",
		},
		{
			"final rule of iptables-nft",
			"iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -j REJECT",
			"iptables-nft -F FORWARD", "chain FORWARD of table ip filter", "iptables-nft -I FORWARD -i weave -j ACCEPT",
		},
		{
			"firewalld",
			`printf 'table inet firewalld {\nchain zones {\niifname eth0 accept\n}\nchain filter_FORWARD {\n` +
				`type filter hook forward priority 10;\nct state established,related accept\njump zones\n` +
				`reject with icmpx type admin-prohibited\n}\n}\n' | nft -f -`,
			"nft delete table inet firewalld", "chain filter_FORWARD of table inet firewalld",
			"firewall-cmd --permanent --zone=trusted --add-interface=weave",
		},
		{
			"bridge family",
			"nft add table bridge strict; nft add chain bridge strict f '{ type filter hook forward priority 0; policy drop; }'",
			"nft delete table bridge strict", "chain f of table bridge strict drops by default", "Accept frames of weave",
		},
	} {
		runLines(t, n, tt.rules)
		waitCondition(t, n, tt.what, health.PodTrafficFiltered, "Pods of this host do not reach other pods by IPv4", tt.says, tt.remedy)
		if status, text := readyz(t, n); status == fmt.Sprint(http.StatusOK) || !strings.Contains(text, "drop frames between pods") {
			t.Errorf("%s: /readyz: %s %s", tt.what, status, text)
		}
		found, _ := doctor(t, n)
		if c := found["bridge-nf"]; c.Result != api.CheckWarn || !strings.Contains(c.Detail, tt.says) || !strings.Contains(c.Remedy, tt.remedy) {
			t.Errorf("%s: doctor: %+v", tt.what, c)
		}
		if remedy := conditions(t, n, health.PodTrafficFiltered)[0].Remedy; strings.HasPrefix(remedy, `Run "iptables`) {
			runLines(t, n, strings.Split(remedy, `"`)[1])
			from.reaches(t, to.addr)
		}
		runLines(t, n, tt.undo)
		waitCondition(t, n, "without "+tt.what, health.PodTrafficFiltered)
		from.reaches(t, to.addr)
		do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	}
	if found, _ := doctor(t, n); found["bridge-nf"].Result != api.CheckOK || found["firewall"].Result != api.CheckOK {
		t.Errorf("at the end: %+v, %+v", found["bridge-nf"], found["firewall"])
	}
}

// TestFiltersOfOtherTraffic: rules that drop packets of other nodes, or of pods to other networks, are conditions with a remedy.
func TestFiltersOfOtherTraffic(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "iptables-legacy")
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n}, "--init-peers", "1")
	runLines(t, n, "iptables-legacy -A INPUT -p tcp --dport 6783 -j ACCEPT", "iptables-legacy -A INPUT -i lo -j ACCEPT",
		"iptables-legacy -A INPUT -j REJECT")
	waitCondition(t, n, "INPUT", health.NodePortFiltered, "UDP port 678", "-A INPUT -j REJECT",
		"iptables-legacy -I INPUT -p udp -s NODES --dport 678")
	runLines(t, n, "iptables-legacy -I INPUT -p udp --dport 6783:6785 -j ACCEPT; ip6tables-legacy -P INPUT DROP")
	waitCondition(t, n, "with the ports open", health.NodePortFiltered)
	runLines(t, n, "iptables-legacy -A FORWARD -i weave -o weave -j ACCEPT; iptables-legacy -A FORWARD -i weave -j DROP")
	waitCondition(t, n, "FORWARD", health.OutsideTrafficFiltered, "IPv4 of pods to addresses outside the overlay",
		"-A FORWARD -i weave -j DROP")
	if found := conditions(t, n, health.PodTrafficFiltered); len(found) != 0 {
		t.Errorf("pods reach each other: %+v", found)
	}
	runLines(t, n, "iptables-legacy -F FORWARD")
	waitCondition(t, n, "without the rule", health.OutsideTrafficFiltered)
	runLines(t, n, "iptables-legacy -F INPUT; ip6tables-legacy -P INPUT ACCEPT")
	do(t, n, "expose")
	p := attach(t, n, "p")
	reach := func() {
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), n.Space, p.addr) })
	}
	reach()
	for _, tt := range []struct{ rules, undo, says, remedy string }{
		{"iptables-nft -A OUTPUT -o weave -j DROP", "iptables-nft -F OUTPUT", "OUTPUT", "iptables-nft -I OUTPUT -o weave -j ACCEPT"},
		{"iptables-nft -t raw -A PREROUTING -i weave -j DROP", "iptables-nft -t raw -F", "PREROUTING", "PREROUTING -i weave -j ACCEPT"},
		{"nft add table bridge strict; nft add chain bridge strict c '{ type filter hook input priority 0; policy drop; }'",
			"nft delete table bridge strict", "chain c of table bridge strict", "Accept frames of weave"},
	} {
		runLines(t, n, tt.rules)
		waitCondition(t, n, tt.rules, health.HostTrafficFiltered, tt.says, tt.remedy)
		if found, _ := doctor(t, n); found["firewall"].Result != api.CheckWarn {
			t.Errorf("%s: doctor: %+v", tt.rules, found["firewall"])
		}
		if remedy := conditions(t, n, health.HostTrafficFiltered)[0].Remedy; strings.HasPrefix(remedy, `Run "iptables`) {
			runLines(t, n, strings.Split(remedy, `"`)[1])
			reach()
		}
		runLines(t, n, tt.undo)
		waitCondition(t, n, "without "+tt.rules, health.HostTrafficFiltered)
		reach()
	}
}

// TestDoctorOnKubernetes: where network policies or kube-proxy need it, doctor warns if bridged frames do not pass the filters.
func TestDoctorOnKubernetes(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	runLines(t, n, "sysctl -qw net.bridge.bridge-nf-call-iptables=0")
	if found, _ := doctor(t, n); found["bridge-nf"].Result != api.CheckOK {
		t.Errorf("on a bare host: %+v", found["bridge-nf"])
	}
	runLines(t, n, "iptables-nft -N KUBE-FORWARD")
	found, _ := doctor(t, n)
	if c := found["bridge-nf"]; c.Result != api.CheckWarn || !strings.Contains(c.Remedy, "net.bridge.bridge-nf-call-iptables=1") {
		t.Errorf("beside kube-proxy: %+v", c)
	}
	runLines(t, n, "ip link add weave type bridge nf_call_iptables 1")
	if found, _ := doctor(t, n); found["bridge-nf"].Result != api.CheckOK {
		t.Errorf("with the setting of the bridge: %+v", found["bridge-nf"])
	}
}
