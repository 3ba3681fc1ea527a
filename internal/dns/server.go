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
)

// retryBind is how long an address that cannot be bound is left alone.
const retryBind = 3 * time.Second

// Config is what a Server needs. Fields without a default must be set.
type Config struct {
	Names *Registry
	Port  uint16 // UDP and TCP; 0: 53

	// Ranges are those of the overlay: who is inside is served, and addresses inside are named by this server alone.
	Ranges []netip.Prefix
	// Local says whether an address is one of the host's, which is served too. It is called for each query from outside the
	// ranges. Nil: none is, but for loopback.
	Local func(netip.Addr) bool
	// ResolvConf is the file that names the resolvers for everything else, as resolv.conf(5) has it; "": /etc/resolv.conf. It
	// may change at any time.
	ResolvConf string

	Logger *slog.Logger // nil: nothing is logged
}

// Validate returns an error that names the first field that cannot be worked with.
func (c *Config) Validate() error {
	if c.Names == nil {
		return errors.New("dns: Config.Names is not set")
	}
	for _, r := range c.Ranges {
		if !r.IsValid() {
			return fmt.Errorf("dns: Config.Ranges: %v is none", r)
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Port == 0 {
		c.Port = 53
	}
	if c.Local == nil {
		c.Local = func(netip.Addr) bool { return false }
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server answers for the names of a Registry, and forwards other questions. All methods may be called concurrently.
type Server struct {
	// Constant after New.
	cfg      Config
	retry    time.Duration
	forward  forwarder
	wake     chan struct{} // of capacity 1: tells Run to look again
	forwards chan struct{} // holds a token for each question that waits for a resolver
	conns    chan struct{} // holds a token for each TCP connection

	counts counts // atomic

	mu sync.Mutex
	// Guarded by mu.
	wanted   []netip.Addr         // in order
	problems map[netip.Addr]error // of wanted ones: why nothing listens there
}

// New returns a Server that listens nowhere yet.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, retry: retryBind, wake: make(chan struct{}, 1),
		forwards: make(chan struct{}, maxForwards), conns: make(chan struct{}, maxConns),
		problems: make(map[netip.Addr]error),
	}
	s.forward = forwarder{conf: resolvConf{path: cfg.ResolvConf}, port: dnsPort, timeout: resolverTimeout, own: s.listensAt}
	return s, nil
}

// SetAddrs says on which of the host's addresses the server is to listen; until it is called there are none. It does not
// wait until that is so.
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
	s.poke()
}

// Run listens and answers until ctx ends. Addresses that cannot be bound are tried again: see Problem.
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
		case <-s.wake:
		case <-retry:
		}
	}
}

// bind makes bound what is wanted, and reports whether it is.
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
		e, err := s.keep(ctx, a, bound[a])
		if s.note(a, err); err != nil {
			complete = false
			delete(bound, a)
			continue
		}
		bound[a] = e
	}
	return complete
}

// keep returns e where it still runs, and a new endpoint at a where there was none.
func (s *Server) keep(ctx context.Context, a netip.Addr, e *endpoint) (*endpoint, error) {
	if e != nil {
		return e, e.failed()
	}
	return s.listen(ctx, a)
}

func (s *Server) addrs() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted // replaced, never changed
}

// listensAt reports whether the server is to be found at an address.
func (s *Server) listensAt(a netip.AddrPort) bool {
	return a.Port() == s.cfg.Port && slices.Contains(s.addrs(), a.Addr())
}

func (s *Server) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
