package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/peer"
)

var peer1 = peer.ID{1}

// testPort is the port of all servers in tests, which each have addresses of their own.
const testPort = 15353

var lastAddr atomic.Uint32

// freshAddr returns a loopback address that no other test uses, also of another run of the tests at the same time.
func freshAddr() netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, 64 | byte(pid>>8)&63, byte(pid), byte(lastAddr.Add(1))})
}

// eventually waits until holds returns true.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-patience.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// start runs a server on fresh addresses, with resolvers in its resolv.conf, and waits until it listens. It ends with the test.
func start(t *testing.T, n int, resolvers ...netip.Addr) (s *Server, at []netip.Addr) {
	t.Helper()
	s, _ = newServer(t)
	s.cfg.Port, s.forwarder.port = testPort, testPort
	s.retry = 5 * time.Millisecond
	setResolvers(t, s, resolvers...)
	for range n {
		at = append(at, freshAddr())
	}
	s.SetAddrs(at)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	for _, a := range at {
		eventually(t, "the server listens", func() bool { return listens(a) })
	}
	return s, at
}

// listens reports whether queries are answered at an address.
func listens(a netip.Addr) bool {
	_, err := exchange("tcp", a, question("weft.local.", dns.TypeSOA))
	return err == nil
}

func setResolvers(t *testing.T, s *Server, resolvers ...netip.Addr) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, "# for a test\nsearch example.com\nnameserver not.an.address")
	for _, r := range resolvers {
		fmt.Fprintln(&b, "nameserver", r)
	}
	must(t, os.WriteFile(s.cfg.ResolvConf, []byte(b.String()), 0o600))
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

func exchange(network string, a netip.Addr, m *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: 20 * time.Second}
	r, _, err := client.Exchange(m, netip.AddrPortFrom(a, testPort).String())
	return r, err
}

func TestServer(t *testing.T) {
	s, at := start(t, 2)
	for _, a := range at {
		for _, network := range []string{"udp", "tcp"} {
			r, err := exchange(network, a, question("six.weft.local.", dns.TypeAAAA))
			must(t, err)
			if got := records(r.Answer); got != "six.weft.local. 1 AAAA fd00:32::6" {
				t.Errorf("%s: %s", network, got)
			}
		}
	}
	if n := s.counts.answered.Load(); n < 4 {
		t.Errorf("%d answered", n)
	}
	if s.Problem() != nil || len(s.Problems()) > 0 {
		t.Errorf("problems: %v", s.Problem())
	}
}

func TestManyQueriesOnAConnection(t *testing.T) {
	_, at := start(t, 1)
	conn, err := dns.Dial("tcp", netip.AddrPortFrom(at[0], testPort).String())
	must(t, err)
	defer conn.Close()
	var ids []uint16
	for range 5 {
		m := question("web.weft.local.", dns.TypeA)
		must(t, conn.WriteMsg(m))
		ids = append(ids, m.Id)
	}
	for _, id := range ids {
		r, err := conn.ReadMsg()
		must(t, err)
		if r.Id != id || len(r.Answer) != 2 {
			t.Errorf("reply %v to %d", r, id)
		}
	}
	_, err = conn.Conn.Write([]byte{0, 3, 1, 2, 3}) // not a DNS message
	must(t, err)
	if _, err := conn.ReadMsg(); err == nil {
		t.Error("a reply to bytes that are no message")
	}
}

// fill acquires all units, for clients of no test, once earlier clients have released theirs; empty releases them.
func fill(t *testing.T, s *shares) {
	t.Helper()
	eventually(t, "no unit is in use", func() bool { return s.inUse() == 0 })
	for i := range s.total {
		if !s.acquire(netip.AddrFrom4([4]byte{10, 40, 0, byte(i / (s.total / clientShare))})) {
			t.Fatal("not within the bound")
		}
	}
}

func empty(s *shares) {
	for i := range s.total {
		s.release(netip.AddrFrom4([4]byte{10, 40, 0, byte(i / (s.total / clientShare))}))
	}
}

func TestTooManyConnections(t *testing.T) {
	s, at := start(t, 1)
	fill(t, s.conns)
	if listens(at[0]) {
		t.Error("one connection more than the bound is served")
	}
	if r, err := exchange("udp", at[0], question("web.weft.local.", dns.TypeA)); err != nil || len(r.Answer) != 2 {
		t.Errorf("over UDP: %v, %v", r, err)
	}
	empty(s.conns)
	eventually(t, "it is served again", func() bool { return listens(at[0]) })
}

func TestSetAddrs(t *testing.T) {
	s, at := start(t, 2)
	next := freshAddr()
	s.SetAddrs([]netip.Addr{at[1], next, next})
	eventually(t, "the new address", func() bool { return listens(next) })
	if !listens(at[1]) || listens(at[0]) {
		t.Error("not the addresses that were set")
	}
	s.SetAddrs(nil)
	eventually(t, "no address", func() bool { return !listens(next) && !listens(at[1]) })
}

func TestAddressTaken(t *testing.T) {
	s, at := start(t, 1)
	taken := freshAddr()
	other, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(taken, testPort)))
	must(t, err)
	defer other.Close()
	notLocal := addr("192.0.2.1")
	s.SetAddrs([]netip.Addr{at[0], taken, notLocal})
	eventually(t, "problems", func() bool { return len(s.Problems()) == 2 })
	if err := s.Problem(); !errors.Is(err, syscall.EADDRINUSE) || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("Problem: %v", err)
	}
	if got := s.Problems(); !strings.Contains(got[0], taken.String()) || !strings.Contains(got[0], "ss -lnptu") ||
		!strings.Contains(got[1], notLocal.String()) || !strings.Contains(got[1], "ip addr") {
		t.Errorf("Problems: %q", got)
	}
	if !listens(at[0]) {
		t.Error("the good address is affected")
	}
	must(t, other.Close())
	eventually(t, "the address is free", func() bool { return listens(taken) })
	eventually(t, "one problem is left", func() bool { return len(s.Problems()) == 1 })
	s.SetAddrs(at)
	if err := s.Problem(); err != nil {
		t.Errorf("a problem of an address that is not wanted: %v", err)
	}
}

func TestEndpointFails(t *testing.T) {
	s, _ := newServer(t)
	s.cfg.Port = testPort
	a := freshAddr()
	s.SetAddrs([]netip.Addr{a})
	bound := make(map[netip.Addr]*endpoint)
	if !s.bind(t.Context(), bound) {
		t.Fatal(s.Problem())
	}
	must(t, bound[a].udp.Close())
	<-bound[a].done
	if s.bind(t.Context(), bound) || s.Problem() == nil || len(bound) > 0 {
		t.Errorf("after a socket has failed: problem %v, bound %v", s.Problem(), bound)
	}
	if !s.bind(t.Context(), bound) || s.Problem() != nil {
		t.Errorf("after a retry: %v", s.Problem())
	}
	bound[a].close()
}

func TestConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("accepted without names")
	}
	n := newNode(t, 1, nil)
	if _, err := New(Config{Names: n.Registry, Ranges: make([]netip.Prefix, 1)}); err == nil {
		t.Error("accepted an invalid range")
	}
	s, err := New(Config{Names: n.Registry})
	must(t, err)
	if s.cfg.Port != 53 || s.cfg.ResolvConf != "/etc/resolv.conf" || s.serves(addr("192.0.2.1")) {
		t.Errorf("defaults: %+v", s.cfg)
	}
}

func TestMetrics(t *testing.T) {
	s, _ := newServer(t)
	asks(t, s, question("web.weft.local.", dns.TypeA), podAddr)
	asks(t, s, question("unknown.weft.local.", dns.TypeA), podAddr)
	problems, err := testutil.CollectAndLint(s.Collector())
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	want := `
# HELP weft_dns_queries_total Queries, by result.
# TYPE weft_dns_queries_total counter
weft_dns_queries_total{result="answered"} 1
weft_dns_queries_total{result="failed"} 0
weft_dns_queries_total{result="forwarded"} 0
weft_dns_queries_total{result="nodata"} 0
weft_dns_queries_total{result="nxdomain"} 1
weft_dns_queries_total{result="refused"} 0
# HELP weft_dns_names Names known, including those of nodes that are not alive.
# TYPE weft_dns_names gauge
weft_dns_names 3
`
	if err := testutil.CollectAndCompare(s.Collector(), strings.NewReader(want), "weft_dns_queries_total", "weft_dns_names"); err != nil {
		t.Error(err)
	}
}
