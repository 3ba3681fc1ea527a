// Package ipam gives out addresses of one overlay network on every node of it, without a central store.
//
// Each range is divided by a ring (package ring) of whose tokens each node changes only its own; a node gives out addresses
// of its own tokens alone, so it needs nobody's leave while it has space. The first division is agreed on by the founding
// nodes (package paxos). A node without space asks the one with the most for half of its largest free block.
//
// Everything a node answers or says about itself is in its Store before. Gossip about others is written now and then: losing
// it costs a message, not an address. After a failed write, of which nobody knows whether it is on disk, the Allocator
// forgets what it holds in memory and loads the store again before it does anything else.
//
// IPv4 ranges never give out their first and last address, IPv6 ranges their first; see ring.Ring.Usable.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// Gossip is how allocators talk; the mesh implements it. Both methods may be called concurrently and keep msg.
type Gossip interface {
	// Broadcast sends delta, at most MaxDelta bytes, to everybody, sooner or later, perhaps; it does not block.
	Broadcast(delta []byte)
	// Unicast sends msg to one node. While both live it arrives, in its own time; where it cannot be sent Unicast says so. It
	// never blocks long, and must not wait for what the other does with msg.
	Unicast(to peer.ID, msg []byte) error
}

// MaxDelta is the longest delta in bytes that is passed to Gossip.Broadcast.
const MaxDelta = 1000

// Config is what an Allocator needs. Fields without a default must be set.
type Config struct {
	Self   peer.ID
	Ranges []netip.Prefix // what to give addresses of: one range a family, or several that do not overlap

	// InitPeers is how many founding nodes must meet before a range is first divided; 0 makes this node an observer, which
	// never founds. Nodes that are started together should all be told the same number, that of all of them.
	InitPeers int
	// Lazy puts off founding until the first address is wanted: for a node alone that may yet be told of others.
	Lazy bool

	Store  store.Store // open; stays the caller's to close, after Run has returned
	Gossip Gossip

	// Reachable, Members and Names are called while the Allocator is locked: they must neither call it nor wait for one who does.
	Reachable func(peer.ID) bool   // whether a node is alive and can be asked; nil: all are
	Members   func() []peer.ID     // the nodes of the network that have not left, alive or not; nil: the owners are all
	Names     func(peer.ID) string // what people call a node; nil, or an answer of "": its ID
	Logger    *slog.Logger         // nil: nothing is logged
	Now       func() time.Time     // for the Since of leases; nil: time.Now
	Rand      rand.Source          // for what is left to chance; nil: as math/rand/v2 has it. It is the Allocator's alone

	// OnFounded and OnReclaimed are called with nothing locked; they may be nil.
	OnBootstrapped func()             // a range has been divided
	OnReclaimed    func(gone peer.ID) // what that node owned has been given to another
}

// Validate returns an error that names the first field that cannot be worked with.
func (c *Config) Validate() error {
	switch {
	case c.Self.IsZero():
		return errors.New("ipam: Config.Self is not set")
	case len(c.Ranges) == 0:
		return errors.New("ipam: Config.Ranges is empty")
	case c.InitPeers < 0 || c.InitPeers > paxos.MaxAcceptors:
		return fmt.Errorf("ipam: Config.InitPeers is %d: not within 0 and %d", c.InitPeers, paxos.MaxAcceptors)
	case c.Store == nil:
		return errors.New("ipam: Config.Store is not set")
	case c.Gossip == nil:
		return errors.New("ipam: Config.Gossip is not set")
	}
	for i, cidr := range c.Ranges {
		if _, err := ring.New(cidr); err != nil {
			return fmt.Errorf("ipam: Config.Ranges: %w", err)
		}
		for _, other := range c.Ranges[:i] {
			if cidr.Overlaps(other) {
				return fmt.Errorf("ipam: Config.Ranges: %s overlaps %s", cidr, other)
			}
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Reachable == nil {
		c.Reachable = func(peer.ID) bool { return true }
	}
	if c.Names == nil {
		c.Names = func(peer.ID) string { return "" }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = globalRand{}
	}
}

// globalRand is the randomness of math/rand/v2.
type globalRand struct{}

// Uint64 implements rand.Source.
func (globalRand) Uint64() uint64 { return rand.Uint64() } //nolint:gosec // only spreads load

// jitter returns a random time below most.
func (a *Allocator) jitter(most time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Duration(a.rand.Int64N(int64(most)))
}

// Allocator gives out addresses on one node. All methods may be called concurrently, and before Run; what needs time of its
// own (founding among several nodes, an empty node's first share, free counts for the others) needs Run.
type Allocator struct {
	// Constant after New.
	cfg  Config
	wake chan struct{} // of capacity 1: tells Run to look again
	// proposing holds a token while this node proposes decrees.
	proposing chan struct{}
	pace      *rand.Rand // Run's own, so that its ticks do not depend on what operations draw

	// Atomic.
	owned  atomic.Pointer[owners] // nil before OwnerOf is first called
	counts counters

	mu sync.Mutex
	// Guarded by mu.
	pools     []*pool // one a range, in the order of Config.Ranges; replaced by load
	leases    leaseTable
	held      map[netip.Addr]string // addresses in use without a lease, by owner, as Hold was last told
	broken    error                 // why memory may differ from the store; nil while it does not
	left      bool                  // Leave has begun: nothing more is given out or asked for
	changed   chan struct{}         // closed and replaced when there is news to wait for
	out       []outgoing            // what to send once mu is released
	flights   map[flightKey]*flight
	served    map[peer.ID]served
	gone      map[peer.ID]bool // who is said to be gone for good, in the reclaim under way
	reclaims  map[reclaimKey]*reclaim
	lifted    map[reclaimKey]bool      // decrees that no longer keep this node from taking what is given
	backSince map[reclaimKey]time.Time // since when those are back that decrees are about
	balloted  map[reclaimKey]time.Time // when this node last heard of decrees, or of itself that it has part in them
	over      []peer.ID                // whom OnReclaimed is to be told of once mu is released
	rand      *rand.Rand
	heard     map[peer.ID]struct{} // who has ever sent a message: nodes that Leave may give to
}

// New returns an Allocator with what the Store holds; nothing runs yet. Where that state is of another node or another
// range the error says which, names the file and the mend, and nothing is changed.
func New(cfg Config) (*Allocator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	a := &Allocator{
		cfg:  cfg,
		wake: make(chan struct{}, 1), proposing: make(chan struct{}, 1),
		changed: make(chan struct{}),
		flights: make(map[flightKey]*flight),
		served:  make(map[peer.ID]served),
		heard:   make(map[peer.ID]struct{}),
		gone:    make(map[peer.ID]bool), reclaims: make(map[reclaimKey]*reclaim),
		lifted: make(map[reclaimKey]bool), backSince: make(map[reclaimKey]time.Time), balloted: make(map[reclaimKey]time.Time),
		rand: rand.New(cfg.Rand), //nolint:gosec // only spreads load
	}
	a.pace = rand.New(rand.NewPCG(a.rand.Uint64(), a.rand.Uint64())) //nolint:gosec // likewise
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// outgoing is a message that waits for mu to be released.
type outgoing struct {
	to   peer.ID // zero: everybody
	msg  []byte
	sent func(error) // called with what Unicast returned; may be nil
}

// do runs f with mu held, in a state that agrees with the store, and then sends what f has put out.
func (a *Allocator) do(f func() error) error {
	a.mu.Lock()
	err := a.mend()
	before := a.founded()
	if err == nil {
		err = f()
	}
	out := a.out
	a.out = nil
	founded := a.founded() != before
	over := a.over
	a.over = nil
	a.mu.Unlock()
	if founded && a.cfg.OnBootstrapped != nil {
		a.cfg.OnBootstrapped()
	}
	for _, gone := range over {
		if a.cfg.OnReclaimed != nil && err == nil {
			a.cfg.OnReclaimed(gone)
		}
	}
	for _, o := range out {
		if o.to.IsZero() {
			a.cfg.Gossip.Broadcast(o.msg)
			continue
		}
		if err := a.cfg.Gossip.Unicast(o.to, o.msg); o.sent != nil {
			o.sent(err)
		} else if err != nil {
			a.cfg.Logger.Debug("ipam: message not sent", "peer", o.to, "err", err)
		}
	}
	return err
}

// view runs f, which changes nothing, with mu held: in a state that agrees with the store, if it can be had.
func (a *Allocator) view(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.mend() // Status tells
	f()
}

// commit makes what f writes durable. After an error nobody knows whether it is; memory is out of date until mend.
func (a *Allocator) commit(f func(tx store.Tx) error) error {
	err := a.cfg.Store.Update(f)
	if err == nil {
		return nil
	}
	a.broken = err
	a.out = nil
	return fmt.Errorf("ipam: state not written: %w", err)
}

// mend loads the store again after a failed write.
func (a *Allocator) mend() error {
	if a.broken == nil {
		return nil
	}
	a.cfg.Logger.Warn("ipam: loading state again after a failed write", "err", a.broken)
	if err := a.load(); err != nil {
		return fmt.Errorf("ipam: state not written: %w; and not readable: %w", a.broken, err)
	}
	a.broken = nil
	a.notify()
	return nil
}

// notify wakes all who wait for news. The caller holds mu.
func (a *Allocator) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// poke makes Run look again at once.
func (a *Allocator) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// broadcast puts out all of delta. The caller holds mu and has had it written.
func (a *Allocator) broadcast(deltas [][]byte) {
	for _, d := range deltas {
		a.out = append(a.out, outgoing{msg: d})
	}
}

// name is what people call id.
func (a *Allocator) name(id peer.ID) string {
	if name := a.cfg.Names(id); name != "" {
		return name
	}
	return id.String()
}

// patience is how long an operation waits where its context sets no earlier deadline: nobody waits for ever.
const patience = 10 * time.Second

func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience)
}
