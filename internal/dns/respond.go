package dns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// respond returns the reply to a query, or nil where the host's resolvers are to be asked.
func (s *Server) respond(q *query) *message {
	if rcode := s.check(q); rcode != dns.RcodeSuccess {
		s.counts.refused.Add(1)
		return q.reply(rcode)
	}
	question := q.Question[0]
	a, ok := s.answer(question)
	if !ok {
		if !q.RecursionDesired {
			s.counts.refused.Add(1)
			return q.reply(dns.RcodeRefused)
		}
		return nil
	}
	reply := q.reply(dns.RcodeSuccess)
	reply.Authoritative = true
	switch {
	case len(a.records) > 0:
		reply.Answer = a.records
		s.counts.answered.Add(1)
	case a.exists:
		reply.Ns = []dns.RR{soa(a.zone)}
		s.counts.nodata.Add(1)
	default:
		reply.Ns = []dns.RR{soa(a.zone)}
		reply.Rcode = dns.RcodeNameError
		s.counts.nxdomain.Add(1)
	}
	return reply
}

// check returns why a query is not answered, dns.RcodeSuccess where it is.
func (s *Server) check(q *query) (rcode int) {
	switch {
	case !s.serves(q.from):
		return dns.RcodeRefused // no open resolver
	case q.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case q.malformed, len(q.Question) != 1, q.opts() > 1:
		return dns.RcodeFormatError
	case q.opt() != nil && q.opt().Version() != 0:
		return dns.RcodeBadVers
	case q.Question[0].Qclass != dns.ClassINET, !askable(q.Question[0].Qtype):
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// askable reports whether a type is one of records, or any: not zone transfers, and not what is no question (RFC 6895, 3.1).
func askable(qtype uint16) bool {
	return qtype != dns.TypeOPT && (qtype < 128 || qtype > 254)
}

// serves reports whether a client may ask.
func (s *Server) serves(client netip.Addr) bool {
	if client.IsLoopback() {
		return true
	}
	for _, r := range s.cfg.Ranges {
		if r.Contains(client) {
			return true
		}
	}
	return s.cfg.Local(client)
}

// busy is the reply to a question for resolvers when too many wait for them.
func (s *Server) busy(q *query) *message {
	s.counts.failed.Add(1)
	return q.reply(dns.RcodeServerFailure)
}
