// Package datapath runs the overlay's datapath on this host: the bridge, the TAP on it, the router behind the TAP, the kernel
// path beside it, and the rules that let pods leave the overlay. It keeps all of them in repair.
//
//	open.go      makes bridge, TAP, router and kernel path, and undoes it on failure
//	reconcile.go restores what other programs change: bridge, ports, addresses, settings
//	rules.go     restores nftables rules
//	repair.go    the kinds of repairs, for metrics
//	clear.go     removes everything, for a node that leaves
//	address.go   addresses of the bridge
//	underlay.go  the address of this node and its changes
//	mtu.go       the MTU of pods, bridge and TAP, and its changes
//	guard.go     what ports of the bridge may send; inward.go: packets from outside the overlay
//	nodeports.go the ports of nodes, which are closed to pods
//	kernel.go    the kernel path: its devices, their controllers, and which peers they may carry; kernelpaths.go: all of them together
//	carriers.go  the kinds of carriers; tunnels.go, direct.go: WireGuard and direct routing
//	vni.go       the VNI of the kernel path, on which the nodes agree
//	security.go  secrets and trusted subnets: which peers need a seal
//	pairs.go     ways of the kernel for two nodes alone; reach.go: whether other nodes reach this one
//	findings.go  what is wrong, for the status
//
// The package knows other nodes by the values that Membership returns. It gets everything that it needs by New; other parts of
// the node call its methods from any goroutine.
package datapath

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

	"weft/internal/cpulatency"
	"weft/internal/ether"
	"weft/internal/exposure"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/inward"
	"weft/internal/pairs"
	"weft/internal/peer"
	"weft/internal/reach"
	"weft/internal/repairs"
	"weft/internal/settings"
	"weft/internal/signal"
	"weft/internal/tunnels"
	"weft/mesh/topology"
	"weft/router"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
	"weft/router/session"
	"weft/router/underlay"
	"weft/tap/virtio"
)

// Member is what the datapath knows about another node that is alive.
type Member struct {
	router.Peer
	Name  string
	Hops  int           // nodes on the way to it, the last included; 1: direct, 0: it cannot be reached
	RTT   time.Duration // as gossip measures it; 0: not known
	Offer session.Offer // ciphers that it would use
	VNI   uint32        // of the VXLAN frames that it accepts; 0: it accepts none
	// Direct is what it publishes for direct routing (package direct); empty: it takes no part. The slice is shared and must not be modified.
	Direct []byte
	// Gateway is the MAC of its bridge, if answers to clients outside of the overlay go back to it (package inward); zero otherwise.
	Gateway ether.Addr
}

// Membership is the cluster as the datapath sees it. Methods may be called from any goroutine and must not call the Datapath.
type Membership interface {
	// Members returns the other nodes that are alive.
	Members() []Member
	// Member returns one of them. It must not wait.
	Member(peer.ID) (Member, bool)
	// Addrs returns the addresses of the other nodes, those that are alive and those that do not answer, each at least once.
	Addrs() []netip.Addr
	// Dead reports whether a node does not answer any more, has not left, and was not shut out. It must not wait.
	Dead(peer.ID) bool
	// NodeName returns the name of any node, this one included; empty: not known. It must not wait.
	NodeName(peer.ID) string
}

// Gossip is where the datapath publishes what it learns about links and which frames it accepts, and delivers gossip that arrived
// through sessions. Methods are called by the router's goroutines and must not block.
type Gossip interface {
	SetLinks(topology.Links)
	// SetVNI publishes the VNI of the VXLAN frames that this node accepts; 0: none.
	SetVNI(uint32)
	// SetDirect publishes what direct routing to this node needs (package direct); empty: it takes no part.
	SetDirect([]byte)
	// SetGateway publishes the MAC of the bridge as Member.Gateway; zero: none.
	SetGateway(ether.Addr)
	FromTunnel(from peer.ID, message []byte)
}

// Leases are the leases of this node. Methods may be called from any goroutine and must not call the Datapath.
type Leases interface {
	// HostAddresses returns the addresses that are leased to the bridge, which the datapath restores after a reboot or a repair.
	HostAddresses() []netip.Prefix
	// ProbeAddresses returns the addresses that are leased for the probes of direct routing.
	ProbeAddresses() []netip.Addr
	// PodLinks returns the names of the host ends of pods with leases, whether they exist or not.
	PodLinks() []string
}

// Shares knows how the addresses of the overlay are divided. The method may be called from any goroutine, does not wait, and must not call
// the Datapath.
type Shares interface {
	// Shares returns what each node owns. The caller must not change it.
	Shares() map[peer.ID][]netip.Prefix
}

// AddressObserver learns the addresses that the bridge has inside the overlay's ranges: after each change, and periodically. It
// may be called from any goroutine.
type AddressObserver interface {
	SetAddrs([]netip.Addr)
}

// Config is what a Datapath is made of. All fields but Owners, Sources, Observer and Logger are required.
type Config struct {
	Self     peer.ID
	Private  [session.KeyLen]byte // static X25519 key of the node
	Cluster  string               // name of the network; nodes of another one make no session
	Settings settings.Config      // valid; Queues is at least 1
	// Advertise is the address that the other nodes know this node by; MTU is that of pods, in bytes. Both are those of the start:
	// SetUnderlay changes them.
	Advertise netip.Addr
	MTU       int

	Secrets []session.Secret // the preferred one first; none: frames are not sealed
	Trusted []netip.Prefix   // subnets to which frames need not be sealed

	Membership Membership
	Gossip     Gossip
	Tunnel     *Tunnel
	Owners     router.AddressOwners // nil: questions for addresses go to all nodes
	Sources    router.AddressOwners // nil: source addresses of frames from peers are not checked
	Addresses  Leases
	Shares     Shares
	Guards     *guard.Store    // which ports are bound to pods
	Exposure   *exposure.Store // what was asked for packets from outside the overlay
	Observer   AddressObserver // nil: none
	Logger     *slog.Logger    // nil: nothing is logged
}

// Datapath is the datapath of this node. New makes it and binds its sockets; Run brings it up.
type Datapath struct {
	// constant after New
	cfg          Config
	settings     *settings.Config
	log          *slog.Logger
	conns        []*underlay.UDP // one a queue
	entropyPorts []*underlay.UDP // one a queue, or none (settings.Config.EntropyPorts)
	reach        *reach.Reach
	tunnels      *tunnels.Tunnels
	pairs        *pairs.Pairs
	resize       signal.Chan // set when the MTU of pods has changed
	guards       *guards
	ports        *nodePorts
	inward       *inward.Keeper
	peers        signal.Chan   // set when the other nodes may have changed
	started      chan struct{} // closed once the datapath is up

	// atomic
	current         atomic.Pointer[engines]          // nil until the datapath is up
	secrets         atomic.Pointer[[]session.Secret] // never nil
	trusted         atomic.Pointer[[]netip.Prefix]   // never nil
	unauthenticated health.Lately                    // handshakes without a common secret
	broadcasts      health.Lately                    // frames of pods that were dropped
	rulesErr        atomic.Pointer[error]            // why pods cannot leave the overlay; nil: not tried yet, pointer to nil: they can
	underlay        atomic.Pointer[Underlay]         // never nil
	mtus            mtuState
	vni             atomic.Uint32 // of the kernel path's device, as it is published; 0: none
	vniWaits        atomic.Bool   // the others have agreed on another one, and vniPace makes this node wait

	repairs repairs.Log // has a lock of its own

	direct directState

	had sync.Map // of netip.Addr: the addresses that the bridge has had

	// hostMu serializes changes of the host, so that a repair does not restore what Clear removes.
	hostMu  sync.Mutex
	cleared bool // guarded by hostMu: Clear was called

	syncMu sync.Mutex // serializes SyncPeers
	// guarded by syncMu: the members that each carrier of the kernel may carry since the last SyncPeers
	kernelMembers map[carrier.Kind]map[peer.ID]Member
	vniPace       vxlan.Pace // guarded by syncMu

	// securityMu serializes changes of secrets and trusted subnets until the router has them. No other lock of this package is
	// taken while it is held.
	securityMu sync.Mutex
}

// engines are what runs while the datapath is up. The fields are constant, apart from keeperErr.
type engines struct {
	router   *router.Engine
	features virtio.Features // what the TAP's kernel and the router leave undone for each other
	kernel   kernelPaths

	bridgeMade bool // there was no bridge before

	keeper *cpulatency.Keeper // nil: CPUs may sleep

	keeperErr atomic.Pointer[error] // why --busy-poll has no effect; nil: it has, or is off
}

// New binds the data sockets and returns a Datapath that is idle. Close releases the sockets if Run is never called.
func New(cfg Config) (*Datapath, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Datapath{cfg: cfg, settings: &cfg.Settings, log: cfg.Logger, started: make(chan struct{}), resize: signal.New(), peers: signal.New()}
	d.reach = reach.New(reachHost{cfg.Membership, cfg.Gossip}, d.log)
	d.pairs = pairs.New(pairs.Config{Port: d.settings.KernelPort(), Channel: controlPair, Host: pairHost{d}, Logger: d.log})
	d.kernelMembers = map[carrier.Kind]map[peer.ID]Member{}
	d.tunnels = tunnels.New(tunnels.Config{
		Self: cfg.Self, Port: d.settings.TunnelPort(), Channel: controlTunnel, Host: tunnelHost{d}, Logger: d.log,
	})
	d.guards = &guards{store: cfg.Guards, d: d}
	d.ports = &nodePorts{d: d}
	d.inward = inward.New(inward.Config{
		Ranges: d.settings.Ranges, Bridge: d.settings.Bridge, Uplinks: d.uplinks(), Modes: cfg.Exposure, Nodes: inwardNodes{cfg.Gossip, d},
		Logger: d.log,
	})
	d.secrets.Store(&cfg.Secrets)
	d.trusted.Store(&cfg.Trusted)
	d.keepVNI()
	local, err := hostnet.IsLocal(cfg.Advertise)
	if err != nil {
		return nil, fmt.Errorf("datapath: %w", err)
	}
	d.underlay.Store(&Underlay{Addr: cfg.Advertise, Local: local, MTU: cfg.MTU})
	off := cfg.Settings.Offload == settings.OffloadOff
	socket := underlay.Config{
		Port: cfg.Settings.DataPort(), Source: d.underlay.Load().source(), DontFragment: true, NoGSO: off, NoGRO: off, Reports: d,
	}
	if d.conns, err = underlay.ListenQueues(socket, cfg.Settings.Queues); err != nil {
		return nil, err
	}
	if n := cfg.Settings.EntropyPorts(); n > 0 {
		if d.entropyPorts, err = underlay.ListenEntropy(socket, n); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// Close closes the sockets of a Datapath that was not run.
func (d *Datapath) Close() error {
	var errs []error
	for _, c := range d.Sockets() {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Prepare removes what an earlier run without a secret has left on the host, before a node with a secret sends anything: from
// then on nothing leaves unsealed. Without a secret it removes a device of an earlier run that has lost its filter.
func (d *Datapath) Prepare(ctx context.Context) error {
	if d.sealed() {
		return d.removeKernelPath(ctx, false)
	}
	removed, err := vxlan.RemoveUnfiltered(ctx, d.settings.KernelDevice())
	if removed || err != nil {
		d.log.Warn("the kernel path of an earlier run has no filter any more", "removed", removed, "err", err)
	}
	return nil
}

// Run brings the datapath up and runs it until ctx ends, which leaves bridge, pods and addresses as they are, or until an engine
// fails. It may be called once. A Run that fails to bring the datapath up undoes its changes of the host.
func (d *Datapath) Run(ctx context.Context) error {
	_ = d.guards.Apply(ctx) // before the first frame: rules match ports by name
	_ = d.ports.Apply(ctx)
	e, err := d.open(ctx)
	if err != nil {
		return errors.Join(err, d.guards.undo(ctx), d.ports.undo(ctx), d.Close()) // the router, which owns the sockets from now on, does not run
	}
	d.securityMu.Lock()
	d.current.Store(e)
	d.cfg.Tunnel.engine.Store(e.router)
	e.router.SetSecrets(*d.secrets.Load()) // both may have changed since open
	e.router.SetTrusted(*d.trusted.Load())
	d.tunnels.SetSecrets(fingerprints(*d.secrets.Load()), e.router)
	d.securityMu.Unlock()
	close(d.started)
	d.SyncPeers()
	if err := d.restoreAddresses(); err != nil {
		d.log.Warn("cannot restore the addresses of the bridge", "err", err)
	}
	d.log.Info("datapath is up", "bridge", d.settings.Bridge, "tap", d.settings.Tap, "sockets", d.conns[0].Features())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.router.Run(ctx) })
	for _, k := range e.kernel {
		group.Go(func() error { return d.runKernelPath(ctx, k) })
	}
	group.Go(func() error { d.tunnels.Run(ctx, e.router); return nil })
	group.Go(func() error { d.pairs.Run(ctx, e.router); return nil })
	group.Go(func() error { return d.reconcile(ctx) })
	group.Go(func() error { d.followMTU(ctx); return nil })
	if e.keeper != nil {
		group.Go(func() error { d.runKeeper(ctx, e); return nil })
	}
	group.Go(func() error { d.reach.Run(ctx, e.router, d.ownAddr); return nil })
	return group.Wait()
}

// Up reports whether bridge, TAP and router are there.
func (d *Datapath) Up() bool { return d.current.Load() != nil }

// Started returns a channel that is closed once the datapath is up.
func (d *Datapath) Started() <-chan struct{} { return d.started }

// Missing implements health.Requirement.
func (d *Datapath) Missing() string {
	switch {
	case !d.Up():
		return "the datapath is not up yet"
	case !d.settings.NoMasquerade && d.rulesErr.Load() == nil:
		return "the rules for traffic that leaves the overlay are not set yet"
	}
	return ""
}

// errStarting is returned by what needs the datapath before it is up.
func errStarting() error {
	return hint.New(hint.Starting, "Try again in a moment, or run \"weft wait\" first.", "the node is still starting")
}

// SyncPeers passes the present membership to the router and the kernel path. It is called after every change of the membership.
func (d *Datapath) SyncPeers() {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.peers.Set()
	e := d.current.Load()
	if e == nil {
		return
	}
	members := d.cfg.Membership.Members()
	peers := make([]router.Peer, 0, len(members))
	for _, m := range members {
		peers = append(peers, m.Peer)
	}
	e.router.SetPeers(peers)
	d.followVNI(e.kernel.path(carrier.VXLAN), members, time.Now())
	for _, k := range e.kernel {
		k.totals.KeepOnly(d.isKnown)
		peers := d.kernelPeers(k, members)
		d.noteDirect(k)
		k.setPeers(peers)
	}
}

// isKnown reports whether a node is a member, alive or dead.
func (d *Datapath) isKnown(id peer.ID) bool {
	_, alive := d.cfg.Membership.Member(id)
	return alive || d.cfg.Membership.Dead(id)
}

// HandleReport implements underlay.ReportHandler: it passes to the router what the network reports about a datagram.
func (d *Datapath) HandleReport(r underlay.Report) {
	if e := d.current.Load(); e != nil {
		e.router.HandleICMP(r)
	}
}
