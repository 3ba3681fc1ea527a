package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// gateway returns the default gateway of a pod: the address of the bridge, where the node answers DNS queries.
func (p *pod) gateway(t *testing.T) netip.Addr {
	t.Helper()
	fields := strings.Fields(labtest.Run(t, p.Space, "ip", "route", "show", "default"))
	if len(fields) < 3 {
		t.Fatalf("no default route: %q", fields)
	}
	return netip.MustParseAddr(fields[2])
}

// dig sends a query from a pod to its node and returns the sorted lines of the short answer.
func (p *pod) dig(t *testing.T, args ...string) ([]string, error) {
	t.Helper()
	out, err := p.Run(testContext(t), append([]string{"dig", "@" + p.gateway(t).String(), "+short", "+time=2", "+tries=1"}, args...)...)
	lines := strings.Fields(out)
	slices.Sort(lines)
	return lines, err
}

// answers waits until the answer to a query is want.
func (p *pod) answers(t *testing.T, question string, want ...string) {
	t.Helper()
	slices.Sort(want)
	labtest.Until(t, patience, func() error {
		got, err := p.dig(t, strings.Fields(question)...)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s: %q, want %q", question, got, want)
		}
		return err
	})
}

// TestNames: every node resolves the name of an attached pod to its address, and the address to the name, as long as the
// pod and its node exist. A name may have several addresses.
func TestNames(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "dig")
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	asker := attach(t, nodes[2], "asker")
	one := attach(t, nodes[0], "one", "--hostname", "web.shop")
	two := attach(t, nodes[1], "two", "--hostname", "Web.Shop.weft.local")
	asker.answers(t, "web.shop.weft.local", one.addr.String(), two.addr.String())
	asker.answers(t, "+tcp WEB.shop.weft.local", one.addr.String(), two.addr.String())
	asker.answers(t, "-x "+one.addr.String(), "web.shop.weft.local.")
	asker.answers(t, "web.shop.weft.local AAAA")
	for question, status := range map[string]string{
		"web.shop.weft.local AAAA": "NOERROR", "none.weft.local": "NXDOMAIN", "shop.weft.local": "NOERROR", "-x 10.33.1.1": "NXDOMAIN",
	} {
		out := labtest.Run(t, asker.Space, append([]string{"dig", "@" + asker.gateway(t).String()}, strings.Fields(question)...)...)
		if !strings.Contains(out, "status: "+status) || !strings.Contains(out, " aa ") {
			t.Errorf("%s: want an authoritative %s:\n%s", question, status, out)
		}
	}
	out := labtest.Run(t, asker.Space, "dig", "@"+asker.gateway(t).String(), "web.shop.weft.local")
	if !strings.Contains(out, "\t1\tIN\tA\t") {
		t.Errorf("the TTL is not one second:\n%s", out)
	}

	do(t, nodes[2], "dns", "add", "db", asker.addr.String())
	asker.answers(t, "db.weft.local", asker.addr.String())
	if out := do(t, nodes[0], "dns", "lookup", one.addr.String()); out != "web.shop" {
		t.Errorf("lookup of an address printed %q", out)
	}
	if list := query[[]api.Name](t, nodes[2], "dns", "list"); len(list) != 3 {
		t.Errorf("list: %+v", list)
	}
	resolved := "resolvectl dns weave " + asker.gateway(t).String() + " && resolvectl domain weave '~weft.local'"
	if out := do(t, nodes[2], "dns", "resolved"); out != resolved {
		t.Errorf("the command for systemd-resolved is %q, want %q", out, resolved)
	}

	// An address outside the ranges is named if that is meant, and its reverse lookup is none of this server's.
	do(t, nodes[1], "dns", "add", "--external", "billing", "192.0.2.7", "2001:db8::7")
	asker.answers(t, "billing.weft.local", "192.0.2.7")
	asker.answers(t, "billing.weft.local AAAA", "2001:db8::7")
	if out, err := asker.Run(testContext(t), "dig", "@"+asker.gateway(t).String(), "+norecurse", "-x", "192.0.2.7"); err != nil ||
		!strings.Contains(out, "status: REFUSED") {
		t.Errorf("the reverse lookup of an external address: %v, %s", err, out)
	}
	do(t, nodes[1], "dns", "remove", "billing")
	asker.answers(t, "billing.weft.local")
	sources := map[string]api.NameSource{}
	for _, n := range query[[]api.Name](t, nodes[0], "dns", "list") {
		sources[n.Name+" of "+n.NodeName] = n.Source
	}
	if want := map[string]api.NameSource{
		"web.shop of a": api.NameFromAttach, "web.shop of b": api.NameFromNode, "db of c": api.NameFromNode,
	}; !maps.Equal(sources, want) {
		t.Errorf("sources %v, want %v", sources, want)
	}
	for command, says := range map[string]string{
		"dns add bad_name 10.32.0.1": "not a name", "dns add x 192.0.2.1": "in none of the overlay's ranges",
		"dns remove web.shop": "no such name on this node", "dns lookup none": "no node has added the name",
		"attach --netns /run/netns/none --hostname -x": "not a name",
	} {
		if out, err := nodes[2].Do(testContext(t), strings.Fields(command)...); err == nil || !strings.Contains(out, says) {
			t.Errorf("weft %s: %v, %s; want an error with %q", command, err, out, says)
		}
	}

	// A restarted node keeps its names. Names of a dead node and of a detached pod get no answer.
	if err := nodes[2].Stop(); err != nil {
		t.Fatal(err)
	}
	up(t, nodes[2], others(nodes, nodes[2])...)
	waitReady(t, nodes)
	asker.answers(t, "db.weft.local", asker.addr.String())
	nodes[1].Process().Kill()
	waitState(t, nodes[2], "b", api.PeerDead)
	asker.answers(t, "web.shop.weft.local", one.addr.String())
	do(t, nodes[0], "detach", "--netns", one.Path())
	asker.answers(t, "web.shop.weft.local")
	do(t, nodes[2], "dns", "remove", "db")
	asker.answers(t, "db.weft.local")
}

// TestNamesOfAnOwner: a program names the addresses of a lease that it holds, and the name ends with the lease. The names of others are
// out of its reach.
func TestNamesOfAnOwner(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "dig")
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	asker := attach(t, nodes[1], "asker", "--hostname", "asker")
	const owner = "docker/net/one"
	addr := netip.MustParsePrefix(do(t, nodes[0], "ip", "allocate", owner)).Addr()
	client := api.NewClient(nodes[0].Socket())
	request := api.NameRequest{Name: "web", IPs: []netip.Addr{addr}, Owner: owner}
	if err := client.AddName(testContext(t), request); err != nil {
		t.Fatal(err)
	}
	asker.answers(t, "web.weft.local", addr.String())
	for _, n := range query[[]api.Name](t, nodes[0], "dns", "list") {
		if n.Name == "web" && (n.Source != api.NameFromDocker || n.Owner != owner) {
			t.Errorf("%+v", n)
		}
	}
	wrong := request
	wrong.IPs = []netip.Addr{asker.addr}
	if err := client.AddName(testContext(t), wrong); err == nil || !strings.Contains(err.Error(), "not leased to") {
		t.Errorf("naming the address of another owner: %v", err)
	}
	wrong.IPs, wrong.Owner = nil, "docker/net/two"
	if err := client.RemoveName(testContext(t), wrong); err == nil {
		t.Error("removed the name of another owner")
	}
	do(t, nodes[0], "ip", "release", owner)
	asker.answers(t, "web.weft.local")
}

// TestForwardedNames: the node forwards queries of pods for other names to the resolvers of the host.
func TestForwardedNames(t *testing.T) {
	t.Parallel()
	labtest.Needs(t, "dig")
	n := newNodes(t, "a")[0]
	var upstream net.PacketConn
	if err := n.Space.Do(func() (err error) {
		upstream, err = net.ListenPacket("udp", "127.0.0.1:53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: upstream, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 7}
		m.Answer = append(m.Answer, &dns.TXT{Hdr: header, Txt: []string{"upstream"}})
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	conf := filepath.Join(n.Dir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	labtest.Start(t, n.Host, nettest.ProcessConfig{Name: "weft", Argv: []string{
		"unshare", "--mount", "--propagation", "slave", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf,
		filepath.Join(bin, "weft"), "up", "--name", "a", "--state-dir", n.StateDir(), "--socket", n.Socket(),
	}})
	do(t, n, "wait", "--timeout", patience.String())
	p := attach(t, n, "p")
	p.answers(t, "example.org TXT", `"upstream"`)
	p.answers(t, "weft.local NS", "ns.dns.weft.local.")
}

// TestNoDNS: if another server uses port 53, the node warns and keeps running. With --no-dns it does not use the port and
// does not warn.
func TestNoDNS(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	var other net.PacketConn
	if err := n.Space.Do(func() (err error) {
		other, err = net.ListenPacket("udp", "0.0.0.0:53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	start(t, []*cluster.Node{n})
	attach(t, n, "p")
	warned := func() bool {
		return slices.ContainsFunc(query[api.Status](t, n, "status").Warnings, func(w string) bool { return strings.Contains(w, "--no-dns") })
	}
	labtest.Until(t, patience, func() error {
		if !warned() {
			return errNotYet
		}
		return nil
	})
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, []*cluster.Node{n}, "--no-dns")
	attach(t, n, "q")
	if warned() {
		t.Error("a node with --no-dns warns about the port")
	}
}
