package dns

import (
	"net/netip"

	"github.com/miekg/dns"
)

// respond returns the reply to a query, or nil when it is to be forwarded to the host's resolvers.
func (s *Server) respond(q *query) *message {
	if rcode := s.checkQuery(q); rcode != dns.RcodeSuccess {
		s.counts.refused.Add(1)
		return q.reply(rcode)
	}
	question := q.Question[0]
	a, authoritative := s.answer(question)
	if !authoritative {
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
		reply.Ns = []dns.RR{s.soa(a.zone)}
		s.counts.nodata.Add(1)
	default:
		reply.Ns = []dns.RR{s.soa(a.zone)}
		reply.Rcode = dns.RcodeNameError
		s.counts.nxdomain.Add(1)
	}
	return reply
}

// checkQuery returns the code with which a query is refused, dns.RcodeSuccess when it is not.
func (s *Server) checkQuery(q *query) (rcode int) {
	switch {
	case !s.serves(q.from):
		return dns.RcodeRefused // the server is no open resolver
	case q.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case q.malformed, len(q.Question) != 1, q.opts() > 1:
		return dns.RcodeFormatError
	case q.opt() != nil && q.opt().Version() != 0:
		return dns.RcodeBadVers
	case q.Question[0].Qclass != dns.ClassINET, !isRecordType(q.Question[0].Qtype):
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// isRecordType reports whether a query type asks for records, of one type or of any. It is false for zone transfers and
// for types that may not be in a question (RFC 6895, 3.1).
func isRecordType(qtype uint16) bool {
	return qtype != dns.TypeOPT && (qtype < 128 || qtype > 254)
}

// serves reports whether the server answers queries of a client.
func (s *Server) serves(client netip.Addr) bool {
	if client.IsLoopback() {
		return true
	}
	for _, r := range s.cfg.Ranges {
		if r.Contains(client) {
			return true
		}
	}
	return s.cfg.Host.IsLocal(client)
}

// busy returns the reply to a query that would be forwarded while too many others wait for resolvers.
func (s *Server) busy(q *query) *message {
	s.counts.failed.Add(1)
	return q.reply(dns.RcodeServerFailure)
}
