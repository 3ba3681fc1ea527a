package dns

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// message is a DNS message.
type message = dns.Msg

// maxUDP is the length in bytes of the longest reply over UDP, even when a client accepts more: it passes nearly every path
// without fragments.
const maxUDP = 1232

// query is a received message.
type query struct {
	message
	from      netip.Addr
	tcp       bool
	malformed bool // only the header could be read
}

// headerLen is the length of a message's header in bytes (RFC 1035, 4.1.1).
const headerLen = 12

// parse parses a message. It returns false for bytes that must not be replied to: they have no header, or are a reply.
func parse(raw []byte, from netip.Addr) (*query, bool) {
	if len(raw) < headerLen {
		return nil, false
	}
	q := &query{from: from.Unmap().WithZone("")}
	q.malformed = q.Unpack(raw) != nil || !q.complete(raw)
	return q, !q.Response
}

// complete reports whether the message has as many records as its header states. Unpack accepts a message that ends between
// two records.
func (q *query) complete(raw []byte) bool {
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

// opt returns the EDNS record of the query, nil if there is none.
func (q *query) opt() *dns.OPT {
	if q.malformed {
		return nil
	}
	return q.IsEdns0()
}

// opts returns the number of EDNS records; more than one is an error (RFC 6891, 6.1.1).
func (q *query) opts() (n int) {
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			n++
		}
	}
	return n
}

// reply returns a reply with no records other than that of EDNS.
func (q *query) reply(rcode int) *message {
	m := new(message).SetRcode(&q.message, rcode)
	m.RecursionAvailable = true
	if opt := q.opt(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	return m
}

// limit returns the length in bytes of the longest reply that may be sent.
func (q *query) limit() int {
	if q.tcp {
		return dns.MaxMsgSize
	}
	if opt := q.opt(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	return dns.MinMsgSize
}

// pack returns the wire form of a reply to q, truncated to the limit. A reply that cannot be packed, because a resolver has
// sent invalid records, becomes a server failure.
func (q *query) pack(reply *message) []byte {
	reply.Truncate(q.limit())
	b, err := reply.Pack()
	if err == nil && len(b) <= q.limit() {
		return b
	}
	header := message{MsgHdr: dns.MsgHdr{
		Id: q.Id, Response: true, Opcode: q.Opcode, RecursionDesired: q.RecursionDesired, Rcode: dns.RcodeServerFailure,
	}}
	b, _ = header.Pack() // cannot fail: a header can always be packed
	return b
}
