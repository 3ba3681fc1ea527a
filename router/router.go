// Package router is the engine of the datapath: it carries Ethernet frames between the host's TAP and the peers.
//
// A frame's way, file by file: outbound.go reads it from a TAP queue, checks it (outgoing.go), learns its source and finds
// the hops that it goes to; encode.go makes datagrams of it, sealed or not, where it lies (slicer.go for superframes);
// inbound.go takes a datagram from a socket, finds its session, opens it, checks it, learns its source and hands it to
// the TAP (host.go). oversize.go is the way of what does not fit, and path.go finds out what does.
//
// lane.go is how frames go to a peer at present, keys.go makes the sessions that lanes go by, and pending.go keeps frames
// until there is one. peers.go is the snapshot of the peers that all read, drop.go the reasons for which a frame goes
// nowhere, stats.go and metrics.go what was counted.
//
// One goroutine owns each TAP queue, and one each socket. They share the forwarding database, the snapshot and the
// sessions, all read without a lock, and counters; no frame passes from one goroutine to another.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/fdb"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// ErrConfig is wrapped by the errors of New for a Config that cannot be meant.
var ErrConfig = errors.New("bad configuration")

// vlanTag is the length of an IEEE 802.1Q tag, which an MTU does not count.
const vlanTag = 4

// Config is what an Engine is made of.
type Config struct {
	// Private is this node's static X25519 key, of which its ID is made.
	Private [session.KeyLen]byte
	// Cluster is the name of the network; nodes of another one make no session.
	Cluster string
	// Secrets are what the node shares with others, the first choice first; see session.Config. Without any, frames are
	// not sealed, and only strangers off the path are kept out.
	Secrets []session.Secret
	// Offer is which ciphers the node would use.
	Offer session.Offer
	// Trusts reports whether frames need not be sealed on the way to and from an address, as far as this node is
	// concerned; nil is never, but always where there are no secrets. It may be called from any goroutine.
	Trusts func(netip.Addr) bool
	// OnAgreed is told that Agreed has changed for a peer, by one goroutine, which waits for it; it may be nil.
	OnPlainAgreed func(peer.ID)
	// Owner returns the peer that gives out an address of the overlay. It is called for every question for an address
	// that comes from this node's pods, by the goroutine that reads the TAP, and must not block. Nil: such questions go to
	// all peers.
	Owner func(netip.Addr) (peer.ID, bool)
	// OnLinks is told what has changed of the links that this node itself can judge, by one goroutine, which waits for it;
	// it may be nil.
	OnLinks func(Links)
	// OnControl takes what peers sent by SendControl. It is called by the goroutines that read the sockets: it must not
	// block, nor keep message. It may be nil.
	OnControl func(from peer.ID, to uint8, message []byte)
	// Knock sends a datagram to an address from a port that nothing was ever sent from, for a peer that wants to know
	// whether others reach it there; nil: this node cannot.
	DialBack func(to netip.AddrPort, datagram []byte)
	// Device is the host's side. The engine owns it: Run closes it.
	Device tap.Device
	// Conns are the sockets, at least one and at most one for each of the device's queues, as each writes to a queue of
	// its own; TAP queues share them out. Peers send to where a node's datagrams come from, so all must send from the
	// same address. The engine owns them: Run closes them.
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
	self     peer.ID
	device   tap.Device
	conns    []underlay.Conn
	fdb      *fdb.Table
	age      time.Duration
	tailroom int // bytes that may have to follow a frame: a tag's where there are secrets
	onAgreed func(peer.ID)
	control  func(from peer.ID, to uint8, message []byte)
	knock    func(netip.AddrPort, []byte)
	log      *slog.Logger
	now      func() time.Time

	// Atomic.
	started  atomic.Bool
	peers    atomic.Pointer[snapshot]
	longest  atomic.Int64 // frame in bytes: the device's MTU and the headers it does not count
	trust    atomic.Pointer[func(netip.Addr) bool]
	drops    dropCounters
	moves    atomic.Uint64
	probes   atomic.Uint64 // of paths, and answers to them, received
	floods   atomic.Uint64
	toTAP    frameCounters
	fromTAP  frameCounters
	transmit batchCounters
	receive  batchCounters

	waitingBytes atomic.Int64 // of frames that wait for sessions

	keys   *keys
	links  *links
	knocks knocks

	neighbors neighbors

	passed passed

	captures   atomic.Pointer[[]*Capture] // nil: none
	duplicates duplicates

	// answers to probes that wait to be sent, and peers with whom a session is wanted; who finds one full gives up.
	answers chan answer
	wants   chan peer.ID

	// mu serialises SetPeers, SetTrusts and who captures.
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
	tailroom := wire.TagLen
	if len(cfg.Secrets) == 0 {
		tailroom = 0
		cfg.Trusts = func(netip.Addr) bool { return true }
	}
	cfg.Trusts = session.OrNever(cfg.Trusts)
	keys, err := newKeys(session.Config{
		Private: cfg.Private, Cluster: cfg.Cluster, Secrets: cfg.Secrets, Offer: cfg.Offer, Trusts: cfg.Trusts,
	})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	e := &Engine{
		self:     keys.node.ID(),
		device:   cfg.Device,
		conns:    cfg.Conns,
		fdb:      fdb.New(fdb.DefaultLimit, cfg.FDBAge, cfg.Now()),
		age:      cfg.FDBAge,
		tailroom: tailroom,
		onAgreed: cfg.OnPlainAgreed,
		control:  cfg.OnControl,
		knock:    cfg.DialBack,
		log:      cfg.Logger,
		now:      cfg.Now,
		keys:     keys,

		answers: make(chan answer, maxAnswers),
		wants:   make(chan peer.ID, maxWants),
	}
	e.neighbors.owner = cfg.Owner
	e.links = newLinks(e, cfg.OnLinks)
	e.trust.Store(&cfg.Trusts)
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
		e.makeSessions(inner)
		return nil
	})
	group.Go(func() error {
		e.links.watch(inner)
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
func (e *Engine) ReleaseMACs(id peer.ID) []ether.Addr {
	h := e.peers.Load().byID[id]
	if h == nil {
		return nil
	}
	if frames := h.state.receive.frames.Load() + 1; h.state.taken.Swap(frames) == frames {
		return nil
	}
	return e.fdb.Release(id)
}

// learn notes that mac is at where.
func (e *Engine) learn(mac ether.Addr, where peer.ID, now time.Time) {
	if e.fdb.Learn(mac, where, now) {
		e.moves.Add(1)
		e.duplicates.moved(mac, where, now)
	}
}
