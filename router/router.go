// Package router is the engine of the datapath: it carries Ethernet frames between the host's TAP and the peers.
//
// A frame that leaves the host: outbound.go reads it from a TAP queue, checks it (outgoing.go), learns its source and
// finds its destinations. encode.go makes datagrams of it, sealed or plain, in place where possible (segmenter.go:
// superframes), and sends them. oversize.go handles frames that are too long for the path, path.go measures the path.
//
// A frame from a peer: inbound.go takes a datagram from a socket, finds its session, opens it, checks it, learns its
// source and passes it to the TAP (tapwriter.go). relay.go forwards datagrams for other nodes.
//
// peer.go holds everything about a peer, and the snapshot of all peers that the other files read. handshakes.go makes
// sessions, and staged.go keeps frames until there is one. liveness.go judges direct links, holepunch.go and
// reachability.go deal with NATs, control.go carries control messages. drop.go lists the reasons for which frames are
// dropped; stats.go and metrics.go publish what was counted.
//
// One goroutine owns each TAP queue, and one each socket. They share the forwarding database, the snapshot and the
// sessions, all read without a lock, and counters. No frame passes from one goroutine to another, apart from staged
// frames, which the handshake goroutine sends.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
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

// ErrConfig is wrapped by the errors of New for an invalid Config.
var ErrConfig = errors.New("bad configuration")

// vlanTag is the length of an IEEE 802.1Q tag, which an MTU does not include.
const vlanTag = 4

// Config configures an Engine.
type Config struct {
	// Private is this node's static X25519 key, from which its ID is derived.
	Private [session.KeyLen]byte
	// Cluster is the name of the network; nodes of another network make no session.
	Cluster string
	// Secrets are those that the node shares with others, the first choice first; see session.Config. Without any,
	// frames are not sealed, and only attackers that are not on the path are kept out.
	Secrets []session.Secret
	// Offer lists the ciphers that the node can use.
	Offer session.Offer
	// Trusted are the prefixes to and from which, as far as this node is concerned, frames need not be sealed. Without
	// Secrets all addresses are trusted.
	Trusted []netip.Prefix
	// Owners finds the peer that assigns an address of the overlay; nil: address queries of pods go to all peers.
	Owners AddressOwners
	// Events receives what the engine reports; nil: nothing is reported, and no dial-back is done for peers.
	Events Events
	// Device is the host's side. The engine owns it: Run closes it.
	Device tap.Device
	// Conns are the sockets: at least one, and at most one for each of the device's queues, as each writes to a queue
	// of its own. TAP queues share the sockets. Peers send to the source of a node's datagrams, so all sockets must
	// send from one address. The engine owns them: Run closes them.
	Conns []underlay.Conn
	// FDBAge is how long an address is remembered after its last frame, in steps of a second; fdb.DefaultAge if 0. A
	// shorter age finds silent addresses that have moved sooner, a longer one floods less.
	FDBAge time.Duration
	// Logger receives messages for the operator, never at a rate that frames or datagrams determine; slog.Default if
	// nil.
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// AddressOwners finds the owners of addresses of the overlay.
type AddressOwners interface {
	// OwnerOf returns the peer that assigns an address, false if it is unknown. The goroutines of the TAP queues call
	// it for every address query of a pod: it must be safe for concurrent use, and must not wait.
	OwnerOf(netip.Addr) (peer.ID, bool)
}

// Events is how an Engine reports to its owner. No lock of the engine is held during a call, so all methods of the
// Engine may be called from it.
type Events interface {
	// PlainAgreed reports that Engine.PlainAgreed has changed for a peer. The handshake goroutine calls it, one call at
	// a time, and waits for it: no session is made meanwhile.
	PlainAgreed(id peer.ID)
	// LinksChanged reports the direct links, after every change. The liveness goroutine calls it, one call at a time,
	// and waits for it: no link is probed meanwhile.
	LinksChanged(links Links)
	// ControlReceived delivers a message that a peer has sent with SendControl. The goroutines of the sockets call it:
	// it must be safe for concurrent use, must not wait, and must not keep message.
	ControlReceived(from peer.ID, to uint8, message []byte)
	// DialBack sends a datagram to an address from a port that was never used before, for a peer that tests whether it
	// is reachable. The dial-back goroutine calls it, one call at a time; it may wait for a short time.
	DialBack(to netip.AddrPort, datagram []byte)
}

// Validate returns an error that wraps ErrConfig and names the invalid field, or nil.
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
//
// Locks, in the order in which they are taken. A goroutine that holds one takes only locks below it:
//
//	lock             guards                                       taken by
//	Engine.mu        SetPeers, SetTrusted, SetKernel, Capture     callers of these
//	handshakes.mu    the session.Node                             callers of SetPeers, SetTrusted, SetSecrets and Stats;
//	                                                              the handshake and liveness goroutines
//	remotePeer.mu    staged frames, path prober and link of one   any goroutine, briefly; never two at a time, and
//	                 peer, and stores of its egress               never together with handshakes.mu
//	leaves           dialBacks.mu, holePunches.mu, duplicates.mu, any goroutine, briefly
//	                 the locks of fdb, neighbor.Table and Session
//	tapWriter.mu     writes to one TAP queue                      the goroutines of the sockets and TAP queues
//
// No lock but tapWriter.mu is held during I/O on the TAP or a socket, and none during a call of Events. The goroutines
// of the TAP queues and sockets take remotePeer.mu only for rare events (frames without a session, probes), never
// handshakes.mu or Engine.mu.
type Engine struct {
	// Constant after New.

	self       peer.ID
	device     tap.Device
	conns      []underlay.Conn
	fdb        *fdb.Table
	age        time.Duration
	tailroom   int    // bytes that may have to follow a frame: those of a tag if there are secrets
	events     Events // may be nil
	log        *slog.Logger
	now        func() time.Time
	handshakes *handshakes

	// Work for goroutines of Run. A sender that finds a queue full gives up: requests are repeated.

	probeReplies     chan probeReply
	sessionRequests  chan peer.ID
	dialBackRequests chan dialBackRequest
	linkWake         chan struct{} // holds a token while the liveness goroutine has something to do at once

	// Atomic.

	started     atomic.Bool
	peers       atomic.Pointer[snapshot]
	longest     atomic.Int64 // length of a frame in bytes: the device's MTU and the headers it does not include
	trusted     atomic.Pointer[trustList]
	keepalive   atomic.Pointer[map[peer.ID]bool] // peers with which sessions are kept; the map is immutable
	stagedBytes atomic.Int64
	drops       dropCounters
	moves       atomic.Uint64
	probes      atomic.Uint64 // probes of paths, and answers to them, received
	floods      atomic.Uint64
	relayed     relayCounters
	toTAP       frameCounters
	fromTAP     frameCounters
	transmit    batchCounters
	receive     batchCounters
	captures    atomic.Pointer[[]*Capture] // nil: none

	// With locks of their own.

	neighbors   neighbors
	duplicates  duplicates
	dialBacks   dialBacks
	holePunches holePunches

	// Guarded by mu.

	mu       sync.Mutex
	onKernel map[peer.ID]bool // the IDs of SetKernel(id, true), peers or not
}

// New returns an idle engine without peers. The error wraps ErrConfig, or is the device's; device and sockets then
// remain open, and belong to the caller.
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
	}
	trusted := &trustList{all: tailroom == 0, prefixes: slices.Clone(cfg.Trusted)}
	handshakes, err := newHandshakes(session.Config{
		Private: cfg.Private, Cluster: cfg.Cluster, Secrets: cfg.Secrets, Offer: cfg.Offer, Trusts: trusted.contains,
	})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	e := &Engine{
		self:       handshakes.node.ID(),
		device:     cfg.Device,
		conns:      cfg.Conns,
		fdb:        fdb.New(fdb.DefaultLimit, cfg.FDBAge, cfg.Now()),
		age:        cfg.FDBAge,
		tailroom:   tailroom,
		events:     cfg.Events,
		log:        cfg.Logger,
		now:        cfg.Now,
		handshakes: handshakes,

		probeReplies:     make(chan probeReply, maxProbeReplies),
		sessionRequests:  make(chan peer.ID, maxSessionRequests),
		dialBackRequests: make(chan dialBackRequest, maxDialBackRequests),
		linkWake:         make(chan struct{}, 1),

		onKernel: map[peer.ID]bool{},
	}
	e.neighbors.owners = cfg.Owners
	e.trusted.Store(trusted)
	e.keepalive.Store(&map[peer.ID]bool{})
	e.peers.Store(newSnapshot(0))
	if err := e.readMTU(); err != nil {
		return nil, err
	}
	return e, nil
}

// Run forwards frames until ctx ends, for which it returns nil, or until the device or a socket fails. When it returns,
// all its goroutines have ended and the device and the sockets are closed. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	if e.started.Swap(true) {
		return errors.New("router: Run was called before")
	}
	group, inner := errgroup.WithContext(ctx)
	queues := e.device.Queues()
	writers := make([]*tapWriter, len(queues))
	for i, q := range queues {
		writers[i] = &tapWriter{queue: q}
		group.Go(newOutbound(e, q, writers[i], e.conns[i%len(e.conns)]).run)
	}
	for i, c := range e.conns {
		group.Go(newInbound(e, c, writers[i]).run)
	}
	for _, run := range []func(context.Context){e.runHandshakes, e.runProbes, e.runLiveness, e.runDialBacks, e.runAging} {
		group.Go(func() error {
			run(inner)
			return nil
		})
	}
	group.Go(func() error {
		<-inner.Done() // closing ends the reads of the others
		return e.close()
	})
	e.log.Info("datapath runs", "tap", e.device.Name(), "queues", len(queues), "sockets", len(e.conns))
	err := group.Wait()
	if ctx.Err() != nil {
		err = nil // reads and writes failed because of the close
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

// runAging removes old entries from the forwarding database and follows the device's MTU until ctx ends. An MTU that
// cannot be read ends nothing: if the interface is gone, its queues fail.
func (e *Engine) runAging(ctx context.Context) {
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

// FDB returns the entries of the forwarding database, sorted by address; the zero ID stands for the host itself.
func (e *Engine) FDB() []fdb.Entry { return e.fdb.Entries(e.now()) }

// ReleaseMACs returns the addresses that were learned behind a peer and removes them from the forwarding database, for
// a caller that carries their frames from now on. It costs next to nothing if no frame has come from the peer since the
// last call.
func (e *Engine) ReleaseMACs(id peer.ID) []ether.Addr {
	v := e.peers.Load().byID[id]
	if v == nil {
		return nil
	}
	if frames := v.receive.frames.Load() + 1; v.released.Swap(frames) == frames {
		return nil
	}
	return e.fdb.Release(id)
}

// learn notes that mac is behind the peer where; the zero ID stands for the host itself.
func (e *Engine) learn(mac ether.Addr, where peer.ID, now time.Time) {
	if e.fdb.Learn(mac, where, now) {
		e.moves.Add(1)
		e.duplicates.noteMove(mac, where, now)
	}
}

// trustList is a set of addresses to and from which frames need not be sealed. It is immutable.
type trustList struct {
	all      bool // every address: there are no secrets
	prefixes []netip.Prefix
}

func (t *trustList) contains(addr netip.Addr) bool {
	if t.all {
		return true
	}
	addr = addr.Unmap()
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// SetTrusted replaces Config.Trusted. It does not keep the slice. It takes effect at once for the frames that this node
// sends; sessions that were agreed on otherwise are renewed.
func (e *Engine) SetTrusted(prefixes []netip.Prefix) {
	trusted := &trustList{all: e.tailroom == 0, prefixes: slices.Clone(prefixes)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusted.Store(trusted)
	for _, v := range e.peers.Load().sorted {
		v.updateEgress(func(out egress) egress { return e.egressTo(out.session, out.addr) })
	}
	e.handshakes.with(func(n *session.Node) { n.SetTrusts(trusted.contains, e.now()) })
}
