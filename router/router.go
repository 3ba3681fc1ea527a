// Package router is the engine of the datapath: it carries Ethernet frames between the host's TAP and the peers.
//
// A frame that leaves the host: outbound.go reads it from a TAP queue, checks it (outgoing.go), learns its source and
// finds its destinations. encode.go makes datagrams of it, sealed or plain, in place where possible (package
// segmenter: superframes), and sends them. oversize.go handles frames that are too long for the path, path.go measures the path.
//
// A frame from a peer: inbound.go takes a datagram from a socket, finds its session, opens it, checks it, learns its
// source and passes it to the TAP (tapwriter.go). relay.go forwards datagrams for other nodes.
//
// peer.go holds everything about a peer, and the snapshot of all peers that the other files read. handshakes.go makes
// sessions, trust.go decides which of them need no seal, and staged.go keeps frames until there is one. roaming.go
// moves peers to other addresses, entropy.go sends frames from further ports. liveness.go judges direct links,
// holepunch.go and reachability.go deal with NATs, control.go carries control messages. Package drop lists the reasons
// for which frames are dropped; stats.go and metrics.go publish the counters.
//
// loop.go owns a TAP queue and a socket: one goroutine carries their frames in both directions. The loops share the
// forwarding database, the snapshot and the sessions, all read without a lock, and counters. No frame passes from one
// goroutine to another, apart from staged frames, which the handshake goroutine sends.
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
	"weft/router/counters"
	"weft/router/dialback"
	"weft/router/drop"
	"weft/router/duplicates"
	"weft/router/ecn"
	"weft/router/entropyport"
	"weft/router/fdb"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/watch"
	"weft/router/wire"
	"weft/tap"
)

// vlanTag is the length of an IEEE 802.1Q tag, which an MTU does not include.
const vlanTag = 4

// Engine forwards frames. All methods may be called from any goroutine.
//
// Locks, in the order in which they are taken. A goroutine that holds one takes only locks below it:
//
//	lock             guards                                       taken by
//	Engine.mu        SetPeers, SetTrusted, SetKernel, Stats       callers of these
//	handshakes.mu    the session.Node                             callers of SetPeers, SetTrusted, SetSecrets and Stats;
//	                                                              the handshake and liveness goroutines
//	remotePeer.mu    staged frames, path prober and link of one   any goroutine, briefly; never two at a time, and
//	                 peer, and stores of its egress               never together with handshakes.mu
//	leaves           holePunches.mu, the locks of dialback, fdb, watch,  any goroutine, briefly
//	                 duplicates, neighbor.Table and Session
//
// No lock is held during I/O on the TAP or a socket, and none during a call of Events. The loops take remotePeer.mu for
// rare events (frames without a session, probes), and once a batch while the queue of the TAP stands; never handshakes.mu or Engine.mu.
type Engine struct {
	// Constant after New.

	self       peer.ID
	device     tap.Device
	conns      []underlay.Conn
	ports      []underlay.Conn // entropy ports
	fdb        *fdb.Table
	age        time.Duration
	tosMask    uint8    // the bits of a frame's TOS that its datagrams leave with
	tailroom   int      // bytes that may have to follow a frame: those of a tag if there are secrets
	events     Events   // may be nil
	activity   Activity // may be nil
	log        *slog.Logger
	now        func() time.Time
	handshakes *handshakes

	sources     AddressOwners // nil: source addresses are not checked
	sourceCheck SourceCheck

	// Work for goroutines of Run. A sender that finds a queue full gives up: requests are repeated.

	probeReplies     chan probeReply
	sessionRequests  chan peer.ID
	dialBackRequests chan dialBackRequest
	endpointProbes   chan peer.ID
	portProbes       chan peer.ID
	linkWake         chan struct{} // holds a token while the liveness goroutine has something to do at once

	// Atomic.

	flows       entropyport.Flows // that leave from the ports
	started     atomic.Bool
	peers       atomic.Pointer[snapshot]
	longest     atomic.Int64 // length of a frame in bytes: the device's MTU and the headers it does not include
	mtu         atomic.Int64 // of packets to peers in bytes, as SetMTU has set it; 0: that of the device
	trusted     atomic.Pointer[session.TrustList]
	keepalive   atomic.Pointer[map[peer.ID]bool] // peers with which sessions are kept; the map is immutable
	dialOut     atomic.Bool                      // this node can only dial out
	ownAddr     atomic.Pointer[netip.Addr]       // by which peers know this node; never nil
	stagedBytes atomic.Int64
	drops       drop.Counters
	moves       atomic.Uint64
	probes      atomic.Uint64 // probes of paths, and answers to them, received
	floods      atomic.Uint64
	relayed     relayCounters
	toTAP       counters.Frames
	fromTAP     counters.Frames
	transmit    counters.Batches
	receive     counters.Batches

	// With locks of their own.

	neighbors   neighbors
	duplicates  duplicates.Table
	dialBacks   dialback.Table
	holePunches holePunches
	watchers    watch.Set

	// Guarded by mu.

	mu       sync.Mutex
	onKernel map[peer.ID]bool // the IDs of SetKernel(id, true), peers or not
	left     PeerTotals       // of the peers that have left
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
	trusted := trustedBy(cfg.Trusted, tailroom)
	handshakes, err := newHandshakes(session.Config{
		Private: cfg.Private, Cluster: cfg.Cluster, Secrets: cfg.Secrets, Offer: cfg.Offer, StandardAES: cfg.StandardAES, Trusted: trusted,
	})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	e := &Engine{
		self:       handshakes.node.ID(),
		device:     cfg.Device,
		conns:      cfg.Conns,
		ports:      cfg.EntropyPorts,
		fdb:        fdb.New(fdb.DefaultLimit, cfg.FDBAge, cfg.Now()),
		age:        cfg.FDBAge,
		tosMask:    ecn.OuterMask(cfg.CopyDSCP),
		tailroom:   tailroom,
		events:     cfg.Events,
		activity:   cfg.Activity,
		log:        cfg.Logger,
		now:        cfg.Now,
		handshakes: handshakes,

		probeReplies:     make(chan probeReply, maxProbeReplies),
		sessionRequests:  make(chan peer.ID, maxSessionRequests),
		dialBackRequests: make(chan dialBackRequest, maxDialBackRequests),
		endpointProbes:   make(chan peer.ID, maxEndpointProbes),
		portProbes:       make(chan peer.ID, maxPortProbes),
		linkWake:         make(chan struct{}, 1),

		onKernel: map[peer.ID]bool{},
	}
	e.neighbors.owners = cfg.Owners
	if cfg.SourceCheck == SourceLog || cfg.SourceCheck == SourceEnforce {
		e.sources, e.sourceCheck = cfg.Sources, cfg.SourceCheck
	}
	e.trusted.Store(&trusted)
	e.keepalive.Store(&map[peer.ID]bool{})
	e.ownAddr.Store(&netip.Addr{})
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
	loops, err := e.newLoops()
	if err != nil {
		return errors.Join(err, e.close())
	}
	group, inner := errgroup.WithContext(ctx)
	for _, l := range loops {
		group.Go(l.run)
	}
	if len(e.ports) > 0 {
		group.Go(e.runEntropyPorts)
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
	e.log.Info("datapath runs", "tap", e.device.Name(), "queues", len(loops), "sockets", len(e.conns), "entropyPorts", len(e.ports))
	err = group.Wait()
	if ctx.Err() != nil {
		err = nil // reads and writes failed because of the close
	}
	return err
}

func (e *Engine) close() error {
	errs := []error{e.device.Close()}
	for _, c := range slices.Concat(e.conns, e.ports) {
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

// SetMTU limits packets to peers to mtu bytes, where the device takes longer ones: pods may have a larger MTU than their underlay
// allows. Their senders get ICMP messages. 0: the limit is the device's MTU. It also makes the engine read that MTU anew.
func (e *Engine) SetMTU(mtu int) error {
	e.mtu.Store(int64(mtu))
	if err := e.readMTU(); err != nil {
		return err
	}
	now := e.now()
	for _, v := range e.peers.Load().sorted {
		v.setMaxDatagram(e.maxDatagramTo(v), now)
	}
	return nil
}

// Duplicate is an address that seems to be in use twice.
type Duplicate = duplicates.Duplicate

// Duplicates returns the addresses that seem to be in use twice, or did so lately, the latest first.
func (e *Engine) Duplicates() []Duplicate { return e.duplicates.List(e.now()) }

// FDB returns the entries of the forwarding database, sorted by address; the zero ID stands for the host itself.
func (e *Engine) FDB() []fdb.Entry { return e.fdb.Entries(e.now()) }

// ReleaseMACs returns the addresses that were learned behind a peer and removes them from the forwarding database, for a caller that
// carries their frames from now on. It costs next to nothing if no frame has come from the peer since the last call.
func (e *Engine) ReleaseMACs(id peer.ID) []ether.Addr {
	v := e.peers.Load().byID[id]
	if v == nil {
		return nil
	}
	if frames := v.receive.Frames.Load() + 1; v.released.Swap(frames) == frames {
		return nil
	}
	return e.fdb.Release(id)
}

// MovedMACs returns those of macs that the router has learned elsewhere than behind a peer, as they have moved since ReleaseMACs.
func (e *Engine) MovedMACs(id peer.ID, macs []ether.Addr) []ether.Addr {
	return e.fdb.Elsewhere(macs, id, e.now())
}

// learn notes that mac is behind the peer where; the zero ID stands for the host itself.
func (e *Engine) learn(mac ether.Addr, where peer.ID, now time.Time) {
	if e.fdb.Learn(mac, where, now) {
		e.moves.Add(1)
		e.duplicates.NoteMove(mac, where, now)
	}
}
