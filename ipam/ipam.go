// Package ipam allocates the addresses of one overlay network on every node of it, without a central store.
//
// A ring divides each range into tokens (package ring), of which each node changes only its own. A node allocates only
// from its own tokens, so it needs no other node while it has free addresses. The bootstrap nodes agree on the first
// division by Paxos (package paxos). A node without free addresses requests half of the largest free block of the node
// with the most.
//
// All state that a node has sent to others is in its Store before. State about other nodes is written from time to
// time: losing it costs a message, not an address. After a failed write, which may or may not be durable, the Allocator
// discards its memory and loads the Store again before it does anything else.
//
// IPv4 ranges never allocate their first and last address, IPv6 ranges their first; see ring.Ring.Usable.
package ipam

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/ipam/store"
)

// Allocator allocates addresses on one node. All methods may be called concurrently, and before Run. Work in the
// background (the bootstrap among several nodes, the first share of a node without one, the free counts for other
// nodes) needs Run.
type Allocator struct {
	// Constant after New.
	cfg  Config
	wake signal.Chan // makes the next tick of Run due at once
	pace *rand.Rand  // used by Run only, so that its ticks do not depend on the numbers that operations draw

	// Atomic.
	owned  atomic.Pointer[owners] // nil before OwnerOf is first called
	counts counters

	mu sync.Mutex
	// Guarded by mu.
	pools    []*pool // one per range, in the order of Config.Ranges; replaced by load
	leases   leaseTable
	lost     lostLeases
	held     map[netip.Addr]string // addresses in use without a lease, by holder, from the last call of Hold
	broken   error                 // why memory may differ from the store; nil while it does not
	left     bool                  // Leave has handed everything over: nothing more is allocated or requested
	changed  chan struct{}         // closed and replaced when waiting operations should look again
	out      outbox
	inFlight map[requestKey]*request
	served   map[peer.ID][]served // the latest last
	senders  map[peer.ID]struct{} // nodes that have sent a message: Leave may hand over to them
	rand     *rand.Rand
	proposer reclaimProposer // its channel is constant
	acceptor reclaimAcceptor
}

// New returns an Allocator with the state of the Store; nothing runs yet. Where that state is of another node or
// another range the error names both, the file and the remedy, and nothing is changed.
func New(cfg Config) (*Allocator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	a := &Allocator{
		cfg:      cfg,
		wake:     signal.New(),
		changed:  make(chan struct{}),
		inFlight: make(map[requestKey]*request),
		served:   make(map[peer.ID][]served),
		senders:  make(map[peer.ID]struct{}),
		rand:     rand.New(cfg.Rand), //nolint:gosec // only spreads load
		proposer: newReclaimProposer(),
		acceptor: newReclaimAcceptor(),
	}
	a.pace = rand.New(rand.NewPCG(a.rand.Uint64(), a.rand.Uint64())) //nolint:gosec // likewise
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// do runs f with mu held, in a state that agrees with the store. Then, with nothing locked, it reports the events and
// sends the messages that f has caused.
func (a *Allocator) do(f func() error) error {
	a.mu.Lock()
	err := a.reload()
	before := a.bootstrapped()
	if err == nil {
		err = f()
	}
	out := a.out.drain()
	bootstrapped := a.bootstrapped() != before
	reclaimed := a.acceptor.drainEnded()
	a.mu.Unlock()
	if bootstrapped {
		a.cfg.Events.Bootstrapped(a.ClusterIDs())
	}
	for _, dead := range reclaimed {
		a.cfg.Events.Reclaimed(dead)
	}
	a.send(out)
	return err
}

// view runs f, which changes nothing durable, with mu held: in a state that agrees with the store, if that can be read.
func (a *Allocator) view(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.reload() // reported by Status
	f()
}

// update makes the changes of f durable. After an error they may or may not be: memory is out of date until reload, and
// the messages that wait in the outbox are discarded, because they may announce changes that are not durable.
func (a *Allocator) update(f func(tx store.Tx) error) error {
	err := a.cfg.Store.Update(f)
	if err == nil {
		return nil
	}
	a.broken = err
	a.out.drain()
	return fmt.Errorf("ipam: state not written: %w", err)
}

// reload loads the store again after a failed write. The caller holds mu.
func (a *Allocator) reload() error {
	if a.broken == nil {
		return nil
	}
	a.cfg.Logger.Warn("loading state again after a failed write", "err", a.broken)
	if err := a.load(); err != nil {
		return fmt.Errorf("ipam: state not written: %w; and not readable: %w", a.broken, err)
	}
	a.broken = nil
	a.notifyWaiters()
	return nil
}

// notifyWaiters makes all waiting operations look again. The caller holds mu.
func (a *Allocator) notifyWaiters() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// jitter returns a random time below most.
func (a *Allocator) jitter(most time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Duration(a.rand.Int64N(int64(most)))
}

// name returns the name of id, or its text where it has none.
func (a *Allocator) name(id peer.ID) string {
	if name := a.cfg.Membership.Name(id); name != "" {
		return name
	}
	return id.String()
}

// patience is how long an operation waits where its context sets no earlier deadline: none waits without limit.
const patience = 10 * time.Second

func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience)
}
