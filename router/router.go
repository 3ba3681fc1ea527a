// Package router is the engine of the datapath: it carries Ethernet frames between the host's TAP and the peers.
//
// A frame's way, file by file: outbound.go reads it from a TAP queue, checks it, learns its source, finds the hops it
// goes to and writes the wire header in front of it where it lies; inbound.go takes a datagram from a socket, asks
// which peer sent it, checks it, learns its source and hands it to the TAP. peers.go is the snapshot of the peers that
// both read, drop.go the reasons for which a frame goes nowhere, stats.go and metrics.go what was counted.
//
// One goroutine owns each TAP queue, and one each socket. They share the forwarding database and the snapshot, both
// read without a lock, and counters; no frame passes from one goroutine to another.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/fdb"
	"weft/router/underlay"
	"weft/tap"
)

// ErrConfig is wrapped by the errors of New for a Config that cannot be meant.
var ErrConfig = errors.New("bad configuration")

// vlanTag is the length of an IEEE 802.1Q tag, which an MTU does not count.
const vlanTag = 4

// Config is what an Engine is made of.
type Config struct {
	// Self is this node's own ID.
	Self peer.ID
	// Device is the host's side. The engine owns it: Run closes it.
	Device tap.Device
	// Conns are the sockets, at least one and at most one for each of the device's queues, as each writes to a queue of
	// its own; TAP queues share them out. Peers know a node by the address that its datagrams come from, so all must
	// send from the same. The engine owns them: Run closes them.
	Conns []underlay.Conn
	// FDBAge is how long an address is known after its last frame, by the second; fdb.DefaultAge where 0. Shorter finds
	// silent addresses sooner when they have moved; longer floods less.
	FDBAge time.Duration
	// Logger takes what an operator should read, never at a rate that frames set; slog.Default where nil.
	Logger *slog.Logger
	// Now is the clock; time.Now where nil.
	Now func() time.Time
}

// Validate returns an error that wraps ErrConfig and names the field that is wrong, or nil.
func (c Config) Validate() error {
	switch {
	case c.Self.IsZero():
		return fmt.Errorf("router: %w: Self is the zero ID", ErrConfig)
	case c.Device == nil:
		return fmt.Errorf("router: %w: Device is missing", ErrConfig)
	case len(c.Conns) == 0 || len(c.Conns) > len(c.Device.Queues()):
		return fmt.Errorf("router: %w: Conns: %d sockets for %d TAP queues", ErrConfig, len(c.Conns), len(c.Device.Queues()))
	case c.FDBAge < 0:
		return fmt.Errorf("router: %w: FDBAge %s is negative", ErrConfig, c.FDBAge)
	}
	return nil
}

// Engine forwards frames. All methods may be called from any goroutine.
type Engine struct {
	// Constant after New.
	self   peer.ID
	device tap.Device
	conns  []underlay.Conn
	fdb    *fdb.Table
	age    time.Duration
	log    *slog.Logger
	now    func() time.Time

	// Atomic.
	started  atomic.Bool
	peers    atomic.Pointer[snapshot]
	longest  atomic.Int64  // frame in bytes: the device's MTU and the headers it does not count
	counter  atomic.Uint64 // of Header.Counter: shared, so that a flooded datagram is the same for every peer
	drops    dropCounters
	moves    atomic.Uint64
	probes   atomic.Uint64 // of paths, and answers to them, received
	transmit batchCounters
	receive  batchCounters

	// answers to probes that wait to be sent; who finds it full gives up.
	answers chan answer

	// mu serialises SetPeers.
	mu sync.Mutex
}

// New returns an engine that is idle and knows no peers. The error wraps ErrConfig, or is the device's; device and
// sockets then are still open, and the caller's.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.FDBAge == 0 {
		cfg.FDBAge = fdb.DefaultAge
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{
		self:   cfg.Self,
		device: cfg.Device,
		conns:  cfg.Conns,
		fdb:    fdb.New(fdb.DefaultLimit, cfg.FDBAge, cfg.Now()),
		age:    cfg.FDBAge,
		log:    cfg.Logger,
		now:    cfg.Now,

		answers: make(chan answer, maxAnswers),
	}
	e.peers.Store(&snapshot{})
	if err := e.readMTU(); err != nil {
		return nil, err
	}
	return e, nil
}

// Run forwards frames until ctx ends, which it returns nil for, or until the device or a socket fails. When it returns
// all its goroutines have ended and the device and the sockets are closed. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	if e.started.Swap(true) {
		return errors.New("router: Run was called before")
	}
	group, inner := errgroup.WithContext(ctx)
	queues := e.device.Queues()
	hosts := make([]*host, len(queues))
	for i, q := range queues {
		hosts[i] = &host{queue: q}
		group.Go(newOutbound(e, q, hosts[i], e.conns[i%len(e.conns)]).run)
	}
	for i, c := range e.conns {
		group.Go(newInbound(e, c, hosts[i]).run)
	}
	group.Go(func() error {
		e.probePaths(inner)
		return nil
	})
	group.Go(func() error {
		e.keep(inner)
		return nil
	})
	group.Go(func() error {
		<-inner.Done() // what waits for a frame or a datagram wakes up when this closes it
		return e.close()
	})
	e.log.Info("datapath runs", "tap", e.device.Name(), "queues", len(queues), "sockets", len(e.conns))
	err := group.Wait()
	if ctx.Err() != nil {
		err = nil // what closing it for the end has made of reads and writes
	}
	return err
}

func (e *Engine) close() error {
	errs := []error{e.device.Close()}
	for _, c := range e.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// keep ages the forwarding database and follows the device's MTU until ctx ends. That the MTU cannot be read ends
// nothing: where the interface is gone, its queues say so.
func (e *Engine) keep(ctx context.Context) {
	tick := time.NewTicker(min(max(e.age/10, time.Second), 30*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.fdb.Age(e.now())
		if err := e.readMTU(); err != nil && ctx.Err() == nil {
			e.log.Warn("MTU of the TAP not read", "err", err)
		}
	}
}

func (e *Engine) readMTU() error {
	mtu, err := e.device.MTU()
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	e.longest.Store(int64(mtu + ether.HeaderLen + vlanTag))
	return nil
}

// FDB returns what is known of addresses, sorted by them; the zero ID is the host itself.
func (e *Engine) FDB() []fdb.Entry { return e.fdb.Entries(e.now()) }

// Take returns the addresses that were learned behind a peer and forgets them, for somebody who knows better from now
// on. It costs next to nothing where no frame has come from the peer since the last call.
func (e *Engine) Take(id peer.ID) []ether.Addr {
	h := e.peers.Load().byID[id]
	if h == nil {
		return nil
	}
	if frames := h.state.receive.frames.Load() + 1; h.state.taken.Swap(frames) == frames {
		return nil
	}
	return e.fdb.Take(id)
}

// counters returns the first of n counters in a row that nobody else gets.
func (e *Engine) counters(n int) uint64 { return e.counter.Add(uint64(n)) - uint64(n) }

// learn notes that mac is at where.
func (e *Engine) learn(mac ether.Addr, where peer.ID, now time.Time) {
	if e.fdb.Learn(mac, where, now) {
		e.moves.Add(1)
	}
}
