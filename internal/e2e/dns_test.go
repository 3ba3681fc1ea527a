package e2e

import (
	"fmt"
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

// gateway returns the address of the bridge that a pod has for its way out, where names are answered.
func (p *pod) gateway(t *testing.T) netip.Addr {
	t.Helper()
	fields := strings.Fields(labtest.Run(t, p.Space, "ip", "route", "show", "default"))
	if len(fields) < 3 {
		t.Fatalf("no default route: %q", fields)
	}
	return netip.MustParseAddr(fields[2])
}

// dig asks the node of a pod from inside it, and returns the lines of the short answer, in order.
func (p *pod) dig(t *testing.T, args ...string) ([]string, error) {
	t.Helper()
	out, err := p.Run(testContext(t), append([]string{"dig", "@" + p.gateway(t).String(), "+short", "+time=2", "+tries=1"}, args...)...)
	lines := strings.Fields(out)
	slices.Sort(lines)
	return lines, err
}

// answers waits until a question has the given answer.
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

// TestNames: what is attached under a name is found by it on every node, by turns and both ways round, for as long as it and its node are there.
func TestNames(t *testing.T) {
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
			t.Errorf("%s: want %s of an authority:\n%s", question, status, out)
		}
	}
	if out := labtest.Run(t, asker.Space, "dig", "@"+asker.gateway(t).String(), "web.shop.weft.local"); !strings.Contains(out, "\t1\tIN\tA\t") {
		t.Errorf("not for a second:\n%s", out)
	}

	do(t, nodes[2], "dns", "add", "db", asker.addr.String())
	asker.answers(t, "db.weft.local", asker.addr.String())
	if out := do(t, nodes[0], "dns", "lookup", one.addr.String()); out != "web.shop" {
		t.Errorf("lookup of an address says %q", out)
	}
	if list := query[[]api.Name](t, nodes[2], "dns", "list"); len(list) != 3 {
		t.Errorf("list: %+v", list)
	}
	for command, says := range map[string]string{
		"dns add bad_name 10.32.0.1": "want labels of letters", "dns add x 192.0.2.1": "in none of the overlay's ranges", "dns remove web.shop": "no such name on this node",
		"dns lookup nobody": "no such name", "attach --netns /run/netns/none --hostname -x": "want labels of letters",
	} {
		if out, err := nodes[2].Do(testContext(t), strings.Fields(command)...); err == nil || !strings.Contains(out, says) {
			t.Errorf("weft %s: %v, %s; want it to say %q", command, err, out, says)
		}
	}

	// A restarted node has its names, one that is dead is not answered for, and what is detached has none.
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

// TestForwardedNames: what is not weft's the resolvers of the host are asked, for pods; nobody else is served.
func TestForwardedNames(t *testing.T) {
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
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 7}, Txt: []string{"upstream"}})
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

// TestNoDNS: where another server has the port, the node says so and goes on; told not to, it leaves the port alone.
func TestNoDNS(t *testing.T) {
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
		t.Error("it warns of what it was told to leave alone")
	}
}
