// Package carriertest has a carrier in memory, and the tests that every carrier passes.
package carriertest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// Underlay connects carriers in memory: it delivers probes and frames at once, or loses them. Its methods may be called from any goroutine.
type Underlay struct {
	mu       sync.Mutex
	carriers map[peer.ID]*Fake // guarded by mu
	broken   bool              // guarded by mu
}

// NewUnderlay returns an underlay without carriers.
func NewUnderlay() *Underlay { return &Underlay{carriers: map[peer.ID]*Fake{}} }

// Break makes the underlay lose everything, or deliver again.
func (u *Underlay) Break(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broken = on
}

// Carrier returns the carrier of a node, nil if there is none.
func (u *Underlay) Carrier(id peer.ID) *Fake {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.carriers[id]
}

// Open makes the carrier of a node, in place of an earlier one.
func (u *Underlay) Open(id peer.ID) *Fake {
	f := &Fake{underlay: u, self: id, in: make(chan carrier.Probe, 100), frames: make(chan string, 100), counts: map[peer.ID]carrier.Counts{}}
	f.State.Ready = true
	u.mu.Lock()
	defer u.mu.Unlock()
	u.carriers[id] = f
	return f
}

// Fake is a carrier in memory. It records what changes. Its methods may be called from any goroutine.
type Fake struct {
	underlay *Underlay
	self     peer.ID
	in       chan carrier.Probe
	frames   chan string // that pods receive

	mu      sync.Mutex
	closed  bool                       // guarded by mu
	kept    bool                       // guarded by mu
	peers   []peer.ID                  // guarded by mu: of SetPeers
	carried []peer.ID                  // guarded by mu
	counts  map[peer.ID]carrier.Counts // guarded by mu
	log     []string                   // guarded by mu
	State   State                      // guarded by mu: see Set
}

// State is what a test decides about a Fake.
type State struct {
	Fail   error // of Carry and SetPeers
	Ready  bool  // in samples
	Gone   bool  // another program has deleted the device
	Silent bool  // the daemon of the node neither sends probes nor receives them
	Frames uint64
}

var _ carrier.Carrier = (*Fake)(nil)

// Set changes the state of f.
func (f *Fake) Set(change func(s *State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.State)
}

// Answers reports whether the daemon of the node answers.
func (f *Fake) Answers() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.closed && !f.State.Silent
}

// Record adds a line to the log.
func (f *Fake) Record(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(format, args...)
}

// record is Record with mu held.
func (f *Fake) record(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

// Log returns the lines since the last call of Log: of Record, SetPeers and Carry.
func (f *Fake) Log() (log []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	log, f.log = f.log, nil
	return log
}

// SetPeers implements carrier.Carrier.
func (f *Fake) SetPeers(_ context.Context, peers []carrier.Peer) ([]carrier.Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record("peers %d", len(peers))
	switch {
	case f.closed:
		return nil, net.ErrClosed
	case f.State.Fail != nil:
		return nil, f.State.Fail
	}
	f.peers = nil
	for _, p := range peers {
		f.peers = append(f.peers, p.ID)
	}
	f.carried = slices.DeleteFunc(f.carried, func(id peer.ID) bool { return !slices.Contains(f.peers, id) })
	return peers, nil
}

// Carry implements carrier.Carrier.
func (f *Fake) Carry(id peer.ID, on bool, macs []ether.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record("carry %x %v %v", id[0], on, macs)
	switch {
	case f.closed:
		return net.ErrClosed
	case f.State.Gone:
		return carrier.ErrGone
	case f.State.Fail != nil:
		return f.State.Fail
	case on && !slices.Contains(f.peers, id):
		return carrier.ErrUnknownPeer
	}
	f.carried = slices.DeleteFunc(f.carried, func(other peer.ID) bool { return other == id })
	if on {
		f.carried = append(f.carried, id)
	}
	return nil
}

// Forget implements carrier.Carrier.
func (f *Fake) Forget(macs []ether.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record("forget %v", macs)
	if f.closed {
		return net.ErrClosed
	}
	return nil
}

// Send implements carrier.Carrier.
func (f *Fake) Send(p carrier.Probe) error {
	f.mu.Lock()
	closed, silent, known := f.closed, f.State.Silent, slices.Contains(f.peers, p.To)
	if known {
		f.State.Frames++
		c := f.counts[p.To]
		c.TxFrames, c.TxBytes = c.TxFrames+1, c.TxBytes+carrier.ProbeLen
		f.counts[p.To] = c
	}
	f.mu.Unlock()
	switch {
	case closed:
		return net.ErrClosed
	case !known:
		return carrier.ErrUnknownPeer
	}
	if to := f.reach(p.To); to != nil && !silent {
		to.mu.Lock()
		defer to.mu.Unlock()
		if to.takes(f.self) && !to.closed && !to.State.Silent {
			to.State.Frames++
			c := to.counts[f.self]
			c.RxFrames, c.RxBytes = c.RxFrames+1, c.RxBytes+carrier.ProbeLen
			to.counts[f.self] = c
			to.in <- p
		}
	}
	return nil
}

// Broadcast sends a frame of a pod of this node to all others that are carried.
func (f *Fake) Broadcast(content string) {
	f.mu.Lock()
	carried := slices.Clone(f.carried)
	if f.closed && !f.kept || f.State.Gone {
		carried = nil
	}
	f.mu.Unlock()
	for _, id := range carried {
		if to := f.reach(id); to != nil {
			to.mu.Lock()
			if to.takes(f.self) {
				to.frames <- content
			}
			to.mu.Unlock()
		}
	}
}

// Frames returns the channel of the frames that pods of this node receive.
func (f *Fake) Frames() <-chan string { return f.frames }

// reach returns the carrier of a peer, nil where the underlay loses what is sent there.
func (f *Fake) reach(id peer.ID) *Fake {
	f.underlay.mu.Lock()
	defer f.underlay.mu.Unlock()
	if f.underlay.broken {
		return nil
	}
	return f.underlay.carriers[id]
}

// takes reports whether f takes what comes from a node; mu is held.
func (f *Fake) takes(from peer.ID) bool {
	return (!f.closed || f.kept) && !f.State.Gone && slices.Contains(f.peers, from)
}

// Receive implements carrier.Carrier.
func (f *Fake) Receive() (carrier.Probe, error) {
	p, ok := <-f.in
	if !ok {
		return carrier.Probe{}, net.ErrClosed
	}
	return p, nil
}

// Sample implements carrier.Carrier.
func (f *Fake) Sample() (carrier.Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return carrier.Sample{}, net.ErrClosed
	case f.State.Gone:
		return carrier.Sample{}, carrier.ErrGone
	}
	return carrier.Sample{Ready: f.State.Ready, Frames: f.State.Frames}, nil
}

// Counts implements carrier.Carrier. Frames of Broadcast are not counted.
func (f *Fake) Counts() (map[peer.ID]carrier.Counts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, net.ErrClosed
	}
	return maps.Clone(f.counts), nil
}

// Ensure implements carrier.Carrier.
func (f *Fake) Ensure(context.Context) error { return nil }

// Keep implements carrier.Carrier.
func (f *Fake) Keep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = true
}

// Close implements carrier.Carrier.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.in)
	}
	return nil
}
