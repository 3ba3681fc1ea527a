package dns

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// message is a DNS message, as the library that this package stands on has it.
type message = dns.Msg

// maxUDP is the longest reply in bytes over UDP, whatever a client would take: it passes every path without fragments.
const maxUDP = 1232

// query is a message that came in.
type query struct {
	message
	from      netip.Addr
	tcp       bool
	malformed bool // it cannot be read but for its header
}

// headerLen is the length of a message's header (RFC 1035, 4.1.1).
const headerLen = 12

// parse reads a message. It returns false for what nothing is to be said to: what is no message, or a reply itself.
func parse(raw []byte, from netip.Addr) (*query, bool) {
	if len(raw) < headerLen {
		return nil, false
	}
	q := &query{from: from.Unmap().WithZone("")}
	q.malformed = q.Unpack(raw) != nil || !q.whole(raw)
	return q, !q.Response
}

// whole reports whether all was there that the header promised, for Unpack lets pass what ends between two fields.
func (q *query) whole(raw []byte) bool {
	for i, n := range []int{len(q.Question), len(q.Answer), len(q.Ns), len(q.Extra)} {
		if n != int(binary.BigEndian.Uint16(raw[4+2*i:])) {
			return false
		}
	}
	for _, question := range q.Question {
		if question.Qtype == 0 || question.Qclass == 0 { // both reserved (RFC 6895)
			return false
		}
	}
	return true
}

// opt returns the EDNS record of the query; nil where it has none.
func (q *query) opt() *dns.OPT {
	if q.malformed {
		return nil
	}
	return q.IsEdns0()
}

// opts returns how many EDNS records it has; more than one is an error (RFC 6891, 6.1.1).
func (q *query) opts() (n int) {
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n
}

// reply returns a reply without records but EDNS's.
func (q *query) reply(rcode int) *message {
	m := new(message).SetRcode(&q.message, rcode)
	m.RecursionAvailable = true
	if opt := q.opt(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	return m
}

// limit returns how long a reply may be in bytes.
func (q *query) limit() int {
	if q.tcp {
		return dns.MaxMsgSize
	}
	if opt := q.opt(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	return dns.MinMsgSize
}

// pack returns the bytes of a reply to q, truncated where they would be too many. A reply that cannot be packed, as with
// records of a resolver that make no sense, becomes a failure.
func (q *query) pack(reply *message) []byte {
	reply.Truncate(q.limit())
	b, err := reply.Pack()
	if err == nil && len(b) <= q.limit() {
		return b
	}
	header := message{MsgHdr: dns.MsgHdr{
		Id: q.Id, Response: true, Opcode: q.Opcode, RecursionDesired: q.RecursionDesired, Rcode: dns.RcodeServerFailure,
	}}
	b, _ = header.Pack() // a header always can be
	return b
}
