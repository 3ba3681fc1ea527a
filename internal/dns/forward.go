package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	dnsPort         = 53
	resolverTimeout = 2 * time.Second // of one resolver, before the next one is asked
	maxResolvers    = 3               // as in resolv.conf(5): clients do not wait for more
)

// forwarder forwards queries to the host's resolvers. Its methods may be called concurrently.
type forwarder struct {
	conf    resolvConf
	states  resolverStates
	port    uint16
	timeout time.Duration
	isOwn   func(netip.AddrPort) bool // reports an address of this server, which must not be asked
}

// errMismatch is the error of a reply to another question.
var errMismatch = errors.New("dns: reply to another question")

// forward returns the reply of the host's resolvers to a query, or a server failure when none of them has replied.
func (s *Server) forward(ctx context.Context, q *query) *message {
	r, err := s.forwarder.exchangeWithAny(ctx, q)
	if err != nil {
		s.cfg.Logger.Debug("no resolver has replied", "err", err)
		s.counts.failed.Add(1)
		return q.reply(dns.RcodeServerFailure)
	}
	s.counts.forwarded.Add(1)
	reply := q.reply(r.Rcode)
	if r.Rcode > 0xf && reply.IsEdns0() == nil {
		reply.Rcode = dns.RcodeServerFailure // without EDNS the reply has no room for the upper bits of the code
	}
	reply.Authoritative, reply.Truncated = r.Authoritative, r.Truncated
	reply.RecursionAvailable, reply.AuthenticatedData = r.RecursionAvailable, r.AuthenticatedData
	reply.Answer, reply.Ns = r.Answer, r.Ns
	for _, rr := range r.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && t != dns.TypeTSIG { // these two are valid for one hop only
			reply.Extra = append(reply.Extra, rr)
		}
	}
	return reply
}

// exchangeWithAny asks the resolvers until one answers: in order, but first those that are known to reply. It returns the reply of a
// resolver that fails or refuses only when no other one answers.
func (f *forwarder) exchangeWithAny(ctx context.Context, q *query) (*message, error) {
	err := errors.New("dns: no resolver")
	var failure *message
	for _, a := range f.states.order(f.resolvers(), q.tcp, f.timeout, time.Now()) {
		asked := time.Now()
		r, failed := f.exchange(ctx, a, q)
		f.note(ctx, a.at, q.tcp, asked, failed)
		switch {
		case failed != nil:
			err = failed
		case r.Rcode == dns.RcodeServerFailure, r.Rcode == dns.RcodeRefused, r.Rcode == dns.RcodeNotImplemented:
			failure = r
		default:
			return r, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failure != nil {
		return failure, nil
	}
	return nil, err
}

// note records whether a resolver has replied. A query that was given up, and a reply to another question, show neither.
func (f *forwarder) note(ctx context.Context, at netip.AddrPort, tcp bool, asked time.Time, err error) {
	switch {
	case err == nil:
		f.states.replied(at, tcp)
	case ctx.Err() == nil && !errors.Is(err, errMismatch):
		f.states.failed(at, tcp, asked, time.Now())
	}
}

// resolvers returns the addresses of the resolvers, at most maxResolvers, without this server.
func (f *forwarder) resolvers() (list []netip.AddrPort) {
	for _, a := range f.conf.servers() {
		if at := netip.AddrPortFrom(a, f.port); !f.isOwn(at) && len(list) < maxResolvers {
			list = append(list, at)
		}
	}
	return list
}

// exchange asks one resolver over the protocol that the client used, and again over TCP when the reply was truncated.
func (f *forwarder) exchange(ctx context.Context, a attempt, q *query) (*message, error) {
	network := "udp"
	if q.tcp {
		network = "tcp"
	}
	r, err := f.exchangeOver(ctx, network, a, q)
	if err == nil && r.Truncated && !q.tcp {
		if whole, err := f.exchangeOver(ctx, "tcp", a, q); err == nil {
			return whole, nil
		} // else the client gets the truncated reply, and may retry itself
	}
	return r, err
}

func (f *forwarder) exchangeOver(ctx context.Context, network string, a attempt, q *query) (*message, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: a.timeout, UDPSize: maxUDP}
	conn, err := client.DialContext(ctx, a.at.String())
	if err != nil {
		return nil, fmt.Errorf("dns: resolver: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the library only observes deadlines
	r, _, err := client.ExchangeWithConnContext(ctx, q.forwarded(), conn)
	if err != nil {
		return nil, fmt.Errorf("dns: resolver %s: %w", a.at, err)
	}
	if !r.Response || !repliesTo(r, q.Question[0]) {
		return nil, fmt.Errorf("%w: resolver %s", errMismatch, a.at)
	}
	return r, nil
}

// forwarded returns the message to forward: the question of q, under an ID of its own. It leaves out other records, which
// are meant for this server.
func (q *query) forwarded() *message {
	m := &message{Question: q.Question}
	m.Id = dns.Id()
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = true, q.CheckingDisabled, q.AuthenticatedData
	if opt := q.opt(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	return m
}

// repliesTo reports whether r is a reply to a question. A reply that refuses it need not repeat it.
func repliesTo(r *message, q dns.Question) bool {
	if len(r.Question) == 0 {
		return r.Rcode != dns.RcodeSuccess
	}
	got := r.Question[0]
	return len(r.Question) == 1 && got.Qtype == q.Qtype && got.Qclass == q.Qclass && strings.EqualFold(got.Name, q.Name)
}
