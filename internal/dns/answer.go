package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	// ttl is the TTL of answers in seconds: short, since pods come and go, and a query is cheap.
	ttl = 1
	// nameServer is this server's own name below the domain of the names. It is less likely than "ns" to be the name of an attachment.
	nameServer = "ns.dns"
	// maxRecords is the largest number of records in an answer: a random choice of them when there are more.
	maxRecords = 256
)

// answer is the answer to a question. Without records it means that the name has none of the type, or, when exists is
// false, that there is no such name.
type answer struct {
	zone    string
	records []dns.RR
	exists  bool // the name
}

// answer answers a question. It returns false for a name for which this server is not authoritative.
func (s *Server) answer(q dns.Question) (answer, bool) {
	if dns.IsSubDomain(s.zone, q.Name) {
		return s.forwardName(q), true
	}
	return s.reverseName(q)
}

// forwardName answers questions about names of the zone.
func (s *Server) forwardName(q dns.Question) answer {
	if len(q.Name) == len(s.zone) {
		return answer{zone: s.zone, exists: true, records: s.apex(q, s.zone)}
	}
	name := strings.ToLower(q.Name[:len(q.Name)-len(s.zone)-1])
	addrs := s.cfg.Names.Lookup(name)
	if len(addrs) == 0 && name == nameServer {
		addrs = slices.Clone(s.addrs())
	}
	a := answer{zone: s.zone}
	a.exists = len(addrs) > 0 || s.cfg.Names.hasBelow(name) || strings.HasSuffix("."+nameServer, "."+name)
	for _, addr := range addrs {
		if rr := addrRecord(q, addr); rr != nil && len(a.records) < maxRecords {
			a.records = append(a.records, rr)
		}
	}
	return a
}

// addrRecord returns the record of an address, nil when the question is for another address family.
func addrRecord(q dns.Question, addr netip.Addr) dns.RR {
	wanted := func(t uint16) bool { return q.Qtype == t || q.Qtype == dns.TypeANY }
	switch {
	case addr.Is4() && wanted(dns.TypeA):
		return &dns.A{Hdr: header(q.Name, dns.TypeA), A: addr.AsSlice()}
	case addr.Is6() && wanted(dns.TypeAAAA):
		return &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: addr.AsSlice()}
	}
	return nil
}

// apex returns the records of a zone's own name of the type in the question.
func (s *Server) apex(q dns.Question, zone string) (records []dns.RR) {
	if q.Qtype == dns.TypeSOA || q.Qtype == dns.TypeANY {
		records = append(records, s.soa(zone))
	}
	if q.Qtype == dns.TypeNS || q.Qtype == dns.TypeANY {
		records = append(records, &dns.NS{Hdr: header(zone, dns.TypeNS), Ns: nameServer + "." + s.zone})
	}
	return records
}

// soa returns the SOA record of a zone, which states how long a negative answer may be cached (RFC 2308). Its serial has no
// meaning, since zones are not transferred.
func (s *Server) soa(zone string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA), Ns: nameServer + "." + s.zone, Mbox: "hostmaster." + s.zone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
