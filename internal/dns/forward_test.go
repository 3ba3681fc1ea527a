package dns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// upstream is a resolver with scripted replies.
type upstream struct {
	addr netip.Addr

	mu    sync.Mutex
	asked []string // guarded by mu: protocol and name of each question
}

// startUpstream starts a resolver on a fresh address. fill completes the reply, of which ID and question are set; when it
// returns false no reply is sent.
func startUpstream(t *testing.T, fill func(network string, q, reply *dns.Msg) bool) *upstream {
	t.Helper()
	u := &upstream{addr: freshAddr()}
	at := netip.AddrPortFrom(u.addr, testPort)
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	must(t, err)
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	must(t, err)
	for network, server := range map[string]*dns.Server{"udp": {PacketConn: udp}, "tcp": {Listener: tcp}} {
		server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			u.mu.Lock()
			u.asked = append(u.asked, network+" "+q.Question[0].Name)
			u.mu.Unlock()
			reply := new(dns.Msg).SetReply(q)
			reply.RecursionAvailable = true
			if fill(network, q, reply) {
				_ = w.WriteMsg(reply)
			}
		})
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			must(t, server.Shutdown())
			must(t, <-done)
		})
	}
	return u
}

// questions returns the protocol and name of each question so far.
func (u *upstream) questions() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.asked, ", ")
}

// answering answers every question with one address.
func answering(a string) func(string, *dns.Msg, *dns.Msg) bool {
	return func(_ string, q, reply *dns.Msg) bool {
		reply.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(a),
		}}
		return true
	}
}

// failing answers every question with an error.
func failing(rcode int) func(string, *dns.Msg, *dns.Msg) bool {
	return func(_ string, _, reply *dns.Msg) bool {
		reply.Rcode = rcode
		return true
	}
}

// silent sends no reply.
func silent(string, *dns.Msg, *dns.Msg) bool { return false }

// resolve asks for an address of example.com and returns the addresses or the code in the reply.
func resolve(t *testing.T, network string, a netip.Addr) string {
	t.Helper()
	r, err := exchange(network, a, question("Example.com.", dns.TypeA))
	must(t, err)
	if r.Authoritative || r.Question[0].Name != "Example.com." {
		t.Errorf("not the reply of a resolver: %v", r)
	}
	if r.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[r.Rcode]
	}
	return strings.ReplaceAll(records(r.Answer), "Example.com. 60 A ", "")
}

func TestForwards(t *testing.T) {
	u := startUpstream(t, answering("192.0.2.7"))
	s, at := start(t, 1, u.addr)
	for _, network := range []string{"udp", "tcp"} {
		if got := resolve(t, network, at[0]); got != "192.0.2.7" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if got := u.questions(); got != "udp Example.com., tcp Example.com." {
		t.Errorf("the resolver was asked: %s", got)
	}
	if n := s.counts.forwarded.Load(); n != 2 {
		t.Errorf("%d forwarded", n)
	}
}

func TestForwardsFlagsAndRecords(t *testing.T) {
	u := startUpstream(t, func(_ string, q, reply *dns.Msg) bool {
		opt := q.IsEdns0()
		if opt == nil || !opt.Do() || len(opt.Option) > 0 || !q.CheckingDisabled || !q.RecursionDesired {
			t.Errorf("the resolver was asked: %v", q)
		}
		reply.SetEdns0(4096, true)
		reply.AuthenticatedData = true
		reply.Rcode = dns.RcodeNameError
		reply.Ns = []dns.RR{(&Server{zone: testDomain + "."}).soa("com.")}
		reply.Extra = append(reply.Extra, &dns.A{Hdr: header("a.com.", dns.TypeA), A: net.IPv4(192, 0, 2, 8)})
		return true
	})
	_, at := start(t, 1, u.addr)
	m := question("example.com.", dns.TypeA).SetEdns0(1000, true)
	m.CheckingDisabled = true
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
	r, err := exchange("udp", at[0], m)
	must(t, err)
	if r.Rcode != dns.RcodeNameError || !r.AuthenticatedData || r.Id != m.Id || records(r.Ns) != "com. 1 SOA …" ||
		records(r.Extra) != "a.com. 1 A 192.0.2.8" {
		t.Errorf("reply %v", r)
	}
	if opt := r.IsEdns0(); opt == nil || opt.UDPSize() != maxUDP || len(r.Extra) != 2 {
		t.Errorf("EDNS: %v", r.Extra)
	}
}

func TestResolversInOrder(t *testing.T) {
	mute := startUpstream(t, silent)
	failed := startUpstream(t, failing(dns.RcodeServerFailure))
	mismatched := startUpstream(t, func(_ string, _, reply *dns.Msg) bool {
		reply.Question[0].Name = "other.example."
		return true
	})
	absent := &upstream{addr: freshAddr()} // nothing listens
	good, second := startUpstream(t, answering("192.0.2.7")), startUpstream(t, answering("192.0.2.8"))
	for name, c := range map[string]struct {
		order []*upstream
		want  string
		calls int // how many of them are asked
	}{
		"first":       {[]*upstream{good, second}, "192.0.2.7", 1},
		"mute":        {[]*upstream{mute, good, second}, "192.0.2.7", 2},
		"failed":      {[]*upstream{failed, second, good}, "192.0.2.8", 2},
		"mismatched":  {[]*upstream{mismatched, good}, "192.0.2.7", 2},
		"absent":      {[]*upstream{absent, good}, "192.0.2.7", 2},
		"only failed": {[]*upstream{failed, mute}, "SERVFAIL", 2},
		"only mute":   {[]*upstream{mute}, "SERVFAIL", 1},
		"none at all": {nil, "SERVFAIL", 0},
		"no fourth":   {[]*upstream{mute, failed, absent, good}, "SERVFAIL", 3},
	} {
		t.Run(name, func(t *testing.T) {
			var addrs []netip.Addr
			for _, u := range c.order {
				addrs = append(addrs, u.addr)
				u.mu.Lock()
				u.asked = nil
				u.mu.Unlock()
			}
			s, _ := newServer(t)
			s.forwarder.port, s.forwarder.timeout = testPort, 500*time.Millisecond
			setResolvers(t, s, addrs...)
			s.cfg.Port = testPort
			a := freshAddr()
			e, err := s.listen(t.Context(), a)
			must(t, err)
			defer e.close()
			if got := resolve(t, "udp", a); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for i, u := range c.order {
				if was := u.questions() != ""; was != (i < c.calls) && u != absent {
					t.Errorf("resolver %d asked: %v", i, was)
				}
			}
		})
	}
}

func TestRefusedByTheOnlyResolver(t *testing.T) {
	u := startUpstream(t, func(_ string, _, reply *dns.Msg) bool {
		reply.Question, reply.Rcode = nil, dns.RcodeRefused
		return true
	})
	_, at := start(t, 1, u.addr)
	if got := resolve(t, "udp", at[0]); got != "REFUSED" {
		t.Errorf("got %s", got)
	}
}

func TestTruncatedByResolver(t *testing.T) {
	u := startUpstream(t, func(network string, q, reply *dns.Msg) bool {
		if network == "udp" {
			reply.Truncated = true
			return true
		}
		return answering("192.0.2.7")(network, q, reply)
	})
	_, at := start(t, 1, u.addr)
	if got := resolve(t, "udp", at[0]); got != "192.0.2.7" {
		t.Errorf("got %s", got)
	}
	if got := u.questions(); got != "udp Example.com., tcp Example.com." {
		t.Errorf("the resolver was asked: %s", got)
	}
}

func TestLongReplyOfResolver(t *testing.T) {
	u := startUpstream(t, func(network string, q, reply *dns.Msg) bool {
		if reply.Truncated = network == "udp"; reply.Truncated {
			return true
		}
		for range 100 {
			txt := &dns.TXT{Hdr: header(q.Question[0].Name, dns.TypeTXT), Txt: []string{strings.Repeat("x", 100)}}
			reply.Answer = append(reply.Answer, txt)
		}
		return true
	})
	_, at := start(t, 1, u.addr)
	for network, truncated := range map[string]bool{"udp": true, "tcp": false} {
		r, err := exchange(network, at[0], question("example.com.", dns.TypeTXT))
		must(t, err)
		if r.Truncated != truncated || !truncated && len(r.Answer) != 100 {
			t.Errorf("%s: truncated %v, %d records", network, r.Truncated, len(r.Answer))
		}
	}
}

func TestExtendedRcode(t *testing.T) {
	u := startUpstream(t, func(_ string, _, reply *dns.Msg) bool {
		reply.SetEdns0(maxUDP, false).Rcode = dns.RcodeBadCookie
		return true
	})
	_, at := start(t, 1, u.addr)
	if got := resolve(t, "udp", at[0]); got != "SERVFAIL" {
		t.Errorf("without EDNS: %s", got)
	}
	r, err := exchange("udp", at[0], question("example.com.", dns.TypeA).SetEdns0(maxUDP, false))
	must(t, err)
	if r.Rcode != dns.RcodeBadCookie {
		t.Errorf("with EDNS: %v", r)
	}
}

func TestDoesNotAskItself(t *testing.T) {
	u := startUpstream(t, answering("192.0.2.7"))
	s, at := start(t, 2)
	setResolvers(t, s, at[0], at[1])
	if got := resolve(t, "udp", at[0]); got != "SERVFAIL" {
		t.Errorf("with itself as resolver: %s", got)
	}
	setResolvers(t, s, at[0], at[1], u.addr)
	if got := resolve(t, "udp", at[1]); got != "192.0.2.7" {
		t.Errorf("with itself as first resolvers: %s", got)
	}
	if n := s.counts.forwarded.Load() + s.counts.failed.Load(); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
}

func TestResolvConfChanges(t *testing.T) {
	s, _ := newServer(t)
	conf := &s.forwarder.conf
	if got := conf.servers(); got != nil {
		t.Errorf("before the file exists: %v", got)
	}
	setResolvers(t, s, addr("192.0.2.7"), addr("fd00::7"))
	if got := conf.servers(); len(got) != 2 || got[0] != addr("192.0.2.7") {
		t.Errorf("resolvers %v", got)
	}
	setResolvers(t, s, addr("192.0.2.8"), addr("fd00::7"))
	must(t, os.Chtimes(conf.path, time.Time{}, epoch)) // another time, the same size
	if got := conf.servers(); len(got) != 2 || got[0] != addr("192.0.2.8") {
		t.Errorf("changed: %v", got)
	}
	must(t, os.Remove(conf.path))
	if got := conf.servers(); len(got) != 2 {
		t.Errorf("while the file is missing: %v", got)
	}
}

func TestTooManyForwards(t *testing.T) {
	u := startUpstream(t, answering("192.0.2.7"))
	s, at := start(t, 1, u.addr)
	fill(t, s.forwards)
	for _, network := range []string{"udp", "tcp"} {
		if got := resolve(t, network, at[0]); got != "SERVFAIL" {
			t.Errorf("%s: %s", network, got)
		}
	}
	if n := s.counts.failed.Load(); n != 2 {
		t.Errorf("%d failed", n)
	}
	s.forwards.release(netip.AddrFrom4([4]byte{10, 40, 0, 0}))
	if got := resolve(t, "udp", at[0]); got != "192.0.2.7" {
		t.Errorf("with one token: %s", got)
	}
	eventually(t, "the token is returned", func() bool { return s.forwards.inUse() == maxForwards-1 })
}

func TestEndsWhileResolversAreAsked(t *testing.T) {
	u := startUpstream(t, silent)
	s, _ := newServer(t)
	s.cfg.Port, s.forwarder.port, s.forwarder.timeout = testPort, testPort, time.Hour
	setResolvers(t, s, u.addr)
	a := freshAddr()
	s.SetAddrs([]netip.Addr{a})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	eventually(t, "the server listens", func() bool { return listens(a) })
	for _, network := range []string{"udp", "tcp"} {
		conn, err := dns.Dial(network, netip.AddrPortFrom(a, testPort).String())
		must(t, err)
		defer conn.Close()
		must(t, conn.WriteMsg(question("example.com.", dns.TypeA)))
	}
	eventually(t, "the resolver is asked twice", func() bool { return strings.Count(u.questions(), "example.com.") == 2 })
	cancel()
	must(t, <-done)
}
