package vxlan

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

// Intervals at which a Controller checks the device and the peers.
const (
	sampleEvery = gap
	sampleIdle  = 3 * gap // while no frames pass: each sample is a request to the kernel
	sweepEvery  = time.Second
	keepEvery   = 2 * time.Second
	// purgeTime is how long after a peer left the kernel path frames of it may still come that way, which the kernel
	// learns wrong addresses from: until the peer has noticed as well, which takes at most as long as on this node.
	purgeTime = 3 * time.Second
)

// probeQueue is the most received probes that wait; more are dropped, which only affects peers that send too many.
const probeQueue = 256

// Backend is the device of a Controller: a Device, or a fake. Carry, Send and Sample are called from one goroutine,
// SetPeers and Ensure from a second one, and Receive from a third one. Close ends Receive.
type Backend interface {
	// SetPeers replaces the peers that may send to the device, and returns those that the device can reach.
	SetPeers(ctx context.Context, peers []Peer) (reachable []Peer, err error)
	// Carry starts or ends carrying a peer. macs are hardware addresses behind the peer, which the bridge then learns
	// at the device.
	Carry(id peer.ID, on bool, macs []ether.Addr) error
	// Send sends a probe to p.To. Errors are treated as a lost probe.
	Send(p Probe) error
	// Receive waits for a probe. The error is net.ErrClosed after Close.
	Receive() (Probe, error)
	// Sample returns the counters of the device and whether it can carry frames. The error wraps ErrGone if the device
	// was deleted.
	Sample() (Sample, error)
	// Ensure restores what other programs changed: filter, flood entries, bridge port.
	Ensure(ctx context.Context) error
	// Keep makes Close leave the device on the host, so that the kernel goes on carrying frames.
	Keep()
	Close() error
}

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
	// ProvePeer makes the router find out whether userspace reaches a peer, without waiting. If it does, LastHeard changes.
	ProvePeer(id peer.ID)
	// LastHeard returns when the peer last proved that userspace reaches it; the zero time if it never did.
	LastHeard(id peer.ID) time.Time
}

// ControllerConfig is the configuration of a Controller.
type ControllerConfig struct {
	// Device carries the peers. The Controller owns it: Run closes it.
	Device Backend
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
	case c.Device == nil:
		return fmt.Errorf("vxlan: %w: Device is missing", ErrConfig)
	case c.Self.IsZero():
		return fmt.Errorf("vxlan: %w: Self is the zero ID", ErrConfig)
	case c.Router == nil:
		return fmt.Errorf("vxlan: %w: Router is missing", ErrConfig)
	}
	return nil
}

// Controller decides for each peer whether the kernel carries it, and moves it to the device or back to userspace. Its
// methods may be called from any goroutine.
type Controller struct {
	// Constant after New.
	cfg      ControllerConfig
	log      *slog.Logger
	probes   chan Probe
	requests chan []Peer // the last SetPeers, for Run; holds one
	todo     chan []Peer // for the goroutine that programs the device; holds one
	done     chan []Peer // the peers that the device reaches

	// Owned by Run.
	latest  map[Peer]bool // of the last SetPeers
	members map[peer.ID]*member
	traffic trafficMeter
	ready   bool // whether the device could carry frames at the last sample

	// Guarded by mu, which is never held during I/O.
	mu       sync.RWMutex
	statuses map[peer.ID]*status // of the peers of the last SetPeers, and of members

	// Atomic.
	started  atomic.Bool
	kept     atomic.Bool   // Keep was called
	sent     atomic.Uint64 // probes
	received atomic.Uint64
	lost     atomic.Uint64 // received probes that found the queue full
}

// member is a peer that the device reaches.
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
	state     State     // Userspace for a peer that is no member
	kernel    bool      // the kernel carries it
	since     time.Time // of kernel; of the first SetPeers with this peer if it has not changed since
}

// New returns a Controller without peers that is idle until Run. The error wraps ErrConfig; the caller then still owns
// the Device.
func New(cfg ControllerConfig) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Controller{
		cfg: cfg, log: cfg.Logger,
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
			s = &status{state: Userspace, since: now}
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

// PeerStatus is the state of a peer that the kernel may carry.
type PeerStatus struct {
	ID peer.ID
	// State is Kernel if the kernel carries the peer. A peer that the device does not reach is in state Userspace.
	State State
	// Reached reports whether the device reaches the peer, so that probes are sent.
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

// Run moves peers until ctx ends, and then returns nil, or until the device fails: the error wraps ErrGone if the
// device was deleted. When it returns, the kernel carries no peer unless Keep was called, all goroutines have ended and the
// Device is closed. It may be called once.
func (c *Controller) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("vxlan: Run was called before")
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
			for _, m := range c.members {
				c.drop(m)
			}
		}
		return errors.Join(err, c.cfg.Device.Close()) // which ends receive
	})
	return group.Wait()
}

// Keep makes the end of Run leave the kernel path as it is, so that the kernel goes on carrying the peers without a daemon. The peers
// get no goodbye. It may be called from any goroutine.
func (c *Controller) Keep() {
	c.kept.Store(true)
	c.cfg.Device.Keep()
}

// receive passes probes to the loop until the device is closed.
func (c *Controller) receive() error {
	for {
		p, err := c.cfg.Device.Receive()
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

// loop owns the members until ctx ends or the device fails.
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
			busy, err := c.sampleDevice(time.Now())
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
