package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/signal"
)

// retryBind is the pause before the next attempt to bind an address.
const retryBind = 3 * time.Second

// Config configures a Server. Fields without a default are required.
type Config struct {
	Names *Registry
	Port  uint16 // UDP and TCP; 0: 53

	// Ranges are the address ranges of the overlay. The server answers clients in them, and is authoritative for the names
	// of addresses in them.
	Ranges []netip.Prefix
	// Host knows the addresses of the host, from which clients are answered too. Nil: only loopback addresses.
	Host Host
	// ResolvConf is the file with the resolvers for all other names, in the form of resolv.conf(5); "": /etc/resolv.conf. It
	// may change at any time.
	ResolvConf string

	Logger *slog.Logger // nil: nothing is logged
}

// Host knows the addresses of the host.
type Host interface {
	// IsLocal reports whether addr is an address of the host, or of a container behind one of its bridges. It is called for each query
	// from outside the ranges, from several goroutines and without a lock held. A query over UDP waits for it, and the queries behind it too.
	IsLocal(addr netip.Addr) bool
}

// noHost is a Host without addresses.
type noHost struct{}

func (noHost) IsLocal(netip.Addr) bool { return false }

// Validate returns an error that names the first invalid field.
func (c *Config) Validate() error {
	if c.Names == nil {
		return errors.New("dns: Config.Names is not set")
	}
	for _, r := range c.Ranges {
		if !r.IsValid() {
			return fmt.Errorf("dns: Config.Ranges: invalid range %v", r)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Port == 0 {
		c.Port = 53
	}
	if c.Host == nil {
		c.Host = noHost{}
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server answers queries for the names of a Registry, and forwards other queries. All methods may be called concurrently.
type Server struct {
	// Constant after New.
	cfg       Config
	zone      string // the domain of the names, fully qualified
	retry     time.Duration
	forwarder forwarder
	rebind    signal.Chan // set when the wanted addresses have changed or an endpoint has ended
	forwards  *shares     // of queries that wait for a resolver
	conns     *shares     // of TCP connections

	counts counts // atomic

	mu sync.Mutex
	// Guarded by mu.
	wanted   []netip.Addr         // in order; replaced, never modified
	problems map[netip.Addr]error // why nothing listens at a wanted address
}

// New returns an idle Server.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, zone: cfg.Names.cfg.Domain + ".", retry: retryBind, rebind: signal.New(),
		forwards: newShares(maxForwards), conns: newShares(maxConns),
		problems: make(map[netip.Addr]error),
	}
	s.forwarder = forwarder{conf: resolvConf{path: cfg.ResolvConf}, port: dnsPort, timeout: resolverTimeout, isOwn: s.listensAt}
	return s, nil
}

// SetAddrs sets the addresses of the host at which the server listens; until it is called there are none. It does not wait
// until they are bound.
func (s *Server) SetAddrs(addrs []netip.Addr) {
	wanted := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		wanted = append(wanted, a.Unmap())
	}
	slices.SortFunc(wanted, netip.Addr.Compare)
	s.mu.Lock()
	s.wanted = slices.Compact(wanted)
	for a := range s.problems {
		if !slices.Contains(s.wanted, a) {
			delete(s.problems, a)
		}
	}
	s.mu.Unlock()
	s.rebind.Set()
}

// Run listens and answers until ctx ends; it returns nil then. It retries addresses that cannot be bound: see Problem.
func (s *Server) Run(ctx context.Context) error {
	bound := make(map[netip.Addr]*endpoint)
	defer func() {
		for _, e := range bound {
			e.close()
		}
	}()
	for {
		var retry <-chan time.Time
		if !s.bind(ctx, bound) {
			retry = time.After(s.retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.rebind.C():
		case <-retry:
		}
	}
}

// bind binds the wanted addresses and closes all others, and reports whether it could bind all of them. It changes bound.
func (s *Server) bind(ctx context.Context, bound map[netip.Addr]*endpoint) (complete bool) {
	wanted := s.addrs()
	for a, e := range bound {
		if !slices.Contains(wanted, a) {
			e.close()
			delete(bound, a)
		}
	}
	complete = true
	for _, a := range wanted {
		e, err := s.ensureEndpoint(ctx, a, bound[a])
		if s.recordProblem(a, err); err != nil {
			complete = false
			delete(bound, a)
			continue
		}
		bound[a] = e
	}
	return complete
}

// ensureEndpoint returns e, with an error when it has ended by itself, and a new endpoint at a when e is nil.
func (s *Server) ensureEndpoint(ctx context.Context, a netip.Addr, e *endpoint) (*endpoint, error) {
	if e != nil {
		return e, e.failed()
	}
	return s.listen(ctx, a)
}

func (s *Server) addrs() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// listensAt reports whether a is an address of this server.
func (s *Server) listensAt(a netip.AddrPort) bool {
	return a.Port() == s.cfg.Port && slices.Contains(s.addrs(), a.Addr())
}
