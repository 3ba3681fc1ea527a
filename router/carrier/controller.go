package carrier

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Intervals at which a Controller checks the carrier and the peers.
const (
	sampleEvery = gap
	sampleIdle  = 3 * gap // while no frames pass: each sample is a request to the kernel
	sweepEvery  = time.Second
	keepEvery   = 2 * time.Second
	// purgeTime is how long after a peer left the carrier frames of it may still come that way, which the kernel
	// learns wrong addresses from: until the peer has noticed as well, which takes at most as long as on this node.
	purgeTime = 3 * time.Second
)

// probeQueue is the most received probes that wait; more are dropped, which only affects peers that send too many.
const probeQueue = 256

// Router is the datapath in userspace, which carries the peers that the kernel does not carry; *router.Engine is one.
// Run calls its methods from one goroutine, one at a time, and waits for them. They may call Carries, Peers and
// SetPeers of the Controller.
type Router interface {
	// SetKernel sets whether the kernel carries a peer. The Controller calls it after the kernel has begun to carry the
	// peer, and before the kernel ends: in between, frames for all peers reach the peer twice, but are never lost.
	SetKernel(id peer.ID, on bool)
	// ReleaseMACs returns the hardware addresses that the router learned behind a peer, and makes the router forget
	// them, as the kernel carries their frames from now on. It is called before a peer is moved to the kernel, and
	// every few seconds after that, as frames may still have come through userspace if the other side moved later.
	ReleaseMACs(id peer.ID) []ether.Addr
	// MovedMACs returns those of macs, which ReleaseMACs has returned for a peer, that the router has learned elsewhere since.
	MovedMACs(id peer.ID, macs []ether.Addr) []ether.Addr
	// ProvePeer makes the router find out whether userspace reaches a peer, without waiting. If it does, LastHeard changes.
	ProvePeer(id peer.ID)
	// LastHeard returns when the peer last proved that userspace reaches it; the zero time if it never did.
	LastHeard(id peer.ID) time.Time
}

// ControllerConfig is the configuration of a Controller.
type ControllerConfig struct {
	// Carrier carries the peers. The Controller owns it: Run closes it.
	Carrier Carrier
	// Kind of the carrier, for messages.
	Kind Kind
	// Self is this node's own ID.
	Self peer.ID
	// Router is informed of every move.
	Router Router
	// Logger receives messages for operators, never at a rate that depends on frames; nil stands for slog.Default.
	Logger *slog.Logger
}

// Validate returns an error that wraps ErrConfig and names the invalid field, or nil.
func (c ControllerConfig) Validate() error {
	switch {
	case c.Carrier == nil:
		return fmt.Errorf("carrier: %w: Carrier is missing", ErrConfig)
	case c.Self.IsZero():
		return fmt.Errorf("carrier: %w: Self is the zero ID", ErrConfig)
	case c.Router == nil:
		return fmt.Errorf("carrier: %w: Router is missing", ErrConfig)
	}
	return nil
}

// Controller decides for each peer whether the kernel carries it, and moves it to the carrier or back to userspace. Its
// methods may be called from any goroutine.
type Controller struct {
	// Constant after New.
	cfg      ControllerConfig
	log      *slog.Logger
	probes   chan Probe
	requests chan []Peer // the last SetPeers, for Run; holds one
	todo     chan []Peer // for the goroutine that programs the carrier; holds one
	done     chan []Peer // the peers that the carrier reaches

	// Owned by Run.
	latest  map[Peer]bool // of the last SetPeers
	members map[peer.ID]*member
	traffic trafficMeter
	ready   bool // whether the carrier could carry frames at the last sample

	// Guarded by mu, which is never held during I/O.
	mu       sync.RWMutex
	statuses map[peer.ID]*status // of the peers of the last SetPeers, and of members

	// Atomic.
	started  atomic.Bool
	why      atomic.Pointer[string] // Sample.Why of the last sample; nil: there was none
	kept     atomic.Bool            // Keep was called
	sent     atomic.Uint64          // probes
	received atomic.Uint64
	lost     atomic.Uint64 // received probes that found the queue full
}

// member is a peer that the carrier reaches.
type member struct {
	Peer
	path   *Path
	kernel bool      // the kernel carries it
	kept   bool      // the same, although it does not answer
	left   time.Time // when the kernel last ceased to carry it
}

// status is the published state of a peer.
type status struct {
	requested bool      // is a peer of the last SetPeers
	member    bool      // is a member; state is that of its path
	state     State     // Paused for a peer that is no member
	kernel    bool      // the kernel carries it
	since     time.Time // of kernel; of the first SetPeers with this peer if it has not changed since
}

// New returns a Controller without peers that is idle until Run. The error wraps ErrConfig; the caller then still owns
// the Carrier.
func New(cfg ControllerConfig) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Controller{
		cfg: cfg, log: cfg.Logger.With("carrier", cfg.Kind),
		probes:   make(chan Probe, probeQueue),
		requests: make(chan []Peer, 1), todo: make(chan []Peer, 1), done: make(chan []Peer, 1),
		members: map[peer.ID]*member{}, statuses: map[peer.ID]*status{},
	}, nil
}

// SetPeers replaces the peers that the kernel may carry. Peers that must be sealed or relayed, or cannot take part, are
// not among them. It does not keep peers, and does not wait.
func (c *Controller) SetPeers(peers []Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setRequested(peers, time.Now())
	replace(c.requests, slices.Clone(peers)) // which does not wait
}

// setRequested sets which statuses are those of requested peers. mu is held.
func (c *Controller) setRequested(peers []Peer, now time.Time) {
	for _, s := range c.statuses {
		s.requested = false
	}
	for _, p := range peers {
		s := c.statuses[p.ID]
		if s == nil {
			s = &status{state: Paused, since: now}
			c.statuses[p.ID] = s
		}
		s.requested = true
	}
	for id, s := range c.statuses {
		if !s.requested && !s.member {
			delete(c.statuses, id)
		}
	}
}

// replace puts v into a channel that holds one value, instead of the value that may be in it.
func replace[T any](c chan T, v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select {
		case <-c:
		default:
		}
	}
}

// Carries reports whether the kernel carries frames to a peer. It is cheap.
func (c *Controller) Carries(id peer.ID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.statuses[id]
	return s != nil && s.kernel
}

// Obstacle returns why the carrier cannot carry frames, as far as it knows more than that its device is down; empty otherwise.
func (c *Controller) Obstacle() string {
	if why := c.why.Load(); why != nil {
		return *why
	}
	return ""
}

// PeerStatus is the state of a peer that the kernel may carry.
type PeerStatus struct {
	ID peer.ID
	// State is Carrying if the kernel carries the peer. A peer that the carrier does not reach is in state Paused.
	State State
	// Reached reports whether the carrier reaches the peer, so that probes are sent.
	Reached bool
	// Since is when the peer was last moved to the kernel or back to userspace; before its first move, the time of the
	// SetPeers that added it.
	Since time.Time
}

// Peers returns the peers of the last SetPeers with their state, sorted by ID.
func (c *Controller) Peers() (list []PeerStatus) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for id, s := range c.statuses {
		if s.requested {
			list = append(list, PeerStatus{ID: id, State: s.state, Reached: s.member, Since: s.since})
		}
	}
	slices.SortFunc(list, func(a, b PeerStatus) int { return a.ID.Compare(b.ID) })
	return list
}

// ProbeStats counts probes since New.
type ProbeStats struct {
	Sent, Received uint64
	// Lost are received probes that were dropped because too many came at once.
	Lost uint64
}

// ProbeStats returns the counters of probes.
func (c *Controller) ProbeStats() ProbeStats {
	return ProbeStats{Sent: c.sent.Load(), Received: c.received.Load(), Lost: c.lost.Load()}
}

// Run moves peers until ctx ends, and then returns nil, or until the carrier fails: the error wraps ErrGone if the
// device was deleted. When it returns, the kernel carries no peer unless Keep was called, all goroutines have ended and the
// Carrier is closed. It may be called once.
func (c *Controller) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("carrier: Run was called before")
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(c.receive)
	group.Go(func() error {
		c.program(inner)
		return nil
	})
	group.Go(func() error {
		err := c.loop(inner)
		if !c.kept.Load() {
			c.end()
		}
		return errors.Join(err, c.cfg.Carrier.Close()) // which ends receive
	})
	return group.Wait()
}

// Keep makes the end of Run leave the carrier as it is, so that the kernel goes on carrying the peers without a daemon. The peers
// get no goodbye. It may be called from any goroutine.
func (c *Controller) Keep() {
	c.kept.Store(true)
	c.cfg.Carrier.Keep()
}

// receive passes probes to the loop until the carrier is closed.
func (c *Controller) receive() error {
	for {
		p, err := c.cfg.Carrier.Receive()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		c.received.Add(1)
		select {
		case c.probes <- p:
		default:
			c.lost.Add(1)
		}
	}
}

// loop owns the members until ctx ends or the carrier fails.
func (c *Controller) loop(ctx context.Context) error {
	sample, sweep := time.NewTicker(sampleEvery), time.NewTicker(sweepEvery)
	defer sample.Stop()
	defer sweep.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case peers := <-c.requests:
			c.dropOthers(peers)
			replace(c.todo, peers)
		case peers := <-c.done:
			c.setReachable(peers, time.Now())
		case p := <-c.probes:
			c.receiveProbe(p, time.Now())
		case <-timer.C:
			c.advancePaths(time.Now())
		case <-sample.C:
			busy, err := c.sample(time.Now())
			if err != nil {
				return err
			}
			if busy {
				sample.Reset(sampleEvery)
			} else {
				sample.Reset(sampleIdle)
			}
		case <-sweep.C:
			c.sweep(time.Now())
		}
		timer.Reset(c.untilDue(time.Now()))
	}
}

// untilDue returns how long no path has work.
func (c *Controller) untilDue(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, m := range c.members {
		if due := m.path.Due(); due.Before(next) {
			next = due
		}
	}
	return next.Sub(now)
}

// random returns an unpredictable number.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}
