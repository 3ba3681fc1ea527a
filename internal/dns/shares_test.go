package dns

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestShares(t *testing.T) {
	s := newShares(16)
	greedy, polite := addr("10.32.0.1"), addr("fd00:32::1")
	before := heap()
	got := 0
	for range 100_000 {
		if s.acquire(greedy) {
			got++
		}
	}
	if got != 4 || !s.acquire(polite) || s.inUse() != 5 {
		t.Errorf("a greedy client got %d of 16, %d are in use, want its quarter and one of another client", got, s.inUse())
	}
	for i := range 100_000 {
		s.acquire(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if grown := heap() - before; s.inUse() != 16 || len(s.byClient) != 13 || grown > 64<<10 {
		t.Errorf("%d in use by %d clients, %d KiB", s.inUse(), len(s.byClient), grown>>10)
	}
	s.release(polite)
	for range got {
		s.release(greedy)
	}
	if s.inUse() != 11 || len(s.byClient) != 11 || !s.acquire(greedy) {
		t.Errorf("%d in use by %d clients after a release", s.inUse(), len(s.byClient))
	}
}

// dialFrom opens a connection to a server from an address of this host.
func dialFrom(t *testing.T, from, to netip.Addr) *dns.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	c, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(to, testPort).String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &dns.Conn{Conn: c}
}

// TestOneClientCannotTakeAll: a client that opens connections and asks slow questions as fast as it can gets a quarter. Another
// client is served meanwhile, over TCP, and for names elsewhere.
func TestOneClientCannotTakeAll(t *testing.T) {
	u := startUpstream(t, func(network string, q, reply *dns.Msg) bool {
		return q.Question[0].Name != "slow.example." && answering("192.0.2.7")(network, q, reply)
	})
	s, at := start(t, 1, u.addr)
	greedy, polite := freshAddr(), freshAddr()
	slow, err := question("slow.example.", dns.TypeA).Pack()
	must(t, err)
	for range maxConns {
		c := dialFrom(t, greedy, at[0])
		_ = c.WriteMsg(question("web.weft.local.", dns.TypeA))
	}
	eventually(t, "the greedy client has its connections", func() bool { return s.conns.inUse() >= maxConns/clientShare })
	udp, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(greedy, 0)),
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(at[0], testPort)))
	must(t, err)
	defer udp.Close()
	for range 2 * maxForwards {
		_, err := udp.Write(slow)
		must(t, err)
	}
	eventually(t, "the greedy client has its forwards", func() bool { return s.forwards.inUse() == maxForwards/clientShare })
	c := dialFrom(t, polite, at[0])
	must(t, c.WriteMsg(question("example.com.", dns.TypeA)))
	r, err := c.ReadMsg()
	if err != nil || len(r.Answer) != 1 {
		t.Errorf("the other client: %v, %v", r, err)
	}
	if n := s.conns.inUse(); n > maxConns/clientShare+1 {
		t.Errorf("%d connections", n)
	}
}
