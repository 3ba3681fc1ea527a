package domains

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/miekg/dns"

	"weft/internal/kube/policy"
)

// message returns a DNS answer to a question, with records in the format of zone files.
func message(t testing.TB, name string, kind uint16, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, kind)
	m.Response = true
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// TestMessage: the addresses at the end of the chain of the question count, and nothing else.
func TestMessage(t *testing.T) {
	for what, c := range map[string]struct {
		name    string
		kind    uint16
		records []string
		want    []netip.Addr
		ttl     time.Duration
	}{
		"addresses": {"WWW.Example.com.", dns.TypeA, []string{"www.example.com. 60 A 192.0.2.1", "www.example.COM. 30 A 192.0.2.2"},
			addrs("192.0.2.1", "192.0.2.2"), 30 * time.Second},
		"IPv6": {"www.example.com.", dns.TypeAAAA, []string{"www.example.com. 60 AAAA 2001:db8::1"}, addrs("2001:db8::1"), time.Minute},
		"aliases in any order": {"www.example.com.", dns.TypeA, []string{
			"c.example.net. 9 A 192.0.2.3", "b.example.net. 9 CNAME c.example.net.", "www.example.com. 9 CNAME b.example.net.",
		}, addrs("192.0.2.3"), 9 * time.Second},
		"records of other names": {"www.example.com.", dns.TypeA, []string{
			"www.example.com. 9 A 192.0.2.1", "bank.example.net. 9 A 192.0.2.66",
		}, addrs("192.0.2.1"), 9 * time.Second},
		"an alias of another name": {name: "www.example.com.", kind: dns.TypeA, records: []string{
			"x.example.com. 9 CNAME c.example.net.", "c.example.net. 9 A 192.0.2.3",
		}},
		"a circle": {name: "www.example.com.", kind: dns.TypeA, records: []string{
			"www.example.com. 9 CNAME b.example.com.", "b.example.com. 9 CNAME www.example.com.",
		}},
		"another type":   {name: "www.example.com.", kind: dns.TypeA, records: []string{"www.example.com. 9 AAAA 2001:db8::1"}},
		"another class":  {name: "www.example.com.", kind: dns.TypeA, records: []string{"www.example.com. 9 CH A 192.0.2.1"}},
		"another query":  {name: "www.example.com.", kind: dns.TypeMX, records: []string{"www.example.com. 9 A 192.0.2.1"}},
		"no such record": {name: "www.example.com.", kind: dns.TypeA},
		"addresses of the host and its link": {name: "www.example.com.", kind: dns.TypeA, records: []string{
			"www.example.com. 9 A 127.0.0.1", "www.example.com. 9 A 169.254.169.254", "www.example.com. 9 A 224.0.0.1",
			"www.example.com. 9 A 255.255.255.255", "www.example.com. 9 A 0.0.0.0",
		}},
		"the same of IPv6": {name: "www.example.com.", kind: dns.TypeAAAA, records: []string{
			"www.example.com. 9 AAAA ::1", "www.example.com. 9 AAAA fe80::1", "www.example.com. 9 AAAA ::ffff:192.0.2.1",
		}},
	} {
		a, ok := ParseMessage(message(t, c.name, c.kind, c.records...))
		if ok != (len(c.want) > 0) {
			t.Errorf("%s: %+v, %v", what, a, ok)
		}
		if ok && (a.Name != "www.example.com" || !slices.Equal(a.Addrs, c.want) || a.TTL != c.ttl) {
			t.Errorf("%s: %+v", what, a)
		}
	}
}

// TestNoAnswer: queries, errors and messages with another number of questions are none.
func TestNoAnswer(t *testing.T) {
	for what, change := range map[string]func(*dns.Msg){
		"a query":        func(m *dns.Msg) { m.Response = false },
		"an error":       func(m *dns.Msg) { m.Rcode = dns.RcodeNameError },
		"an update":      func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate },
		"two questions":  func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"no question":    func(m *dns.Msg) { m.Question = nil },
		"a class of DNS": func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
	} {
		var m dns.Msg
		if err := m.Unpack(message(t, "a.example.com.", dns.TypeA, "a.example.com. 9 A 192.0.2.1")); err != nil {
			t.Fatal(err)
		}
		change(&m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := ParseMessage(b); ok {
			t.Errorf("%s: %+v", what, a)
		}
	}
}

// packetOf returns an IP packet.
func packetOf(t testing.TB, src string, transport gopacket.SerializableLayer, payload []byte) []byte {
	t.Helper()
	proto := layers.IPProtocolUDP
	if _, ok := transport.(*layers.TCP); ok {
		proto = layers.IPProtocolTCP
	}
	ip := netip.MustParseAddr(src)
	var network gopacket.SerializableLayer = &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: ip.AsSlice(), DstIP: ip.AsSlice()}
	if ip.Is6() {
		network = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: ip.AsSlice(), DstIP: ip.AsSlice()}
	}
	buf := gopacket.NewSerializeBuffer()
	all := []gopacket.SerializableLayer{network, transport, gopacket.Payload(payload)}
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestPacket: answers over UDP and TCP, of both families. An answer that a TCP segment cuts off counts for nothing.
func TestPacket(t *testing.T) {
	a := message(t, "a.example.com.", dns.TypeA, "a.example.com. 9 A 192.0.2.1")
	b := message(t, "b.example.com.", dns.TypeA, "b.example.com. 9 A 192.0.2.2")
	framed := func(m []byte) []byte { return append([]byte{byte(len(m) >> 8), byte(len(m))}, m...) }
	stream := append(framed(a), framed(b)...)
	udp, tcp := &layers.UDP{SrcPort: 53, DstPort: 4000}, &layers.TCP{SrcPort: 5353, DstPort: 4000, ACK: true}
	for what, c := range map[string]struct {
		packet []byte
		names  []string
	}{
		"UDP":            {packetOf(t, "10.32.0.9", udp, a), []string{"a.example.com"}},
		"UDP over IPv6":  {packetOf(t, "fd32::9", udp, a), []string{"a.example.com"}},
		"TCP":            {packetOf(t, "10.32.0.9", tcp, stream), []string{"a.example.com", "b.example.com"}},
		"TCP over IPv6":  {packetOf(t, "fd32::9", tcp, stream), []string{"a.example.com", "b.example.com"}},
		"cut off":        {packetOf(t, "10.32.0.9", tcp, stream[:len(stream)-1]), []string{"a.example.com"}},
		"acknowledgment": {packetOf(t, "10.32.0.9", tcp, nil), nil},
		"nothing":        {nil, nil},
	} {
		var names []string
		for _, answer := range ParsePacket(c.packet) {
			names = append(names, answer.Name)
		}
		if !slices.Equal(names, c.names) {
			t.Errorf("%s: %v, want %v", what, names, c.names)
		}
	}
}

// FuzzPacket decodes packets with answers of any server.
func FuzzPacket(f *testing.F) {
	a := message(f, "a.example.com.", dns.TypeA, "a.example.com. 9 CNAME b.example.com.", "b.example.com. 9 A 192.0.2.1")
	f.Add(packetOf(f, "10.32.0.9", &layers.UDP{SrcPort: 53, DstPort: 4000}, a))
	f.Add(packetOf(f, "fd32::9", &layers.TCP{SrcPort: 53, DstPort: 4000, ACK: true}, append([]byte{0, byte(len(a))}, a...)))
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, a := range ParsePacket(packet) {
			if len(a.Addrs) == 0 || len(a.Addrs) > maxAddresses || a.TTL < 0 || !slices.ContainsFunc(a.Addrs, usable) {
				t.Errorf("%+v", a)
			}
		}
	})
}

var start = time.Unix(1_800_000_000, 0)

// TestKeep: an address counts for its TTL and the least time at least, from the last answer on, and as long as a connection is open.
func TestKeep(t *testing.T) {
	x := NewTable(nil, start)
	const d = policy.Domain("*.example.com")
	answer := Answer{Name: "a.example.com", Addrs: addrs("192.0.2.1"), TTL: time.Second}
	if changed := x.Learn(d, answer, start); !slices.Equal(changed, []policy.Domain{d}) {
		t.Error("a new address is none")
	}
	if changed := x.Learn(d, answer, start.Add(time.Minute)); len(changed) > 0 {
		t.Error("a known address is new")
	}
	at := start.Add(time.Minute + MinKeep)
	if x.Due(at.Add(-1)) || !x.Due(at) {
		t.Error("the least time")
	}
	open := map[netip.Addr]bool{answer.Addrs[0]: true}
	if changed := x.Expire(at, open); len(changed) > 0 || x.Due(at) {
		t.Errorf("with an open connection: %v", changed)
	}
	if changed := x.Expire(at.Add(OpenKeep), nil); !slices.Equal(changed, []policy.Domain{d}) || x.Len() != 0 {
		t.Errorf("when it is closed: %v, %d addresses", changed, x.Len())
	}
	answer.TTL = time.Hour
	x.Learn(d, answer, start)
	answer.TTL = 0
	if x.Learn(d, answer, start); x.Due(start.Add(time.Hour - 1)) {
		t.Error("a later answer made it shorter")
	}
	answer.TTL = 1 << 31 * time.Second
	if x.Learn(d, answer, start); !x.Due(start.Add(maxKeep)) {
		t.Error("a server decides without a limit")
	}
}

// TestBounds: of too many addresses of a domain the oldest end, and of too many in all, those of the domain with most.
func TestBounds(t *testing.T) {
	x := NewTable(nil, start)
	number := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}) }
	learn := func(d policy.Domain, i int) []policy.Domain {
		return x.Learn(d, Answer{Addrs: []netip.Addr{number(i)}}, start.Add(time.Duration(i)*time.Millisecond))
	}
	for i := range MaxDomain + 5 {
		if changed := learn("big.example.com", i); !slices.Equal(changed, []policy.Domain{"big.example.com"}) {
			t.Fatalf("address %d: %v changed", i, changed)
		}
		if full := len(x.Full()) > 0; full != (i >= MaxDomain-1) {
			t.Fatalf("address %d: full %v", i, full)
		}
	}
	if got := x.Addrs("big.example.com"); len(got) != MaxDomain || got[0] != number(5) {
		t.Errorf("%d addresses from %s on", len(got), got[0])
	}
	learn("small.example.com", 0)
	for i := range 3 * MaxTotal {
		learn(policy.Domain(fmt.Sprintf("d%d.example.com", i%30)), i)
	}
	if changed := learn("new.example.com", 4*MaxTotal); len(changed) != 2 || len(x.Full()) == 0 {
		t.Errorf("a new domain changed %v; full: %v", changed, x.Full())
	}
	if x.Len() != MaxTotal || len(x.Entries()) != MaxTotal {
		t.Errorf("%d addresses", x.Len())
	}
	if !slices.Equal(x.Addrs("small.example.com"), []netip.Addr{number(0)}) {
		t.Error("a domain with one address has lost it to others")
	}
}

// TestEntries: a table has the entries of an earlier one, except invalid ones.
func TestEntries(t *testing.T) {
	x := NewTable(nil, start)
	x.Learn("a.example.com", Answer{Addrs: addrs("192.0.2.1", "2001:db8::1")}, start)
	x.Learn("*.example.com", Answer{Addrs: addrs("192.0.2.1"), TTL: time.Hour}, start)
	entries := x.Entries()
	again := NewTable(append(slices.Clone(entries),
		Entry{"no name", addrs("192.0.2.2")[0], start}, Entry{"A.example.com", addrs("192.0.2.2")[0], start},
		Entry{"a.example.com", netip.Addr{}, start}, Entry{"a.example.com", addrs("127.0.0.1")[0], start}), start)
	if !slices.Equal(again.Entries(), entries) || again.Len() != 3 || !maps.EqualFunc(again.domains, x.domains, maps.Equal) {
		t.Errorf("%v, want %v", again.Entries(), entries)
	}
	far := NewTable([]Entry{{"a.example.com", addrs("192.0.2.1")[0], start.AddDate(50, 0, 0)}}, start)
	if !far.Due(start.Add(maxKeep)) {
		t.Error("an entry of a file counts without a limit")
	}
}
