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
	resolverTimeout = 2 * time.Second // for a resolver, before the next is asked
	maxResolvers    = 3               // as resolv.conf(5): clients do not wait for more
)

// forwarder asks the host's resolvers.
type forwarder struct {
	conf    resolvConf
	port    uint16
	timeout time.Duration
	own     func(netip.AddrPort) bool // where this server itself is, which must not be asked
}

// errMismatch is what is wrong with a reply to another question.
var errMismatch = errors.New("dns: reply to another question")

// ask returns the reply of the host's resolvers to a query, a failure where none of them has one.
func (s *Server) ask(ctx context.Context, q *query) *message {
	r, err := s.forward.ask(ctx, q)
	if err != nil {
		s.cfg.Logger.Debug("resolvers", "err", err)
		s.counts.failed.Add(1)
		return q.reply(dns.RcodeServerFailure)
	}
	s.counts.forwarded.Add(1)
	reply := q.reply(r.Rcode)
	if r.Rcode > 0xf && reply.IsEdns0() == nil {
		reply.Rcode = dns.RcodeServerFailure // the client could not read it
	}
	reply.Authoritative, reply.Truncated = r.Authoritative, r.Truncated
	reply.RecursionAvailable, reply.AuthenticatedData = r.RecursionAvailable, r.AuthenticatedData
	reply.Answer, reply.Ns = r.Answer, r.Ns
	for _, rr := range r.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && t != dns.TypeTSIG { // these are between two neighbours
			reply.Extra = append(reply.Extra, rr)
		}
	}
	return reply
}

// ask tries the resolvers in order. What a resolver says that cannot or will not answer counts only if no other one does.
func (f *forwarder) ask(ctx context.Context, q *query) (*message, error) {
	err := errors.New("dns: no resolver")
	var failure *message
	for _, at := range f.resolvers() {
		r, failed := f.exchange(ctx, at, q)
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

// resolvers returns where to ask.
func (f *forwarder) resolvers() (list []netip.AddrPort) {
	for _, a := range f.conf.servers() {
		if at := netip.AddrPortFrom(a, f.port); !f.own(at) && len(list) < maxResolvers {
			list = append(list, at)
		}
	}
	return list
}

// exchange asks one resolver over the protocol that the client used, and again over TCP where the reply was truncated.
func (f *forwarder) exchange(ctx context.Context, at netip.AddrPort, q *query) (*message, error) {
	network := "udp"
	if q.tcp {
		network = "tcp"
	}
	r, err := f.exchangeOver(ctx, network, at, q)
	if err == nil && r.Truncated && !q.tcp {
		if whole, err := f.exchangeOver(ctx, "tcp", at, q); err == nil {
			return whole, nil
		} // else the client may try itself
	}
	return r, err
}

func (f *forwarder) exchangeOver(ctx context.Context, network string, at netip.AddrPort, q *query) (*message, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: f.timeout, UDPSize: maxUDP}
	conn, err := client.DialContext(ctx, at.String())
	if err != nil {
		return nil, fmt.Errorf("dns: resolver: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the client looks at deadlines only
	r, _, err := client.ExchangeWithConnContext(ctx, q.onward(), conn)
	if err != nil {
		return nil, fmt.Errorf("dns: resolver %s: %w", at, err)
	}
	if !r.Response || !repliesTo(r, q.Question[0]) {
		return nil, fmt.Errorf("%w: resolver %s", errMismatch, at)
	}
	return r, nil
}

// onward returns the question of a query under an ID of its own. Other records stay here: they are for this server.
func (q *query) onward() *message {
	m := &message{Question: q.Question}
	m.Id = dns.Id()
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = true, q.CheckingDisabled, q.AuthenticatedData
	if opt := q.opt(); opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	return m
}

// repliesTo reports whether r is to a question. Who refuses one need not repeat it.
func repliesTo(r *message, q dns.Question) bool {
	if len(r.Question) == 0 {
		return r.Rcode != dns.RcodeSuccess
	}
	got := r.Question[0]
	return len(r.Question) == 1 && got.Qtype == q.Qtype && got.Qclass == q.Qclass && strings.EqualFold(got.Name, q.Name)
}
