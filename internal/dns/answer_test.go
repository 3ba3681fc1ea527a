package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// podAddr is a client in a range.
var podAddr = addr("10.32.0.9")

// hostWith is a Host with one address.
type hostWith netip.Addr

func (h hostWith) IsLocal(a netip.Addr) bool { return a == netip.Addr(h) }

// newServer returns a server for 10.32.0.0/12 and fd00:32::/64 with some names, and its registry.
func newServer(t testing.TB) (*Server, *node) {
	t.Helper()
	n := newNode(t, 1, nil)
	must(t, n.Add("web", "pod1", addr("10.32.0.1"), addr("10.32.0.2"), addr("fd00:32::1")))
	must(t, n.Add("four.shop", "pod2", addr("10.32.0.1")))
	must(t, n.Add("six", "pod3", addr("fd00:32::6")))
	s, err := New(Config{
		Names: n.Registry, Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("fd00:32::/64")},
		Host: hostWith(addr("192.0.2.1")), ResolvConf: t.TempDir() + "/resolv.conf",
	})
	must(t, err)
	s.SetAddrs([]netip.Addr{addr("10.32.0.3")})
	return s, n
}

// asks returns the reply of the server to a message, without a network; nil when it would be forwarded.
func asks(t testing.TB, s *Server, m *dns.Msg, from netip.Addr) *dns.Msg {
	t.Helper()
	raw, err := m.Pack()
	must(t, err)
	q, ok := parse(raw, from)
	if !ok {
		t.Fatal("not a query")
	}
	reply := s.respond(q)
	if reply == nil {
		return nil
	}
	got := new(dns.Msg)
	must(t, got.Unpack(q.pack(reply)))
	return got
}

// records returns a short text of records, in order.
func records(rrs []dns.RR) string {
	var list []string
	for _, rr := range rrs {
		if _, isOpt := rr.(*dns.OPT); isOpt {
			continue
		}
		h := rr.Header()
		data := strings.TrimPrefix(rr.String(), h.String())
		if h.Rrtype == dns.TypeSOA {
			data = "…"
		}
		list = append(list, fmt.Sprintf("%s %d %s %s", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], data))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

func TestAnswers(t *testing.T) {
	s, _ := newServer(t)
	const ok, nx = dns.RcodeSuccess, dns.RcodeNameError
	soaOf := func(zone string) string { return zone + " 1 SOA …" }
	for _, c := range []struct {
		name   string
		qtype  uint16
		rcode  int
		answer string
		ns     string
	}{
		{"web.weft.local.", dns.TypeA, ok, "web.weft.local. 1 A 10.32.0.1; web.weft.local. 1 A 10.32.0.2", ""},
		{"WeB.weft.LOCAL.", dns.TypeAAAA, ok, "WeB.weft.LOCAL. 1 AAAA fd00:32::1", ""},
		{"four.shop.weft.local.", dns.TypeA, ok, "four.shop.weft.local. 1 A 10.32.0.1", ""},
		{"four.shop.weft.local.", dns.TypeANY, ok, "four.shop.weft.local. 1 A 10.32.0.1", ""},
		{"four.shop.weft.local.", dns.TypeAAAA, ok, "", soaOf("weft.local.")},
		{"six.weft.local.", dns.TypeA, ok, "", soaOf("weft.local.")},
		{"web.weft.local.", dns.TypeTXT, ok, "", soaOf("weft.local.")},
		{"shop.weft.local.", dns.TypeA, ok, "", soaOf("weft.local.")}, // there are names below it
		{"other.weft.local.", dns.TypeA, nx, "", soaOf("weft.local.")},
		{"a.web.weft.local.", dns.TypeA, nx, "", soaOf("weft.local.")},
		{"_x.weft.local.", dns.TypeSRV, nx, "", soaOf("weft.local.")},
		{`w\.eb.weft.local.`, dns.TypeA, nx, "", soaOf("weft.local.")},

		{"weft.local.", dns.TypeSOA, ok, soaOf("weft.local."), ""},
		{"Weft.local.", dns.TypeNS, ok, "weft.local. 1 NS ns.dns.weft.local.", ""},
		{"weft.local.", dns.TypeANY, ok, "weft.local. 1 NS ns.dns.weft.local.; " + soaOf("weft.local."), ""},
		{"weft.local.", dns.TypeA, ok, "", soaOf("weft.local.")},
		{"ns.dns.weft.local.", dns.TypeA, ok, "ns.dns.weft.local. 1 A 10.32.0.3", ""},
		{"dns.weft.local.", dns.TypeA, ok, "", soaOf("weft.local.")},
		{"s.weft.local.", dns.TypeA, nx, "", soaOf("weft.local.")},

		{"1.0.32.10.in-addr.arpa.", dns.TypePTR, ok,
			"1.0.32.10.in-addr.arpa. 1 PTR four.shop.weft.local.; 1.0.32.10.in-addr.arpa. 1 PTR web.weft.local.", ""},
		{"2.0.32.10.IN-ADDR.arpa.", dns.TypePTR, ok, "2.0.32.10.IN-ADDR.arpa. 1 PTR web.weft.local.", ""},
		{"2.0.32.10.in-addr.arpa.", dns.TypeA, ok, "", soaOf("32.10.in-addr.arpa.")},
		{"7.0.47.10.in-addr.arpa.", dns.TypePTR, nx, "", soaOf("47.10.in-addr.arpa.")},
		{"x.2.0.32.10.in-addr.arpa.", dns.TypePTR, nx, "", soaOf("32.10.in-addr.arpa.")},
		{"02.0.32.10.in-addr.arpa.", dns.TypePTR, nx, "", soaOf("32.10.in-addr.arpa.")},
		{"0.32.10.in-addr.arpa.", dns.TypePTR, ok, "", soaOf("32.10.in-addr.arpa.")},
		{"32.10.in-addr.arpa.", dns.TypeSOA, ok, soaOf("32.10.in-addr.arpa."), ""},
		{"32.10.in-addr.arpa.", dns.TypeNS, ok, "32.10.in-addr.arpa. 1 NS ns.dns.weft.local.", ""},
		{"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, ok,
			"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa. 1 PTR six.weft.local.", ""},
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, nx, "",
			soaOf("0.0.0.0.0.0.0.0.2.3.0.0.0.0.d.f.ip6.arpa.")},
	} {
		got := asks(t, s, new(dns.Msg).SetQuestion(c.name, c.qtype), podAddr)
		what := c.name + " " + dns.TypeToString[c.qtype]
		if got == nil {
			t.Errorf("%s: forwarded", what)
			continue
		}
		if got.Rcode != c.rcode || !got.Authoritative || !got.RecursionAvailable || got.Truncated {
			t.Errorf("%s: %v", what, got)
		}
		if a, ns := records(got.Answer), records(got.Ns); a != c.answer || ns != c.ns {
			t.Errorf("%s: %q, %q; want %q, %q", what, a, ns, c.answer, c.ns)
		}
	}
}

// TestAnotherDomain: names are answered below the domain of the node alone, and PTR records and the SOA have it too. The longest name
// fits a query.
func TestAnotherDomain(t *testing.T) {
	const domain = "pods.example.org"
	r, err := NewRegistry(RegistryConfig{Self: peer1, Domain: domain})
	must(t, err)
	s, err := New(Config{Names: r, Ranges: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}, ResolvConf: t.TempDir() + "/resolv.conf"})
	must(t, err)
	must(t, r.Add("web.Pods.Example.Org.", "", addr("10.32.0.1")))
	must(t, r.Add("db.weft.local", "", addr("10.32.0.2"))) // four labels of this domain
	for _, c := range []struct {
		name   string
		qtype  uint16
		answer string
	}{
		{"Web.pods.example.org.", dns.TypeA, "Web.pods.example.org. 1 A 10.32.0.1"},
		{"db.weft.local.pods.example.org.", dns.TypeA, "db.weft.local.pods.example.org. 1 A 10.32.0.2"},
		{"pods.example.org.", dns.TypeNS, "pods.example.org. 1 NS ns.dns.pods.example.org."},
		{"1.0.32.10.in-addr.arpa.", dns.TypePTR, "1.0.32.10.in-addr.arpa. 1 PTR web.pods.example.org."},
	} {
		got := asks(t, s, new(dns.Msg).SetQuestion(c.name, c.qtype), podAddr)
		if got == nil || records(got.Answer) != c.answer {
			t.Errorf("%s: %v, want %s", c.name, got, c.answer)
		}
	}
	for _, name := range []string{"web.weft.local.", "example.org.", "xpods.example.org."} {
		if got := asks(t, s, new(dns.Msg).SetQuestion(name, dns.TypeA), podAddr); got != nil {
			t.Errorf("%s: answered: %v", name, got)
		}
	}
	got := asks(t, s, new(dns.Msg).SetQuestion("none.pods.example.org.", dns.TypeA), podAddr)
	if got == nil || len(got.Ns) != 1 || !strings.Contains(got.Ns[0].String(), "hostmaster.pods.example.org.") {
		t.Errorf("an unknown name: %v", got)
	}

	longest := strings.TrimSuffix(strings.Repeat(strings.Repeat("x", 49)+".", 4), ".") + "x"
	r, err = NewRegistry(RegistryConfig{Self: peer1, Domain: strings.Repeat("d", MaxDomain)})
	must(t, err)
	must(t, r.Add(longest, "", addr("10.32.0.1")))
	s, err = New(Config{Names: r, ResolvConf: t.TempDir() + "/resolv.conf"})
	must(t, err)
	got = asks(t, s, new(dns.Msg).SetQuestion(longest+"."+r.cfg.Domain+".", dns.TypeA), netip.MustParseAddr("127.0.0.1"))
	if got == nil || len(got.Answer) != 1 {
		t.Errorf("the longest name: %v", got)
	}
}

func TestForwardedNames(t *testing.T) {
	s, _ := newServer(t)
	for _, name := range []string{
		"example.com.", "local.", "weft.local.example.", "xweft.local.", `x\.weft.local.`, ".", "in-addr.arpa.", "10.in-addr.arpa.",
		"1.0.48.10.in-addr.arpa.", "x.10.in-addr.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.", "0.0.d.f.ip6.arpa.",
	} {
		m := new(dns.Msg).SetQuestion(name, dns.TypePTR)
		if got := asks(t, s, m, podAddr); got != nil {
			t.Errorf("%s: answered: %v", name, got)
		}
		m.RecursionDesired = false
		if got := asks(t, s, m, podAddr); got == nil || got.Rcode != dns.RcodeRefused {
			t.Errorf("%s without recursion: %v", name, got)
		}
	}
}

func TestRefuses(t *testing.T) {
	s, _ := newServer(t)
	for name, c := range map[string]struct {
		change func(m *dns.Msg)
		rcode  int
	}{
		"nothing wrong":   {func(*dns.Msg) {}, dns.RcodeSuccess},
		"update":          {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"notify":          {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"no question":     {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		"two questions":   {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"chaos":           {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"any class":       {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, dns.RcodeRefused},
		"transfer":        {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused},
		"part transfer":   {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }, dns.RcodeRefused},
		"signature":       {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG }, dns.RcodeRefused},
		"EDNS":            {func(m *dns.Msg) { m.SetEdns0(4096, true) }, dns.RcodeSuccess},
		"EDNS twice":      {func(m *dns.Msg) { m.SetEdns0(4096, true).SetEdns0(4096, true) }, dns.RcodeFormatError},
		"another EDNS":    {func(m *dns.Msg) { m.SetEdns0(4096, true).IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"no recursion":    {func(m *dns.Msg) { m.RecursionDesired = false }, dns.RcodeSuccess},
		"checks disabled": {func(m *dns.Msg) { m.CheckingDisabled = true }, dns.RcodeSuccess},
	} {
		m := new(dns.Msg).SetQuestion("web.weft.local.", dns.TypeA)
		c.change(m)
		got := asks(t, s, m, podAddr)
		if got.Rcode != c.rcode || got.Id != m.Id || !got.Response || got.Opcode != m.Opcode {
			t.Errorf("%s: %v", name, got)
		}
		if query, reply := m.IsEdns0(), got.IsEdns0(); (query == nil) != (reply == nil) && c.rcode != dns.RcodeFormatError {
			t.Errorf("%s: EDNS: query %v, reply %v", name, query, reply)
		} else if reply != nil && (reply.UDPSize() != maxUDP || !reply.Do() || reply.Version() != 0) {
			t.Errorf("%s: EDNS: %v", name, reply)
		}
	}
}

func TestServesOnlySome(t *testing.T) {
	s, _ := newServer(t)
	for from, served := range map[string]bool{
		"10.47.255.255": true, "127.0.0.1": true, "::1": true, "192.0.2.1": true, "fd00:32::77": true, "::ffff:10.32.0.1": true,
		"10.48.0.1": false, "192.0.2.2": false, "fd00:33::1": false, "fe80::1%eth0": false,
	} {
		for _, name := range []string{"web.weft.local.", "example.com."} {
			got := asks(t, s, new(dns.Msg).SetQuestion(name, dns.TypeA), addr(from))
			if refused := got != nil && got.Rcode == dns.RcodeRefused; refused == served {
				t.Errorf("query of %s for %s: %v", from, name, got)
			}
		}
	}
	if n := s.counts.refused.Load(); n != 8 {
		t.Errorf("%d refused, want 8", n)
	}
}

func TestMalformed(t *testing.T) {
	s, _ := newServer(t)
	good, err := new(dns.Msg).SetQuestion("web.weft.local.", dns.TypeA).SetEdns0(1232, false).Pack()
	must(t, err)
	for n := range good {
		q, ok := parse(good[:n], podAddr)
		if !ok {
			if n >= headerLen {
				t.Errorf("no reply to %d bytes", n)
			}
			continue
		}
		var got dns.Msg
		must(t, got.Unpack(q.pack(s.respond(q))))
		if got.Rcode != dns.RcodeFormatError || got.Id != q.Id {
			t.Errorf("%d bytes: %v", n, &got)
		}
	}
	reply, err := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("web.weft.local.", dns.TypeA)).Pack()
	must(t, err)
	if _, ok := parse(reply, podAddr); ok {
		t.Error("a reply is treated as a query")
	}
}

func TestTruncates(t *testing.T) {
	s, n := newServer(t)
	var addrs []netip.Addr
	for _, e := range entriesOf(peer1, 300) {
		addrs = append(addrs, e.Addr)
	}
	must(t, n.Add("many", "pod4", addrs...))
	for name, c := range map[string]struct {
		size  uint16 // EDNS; 0: none
		tcp   bool
		limit int
	}{
		"plain": {0, false, 512}, "small": {600, false, 600}, "tiny": {1, false, 512}, "large": {4096, false, maxUDP}, "tcp": {0, true, 0xffff},
	} {
		m := new(dns.Msg).SetQuestion("many.weft.local.", dns.TypeA)
		if c.size > 0 {
			m.SetEdns0(c.size, false)
		}
		raw, err := m.Pack()
		must(t, err)
		q, _ := parse(raw, podAddr)
		q.tcp = c.tcp
		b := q.pack(s.respond(q))
		var got dns.Msg
		must(t, got.Unpack(b))
		if len(b) > c.limit || got.Truncated == c.tcp || (got.IsEdns0() != nil) != (c.size > 0) {
			t.Errorf("%s: %d bytes, truncated %v, %d records", name, len(b), got.Truncated, len(got.Answer))
		}
		if c.tcp && len(got.Answer) != maxRecords {
			t.Errorf("%d records over TCP, want %d", len(got.Answer), maxRecords)
		}
	}
}

func TestReplyThatCannotBePacked(t *testing.T) {
	raw, err := question("example.com.", dns.TypeA).Pack()
	must(t, err)
	q, _ := parse(raw, podAddr)
	reply := q.reply(dns.RcodeSuccess)
	reply.Answer = []dns.RR{&dns.A{Hdr: header("no root", dns.TypeA), A: podAddr.AsSlice()}}
	var got dns.Msg
	must(t, got.Unpack(q.pack(reply)))
	if got.Rcode != dns.RcodeServerFailure || got.Id != q.Id || !got.Response {
		t.Errorf("reply %v", &got)
	}
}

func FuzzRespond(f *testing.F) {
	for _, name := range []string{"web.weft.local.", "1.0.32.10.in-addr.arpa.", "f.ip6.arpa.", "example.com."} {
		raw, err := new(dns.Msg).SetQuestion(name, dns.TypeANY).SetEdns0(4096, true).Pack()
		must(f, err)
		f.Add(raw, true)
	}
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, raw []byte, tcp bool) {
		q, ok := parse(raw, podAddr)
		if !ok {
			return
		}
		q.tcp = tcp
		reply := s.respond(q)
		if reply == nil {
			if _, err := q.forwarded().Pack(); err != nil {
				t.Fatalf("a query that cannot be forwarded: %v", err)
			}
			reply = q.reply(dns.RcodeSuccess)
		}
		b := q.pack(reply)
		var got dns.Msg
		if err := got.Unpack(b); err != nil || len(b) > q.limit() || got.Id != q.Id || !got.Response {
			t.Fatalf("%v: %v", err, &got)
		}
	})
}
