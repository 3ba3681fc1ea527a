// Package domains learns the addresses of domain names from DNS answers, for rules of policies by domain name.
//
//	packet ──ParsePacket──> Answer: the name of the question, its addresses
//	Answer, domain ──Table.Learn──> addresses of the domain, each until some time
//
// Packets come from servers that the caller trusts, but their content may come from any server of the internet: everything is bounded, and
// what cannot be read counts for nothing.
package domains

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/miekg/dns"
)

// Bounds of one answer.
const (
	// maxAliases is the length of a chain of CNAME records that is followed.
	maxAliases = 16
	// maxAddresses is how many addresses of an answer count: the first ones.
	maxAddresses = 128
)

// Answer has the addresses of a name as a DNS server gave them.
type Answer struct {
	// Name is the name of the question: in lower case, without a dot at its end.
	Name string
	// Addrs are the addresses at the end of the chain of aliases that begins at the name; there is one at least.
	Addrs []netip.Addr
	// TTL is the shortest time for which one of the records with the addresses counts.
	TTL time.Duration
}

// ParsePacket returns the answers in an IP packet of a DNS server, from the IP header on: at most one over UDP. Over TCP, messages count
// that are complete in the packet.
func ParsePacket(b []byte) (answers []Answer) {
	if len(b) == 0 {
		return nil
	}
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	packet := gopacket.NewPacket(b, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	switch t := packet.TransportLayer().(type) {
	case *layers.UDP:
		return appendAnswer(nil, t.Payload)
	case *layers.TCP:
		for p := t.Payload; len(p) >= 2; { // RFC 1035, section 4.2.2: each message follows its length
			end := 2 + int(binary.BigEndian.Uint16(p))
			if end > len(p) {
				break
			}
			answers, p = appendAnswer(answers, p[2:end]), p[end:]
		}
	}
	return answers
}

// appendAnswer appends the answer in a DNS message, if it has one.
func appendAnswer(to []Answer, message []byte) []Answer {
	if a, ok := ParseMessage(message); ok {
		return append(to, a)
	}
	return to
}

// ParseMessage returns the answer in a DNS message; not ok if it has no address for its question.
func ParseMessage(b []byte) (a Answer, ok bool) {
	var m dns.Msg
	if m.Unpack(b) != nil || !m.Response || m.Opcode != dns.OpcodeQuery || m.Rcode != dns.RcodeSuccess || len(m.Question) != 1 {
		return a, false
	}
	q := m.Question[0]
	if q.Qclass != dns.ClassINET || q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return a, false
	}
	owner := dns.CanonicalName(q.Name)
	a.Name = strings.TrimSuffix(owner, ".")
	for range maxAliases {
		if a.addRecords(m.Answer, owner, q.Qtype) {
			return a, true
		}
		i := slices.IndexFunc(m.Answer, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeCNAME && belongs(r, owner) })
		if i < 0 {
			return a, false
		}
		alias, isAlias := m.Answer[i].(*dns.CNAME)
		if !isAlias {
			return a, false
		}
		owner = dns.CanonicalName(alias.Target)
	}
	return a, false
}

// belongs reports whether a record is one of a name in canonical form.
func belongs(r dns.RR, owner string) bool {
	return r.Header().Class == dns.ClassINET && dns.CanonicalName(r.Header().Name) == owner
}

// addRecords adds the addresses of a name, and reports whether there are any.
func (a *Answer) addRecords(records []dns.RR, owner string, kind uint16) bool {
	for _, r := range records {
		if len(a.Addrs) == maxAddresses || r.Header().Rrtype != kind || !belongs(r, owner) {
			continue
		}
		var ip netip.Addr
		switch r := r.(type) {
		case *dns.A:
			ip, _ = netip.AddrFromSlice(r.A.To4())
		case *dns.AAAA:
			ip, _ = netip.AddrFromSlice(r.AAAA.To16())
		}
		if !usable(ip) {
			continue
		}
		ttl := time.Duration(r.Header().Ttl) * time.Second
		if len(a.Addrs) == 0 || ttl < a.TTL {
			a.TTL = ttl
		}
		a.Addrs = append(a.Addrs, ip)
	}
	return len(a.Addrs) > 0
}

// usable reports whether an answer may open an address. None opens a loopback or link-local address, such as those of metadata services of
// clouds, nor a group.
func usable(ip netip.Addr) bool { return ip.IsGlobalUnicast() && !ip.Is4In6() }
