package vxlan

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/ether"
	"weft/internal/peer"
)

// How often a Switch looks at the device, and at what is left to do for the peers.
const (
	sampleEvery = gap
	sampleIdle  = 3 * gap // while no frames pass: it costs a question to the kernel
	sweepEvery  = time.Second
	keepEvery   = 10 * time.Second
	// settling is how long after a peer has left the kernel path its frames may still come that way, and teach the
	// kernel what is no longer so: until the peer has noticed as well, which takes it as long as this node at most.
	settling = 3 * time.Second
)

// probeQueue is how many received probes may wait; more are lost, which is what a sender of too many gets.
const probeQueue = 256

// Carrier is what a Switch drives: a Device, or a fake.
type Backend interface {
	SetPeers(ctx context.Context, peers []Peer) (reachable []Peer, err error)
	Carry(id peer.ID, on bool, macs []ether.Addr) error
	Send(p Probe) error
	Receive() (Probe, error)
	Sample() (Sample, error)
	Ensure(ctx context.Context) error
	Close() error
}

// SwitchConfig is what a Switch is made of.
type ControllerConfig struct {
	// Device is what carries. The Switch owns it: Run closes it.
	Device Backend
	// Self is this node's own ID.
	Self peer.ID
	// OnChange tells that from now on the peer is carried by the kernel, or no longer. It is called by one goroutine,
	// which waits for it, after the kernel has begun and before it ends: what goes to everybody meanwhile reaches the
	// peer twice, and not never.
	OnChange func(id peer.ID, kernel bool)
	// Take returns the addresses that the router has learned behind a peer and has it forget them: the kernel knows
	// better from now on. It is called before a peer is moved, and every few seconds after that, for what still came
	// through userspace because the other side moved later. It may be nil.
	Take func(id peer.ID) []ether.Addr
	// Logger takes what an operator should read, never at a rate that frames set; slog.Default where nil.
	Logger *slog.Logger
}

// Validate returns an error that wraps ErrConfig and names the field that is wrong, or nil.
func (c ControllerConfig) Validate() error {
	switch {
	case c.Device == nil:
		return fmt.Errorf("vxlan: %w: Device is missing", ErrConfig)
	case c.Self.IsZero():
		return fmt.Errorf("vxlan: %w: Self is the zero ID", ErrConfig)
	case c.OnChange == nil:
		return fmt.Errorf("vxlan: %w: OnChange is missing", ErrConfig)
	}
	return nil
}

// Switch decides for each peer whether the kernel carries it, and has it so. Its methods may be called from any
// goroutine.
type Controller struct {
	// Constant after New.
	cfg    ControllerConfig
	log    *slog.Logger
	probes chan Probe
	wanted chan []Peer // the latest of SetPeers, for Run; holds one
	todo   chan []Peer // for the programming goroutine; holds one
	done   chan []Peer // what the device reaches now

	// Owned by Run.
	latest  map[Peer]bool // of SetPeers
	members map[peer.ID]*member
	traffic trafficMeter
	ready   bool // the device could carry frames at the last look

	// Guarded by mu.
	mu     sync.Mutex
	states map[peer.ID]State

	// Atomic.
	started  atomic.Bool
	sent     atomic.Uint64 // probes
	received atomic.Uint64
	lost     atomic.Uint64 // received probes for which there was no room
}

// member is a peer that the device reaches.
type member struct {
	Peer
	path   *Path
	kernel bool      // the kernel carries it
	left   time.Time // when it last ceased to
}

// New returns a Switch that is idle and knows no peers. The error wraps ErrConfig; the Device then is still the caller's.
func New(cfg ControllerConfig) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Take == nil {
		cfg.Take = func(peer.ID) []ether.Addr { return nil }
	}
	return &Controller{
		cfg: cfg, log: cfg.Logger,
		probes: make(chan Probe, probeQueue),
		wanted: make(chan []Peer, 1), todo: make(chan []Peer, 1), done: make(chan []Peer, 1),
		members: map[peer.ID]*member{}, states: map[peer.ID]State{},
	}, nil
}

// SetPeers replaces the peers that are to be carried by the kernel where that works by peers, which the Switch does not
// keep. Those that must be sealed or relayed, or cannot take part, are not among them. It does not wait.
func (s *Controller) SetPeers(peers []Peer) { offer(s.wanted, append([]Peer(nil), peers...)) }

// offer puts v into a channel of one place, instead of what may be there.
func offer[T any](c chan T, v T) {
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

// States returns how far each peer has come that the device reaches.
func (s *Controller) States() map[peer.ID]State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.states)
}

// ProbeStats counts probes since New.
type ProbeStats struct {
	Sent, Received uint64
	// Lost are those received of which there were too many at once.
	Lost uint64
}

// ProbeStats returns what was counted.
func (s *Controller) ProbeStats() ProbeStats {
	return ProbeStats{Sent: s.sent.Load(), Received: s.received.Load(), Lost: s.lost.Load()}
}

// Run moves peers until ctx ends, which it returns nil for, or until the device fails: the error wraps ErrGone where
// somebody has deleted it. When it returns no peer is carried by the kernel, all goroutines have ended and the Device
// is closed. It may be called once.
func (s *Controller) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("vxlan: Run was called before")
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(s.receive)
	group.Go(func() error {
		s.program(inner)
		return nil
	})
	group.Go(func() error {
		err := s.loop(inner)
		for _, m := range s.members {
			s.drop(m)
		}
		return errors.Join(err, s.cfg.Device.Close()) // which ends receive
	})
	return group.Wait()
}

// receive hands probes to the loop until the device is closed.
func (s *Controller) receive() error {
	for {
		p, err := s.cfg.Device.Receive()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		s.received.Add(1)
		select {
		case s.probes <- p:
		default:
			s.lost.Add(1)
		}
	}
}

// loop owns the members until ctx ends or the device fails.
func (s *Controller) loop(ctx context.Context) error {
	sample, sweep := time.NewTicker(sampleEvery), time.NewTicker(sweepEvery)
	defer sample.Stop()
	defer sweep.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case peers := <-s.wanted:
			s.leave(peers)
			offer(s.todo, peers)
		case peers := <-s.done:
			s.join(peers, time.Now())
		case p := <-s.probes:
			s.take(p, time.Now())
		case <-timer.C:
			s.advance(time.Now())
		case <-sample.C:
			busy, err := s.look(time.Now())
			if err != nil {
				return err
			}
			if busy {
				sample.Reset(sampleEvery)
			} else {
				sample.Reset(sampleIdle)
			}
		case <-sweep.C:
			s.sweep(time.Now())
		}
		timer.Reset(s.wait(time.Now()))
	}
}

// wait returns how long there is nothing to do for any path.
func (s *Controller) wait(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, m := range s.members {
		if due := m.path.Due(); due.Before(next) {
			next = due
		}
	}
	return next.Sub(now)
}

// random returns a number that nobody can guess.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}
