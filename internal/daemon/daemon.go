package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"weft/internal/dns"
	"weft/internal/peer"
	"weft/internal/secret"
	"weft/ipam"
	"weft/ipam/store"
	"weft/mesh"
	"weft/router"
	"weft/router/underlay"
)

// joinPatience is how long the data plane waits for the first attempts at the PEERs: long enough to learn that
// another node runs with this node's key before any frame is carried under it.
const joinPatience = 3 * time.Second

// Daemon is one node: the engines and what is under them. Run makes it.
type Daemon struct {
	// constant after newDaemon
	cfg       Config
	program   Program
	log       *slog.Logger
	recent    *recent // of the log
	advertise netip.Addr
	mtu       int
	started   time.Time
	identity  mesh.Identity
	transport memberlist.Transport
	conns     []*underlay.UDP // one a queue
	mesh      *mesh.Mesh
	reach     reach
	ipam      *ipam.Allocator
	orphans   orphans
	names     *dns.Registry
	dns       *dns.Server // nil: turned off
	api       net.Listener
	http      net.Listener // nil: turned off

	stop    context.CancelFunc // ends Run; set before anything is served
	running context.Context    // ends when Run does, likewise: long answers end then

	// atomic
	plane   atomic.Pointer[plane]           // nil until the data plane is up
	secrets atomic.Pointer[[]secret.Secret] // nil or empty: none
	trusted atomic.Pointer[[]netip.Prefix]  // subnets to which data is not encrypted

	garbageFreed atomic.Uint64 // leases that ended as their attachment was gone

	reloadMu sync.Mutex
	given    Config // guarded by reloadMu: cfg as it was given, with what was reloaded since

	peersMu sync.Mutex                              // serialises syncPeers
	members atomic.Pointer[map[peer.ID]mesh.Member] // as the mesh last told; the map is never changed
}

// Run runs a node until ctx ends, which leaves bridge, pods and addresses as they are, or until it left the network.
// Where it does not start because of what it was given, the error is a *Refusal and the host is as it was before.
func Run(ctx context.Context, cfg Config, program Program) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.TakeOver {
		release, err := cfg.takeTurn(ctx)
		if ctx.Err() != nil {
			return nil // it was stopped before its turn came
		} else if err != nil {
			return err
		}
		defer release()
		program.Log.Info("no other daemon runs on this host: its turn has come")
	}
	if err := cfg.preflight(); err != nil {
		return err
	}
	secrets, err := cfg.loadSecrets()
	if err != nil {
		return err
	}
	self, err := cfg.advertiseAddr(ctx)
	if err != nil {
		return err
	}
	st, err := openState(cfg.StateDir)
	if err != nil {
		return err
	}
	limitGarbage()
	if err := raisePriority(); err != nil {
		program.Log.Info("busy pods may delay the network: the node runs at their priority", "err", err)
	}
	d, err := newDaemon(cfg, program, secrets, self, st)
	if err != nil {
		return errors.Join(err, st.addresses.Close())
	}
	err = d.run(ctx)
	return errors.Join(err, st.addresses.Close())
}

// newDaemon binds everything that a node listens on and makes its engines.
func newDaemon(cfg Config, program Program, secrets []secret.Secret, self netip.Addr, st *state) (_ *Daemon, err error) {
	d := &Daemon{
		cfg: cfg, program: program, advertise: self, mtu: cfg.overlayMTU(self, len(secrets) > 0), started: time.Now(),
		identity: st.identity,
	}
	d.reach.d = d
	d.orphans.d, d.orphans.wake = d, make(chan struct{}, 1)
	d.log, d.recent = remembering(program.Log)
	d.initial(cfg, secrets)
	if cfg.Queues == 0 {
		d.cfg.Queues = min(runtime.NumCPU(), maxQueues)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeListeners())
		}
	}()
	if cfg.hasIPv6() && d.mtu < minMTU6 {
		return nil, refuse("--range", "Give no IPv6 range, or raise the MTU of the underlay: IPv6 needs 1280 (RFC 8200).",
			"the underlay leaves %d bytes for pods", d.mtu)
	}
	if d.mtu < minMTU {
		return nil, refuse("--mtu", "Raise the MTU of the underlay, or set --mtu.", "the underlay leaves %d bytes for pods", d.mtu)
	}
	if err = d.listen(); err != nil {
		return nil, err
	}
	if d.mesh, err = mesh.New(d.meshConfig(st)); err != nil {
		return nil, err
	}
	if d.ipam, err = ipam.New(d.ipamConfig(st)); err != nil {
		return nil, refuse(filepath.Join(cfg.StateDir, store.FileName), "Mend what is said, or start with another --state-dir.", "%w", err)
	}
	d.mesh.Register(mesh.ChannelIPAM, d.ipam)
	if err = d.newNames(); err != nil {
		return nil, err
	}
	d.tellFoundings()
	d.orphans.look() // before anybody is given an address
	return d, nil
}

// listen binds the ports and sockets.
func (d *Daemon) listen() (err error) {
	all := netip.AddrPortFrom(anyAddr(), uint16(d.cfg.Port))
	if d.transport, err = mesh.Listen(all, d.log); err != nil {
		return err
	}
	source := netip.Addr{} // as the routes choose: behind a NAT the advertised address is not the host's
	if isLocal(d.advertise) {
		source = d.advertise // it is what the others know this node by, whatever way a datagram takes
	}
	off := d.cfg.Offload == offloadOff
	if d.conns, err = underlay.ListenQueues(underlay.Config{
		Port: uint16(d.cfg.Port + 1), Source: source, DontFragment: true, NoGSO: off, NoGRO: off, Reports: d,
	}, d.cfg.Queues); err != nil {
		return err
	}
	if d.cfg.HTTPAddr != "" {
		var lc net.ListenConfig
		if d.http, err = lc.Listen(context.Background(), "tcp", d.cfg.HTTPAddr); err != nil {
			return fmt.Errorf("daemon: --http-addr: %w", err)
		}
	}
	d.api, err = listenSocket(d.cfg.Socket)
	return err
}

func (d *Daemon) closeListeners() error {
	var errs []error
	if d.transport != nil {
		errs = append(errs, d.transport.Shutdown())
	}
	for _, c := range d.conns {
		errs = append(errs, c.Close())
	}
	for _, l := range []net.Listener{d.http, d.api} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) meshConfig(st *state) mesh.Config {
	peers := make([]mesh.Target, 0, len(d.cfg.Peers))
	for _, p := range d.cfg.Peers {
		if t, err := mesh.ParseTarget(p, uint16(d.cfg.Port)); err == nil { // Validate let only good ones through
			peers = append(peers, t)
		}
	}
	return mesh.Config{
		Identity: st.identity, Name: d.cfg.Name, Transport: d.transport, Targets: st.targets, Peers: peers,
		Advertise: netip.AddrPortFrom(d.advertise, uint16(d.cfg.Port)), DataPort: uint16(d.cfg.Port + 1),
		Capabilities: uint32(d.cfg.offer()), Keys: gossipKeys(d.secretList()),
		Discovery: !d.cfg.NoDiscovery, Tunnel: tunnel{d}, Observer: membersObserver{d}, Logger: d.log,
	}
}

func (d *Daemon) ipamConfig(st *state) ipam.Config {
	return ipam.Config{
		Self: st.identity.ID, Ranges: d.cfg.Ranges, InitPeers: d.cfg.founders(), Lazy: d.cfg.lone(),
		Store: st.addresses, Gossip: ipamGossip{d}, Membership: ipamMembership{d}, Events: ipamEvents{d},
		Logger: d.log.With("component", "ipam"),
	}
}

// run runs the engines until ctx ends, one of them fails, or the node has left.
func (d *Daemon) run(ctx context.Context) error {
	ctx, d.stop = context.WithCancel(ctx)
	defer d.stop()
	d.running = ctx
	if d.sealed() {
		// Of a run without a secret: from here on nothing leaves as it is.
		if err := d.removeKernelPath(ctx); err != nil {
			return errors.Join(err, d.closeListeners())
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.mesh.Run(ctx) })
	group.Go(func() error { return d.ipam.Run(ctx) })
	group.Go(func() error { return d.runPlane(ctx) })
	if d.dns != nil {
		group.Go(func() error { return d.dns.Run(ctx) })
	}
	group.Go(func() error { d.watchHangups(ctx); return nil })
	group.Go(func() error { d.notify(ctx); return nil })
	group.Go(func() error { return serve(ctx, d.api, d.apiHandler(), 0) })
	if d.http != nil {
		group.Go(func() error { return d.serveHTTP(ctx) })
	}
	d.log.Info("node up", "peer", d.identity.ID, "name", d.cfg.Name, "addr", d.advertise, "mtu", d.mtu)
	err := group.Wait()
	d.log.Info("node down", "peer", d.identity.ID)
	if errors.Is(err, mesh.ErrDuplicateKey) {
		return refuse(d.cfg.StateDir, "On a copied disk, remove node.key and ipam.db from the copy, and start it again: it then "+
			"is a node of its own.", "%w", err)
	}
	return err
}

// membersObserver is the daemon as mesh sees it.
type membersObserver struct{ d *Daemon }

// MembersChanged implements mesh.Observer.
func (o membersObserver) MembersChanged(list []mesh.Member) { o.d.onMembers(list) }

// onMembers takes a new membership from the mesh to the router and to ipam.
func (d *Daemon) onMembers(list []mesh.Member) {
	byID := make(map[peer.ID]mesh.Member, len(list))
	for _, member := range list {
		byID[member.ID] = member
	}
	d.members.Store(&byID)
	for _, member := range list {
		if member.State == mesh.StateLeft {
			d.names.Forget(member.ID)
		}
	}
	d.syncPeers()
}

// syncPeers tells the router who is alive. Whoever calls it last tells the latest.
func (d *Daemon) syncPeers() {
	d.peersMu.Lock()
	defer d.peersMu.Unlock()
	if p := d.plane.Load(); p != nil {
		members := d.mesh.Members()
		p.router.SetPeers(routerPeers(members))
		p.kernel.setPeers(members)
	}
}

// HandleReport implements underlay.ReportHandler: it passes reports to the router.
func (d *Daemon) HandleReport(r underlay.Report) {
	if p := d.plane.Load(); p != nil {
		p.router.HandleICMP(r)
	}
}

// member returns what the mesh last told of a node. It takes no lock: ipam asks while it holds its own.
func (d *Daemon) member(id peer.ID) (mesh.Member, bool) {
	byID := d.members.Load()
	if byID == nil {
		return mesh.Member{}, false
	}
	member, ok := (*byID)[id]
	return member, ok
}

func (d *Daemon) reachable(id peer.ID) bool {
	m, ok := d.member(id)
	return ok && m.State == mesh.StateAlive && m.Route.Hops > 0
}

func (d *Daemon) nameOf(id peer.ID) string {
	m, _ := d.member(id)
	return m.Name
}

// routerPeers returns the members that the router has to know: those alive but this node.
func routerPeers(members []mesh.Member) []router.Peer {
	peers := make([]router.Peer, 0, len(members))
	for _, m := range members {
		if isLivePeer(m) {
			p := router.Peer{ID: m.ID, Public: m.Public, Accepts: m.Accepts, Addr: m.DataAddr(), DialOut: m.DialOut}
			if m.Route.Hops > 1 { // without any way it is tried itself
				p.Via = m.Route.Via
			}
			peers = append(peers, p)
		}
	}
	return peers
}

// isLivePeer reports whether m is another node that is alive.
func isLivePeer(m mesh.Member) bool { return m.State == mesh.StateAlive && !m.Self }

// broadcast tells all nodes something on a channel.
func (d *Daemon) broadcast(channel mesh.ChannelID, delta []byte) {
	if err := d.mesh.Sender(channel).Broadcast(delta); err != nil {
		d.log.Error("gossip not sent", "channel", channel, "err", err)
	}
}

// ipamGossip is the mesh as ipam sees it.
type ipamGossip struct{ d *Daemon }

// Broadcast implements ipam.Gossip.
func (g ipamGossip) Broadcast(delta []byte) { g.d.broadcast(mesh.ChannelIPAM, delta) }

// Unicast implements ipam.Gossip.
func (g ipamGossip) Unicast(to peer.ID, msg []byte) error {
	return g.d.mesh.Sender(mesh.ChannelIPAM).Unicast(to, msg)
}

// ipamMembership is the mesh as ipam sees its members.
type ipamMembership struct{ d *Daemon }

// Reachable implements ipam.Membership.
func (m ipamMembership) Reachable(id peer.ID) bool { return m.d.reachable(id) }

// Members implements ipam.Membership.
func (m ipamMembership) Members() []peer.ID { return m.d.mesh.Known() }

// Name implements ipam.Membership.
func (m ipamMembership) Name(id peer.ID) string { return m.d.nameOf(id) }

// ipamEvents passes changes of the ranges on to the daemon.
type ipamEvents struct{ d *Daemon }

// Bootstrapped implements ipam.Events.
func (e ipamEvents) Bootstrapped() { e.d.onFounded() }

// Reclaimed implements ipam.Events.
func (e ipamEvents) Reclaimed(dead peer.ID) { e.d.forgetNode(dead) }

// anyAddr returns the unspecified address that stands for all of the host's, IPv6 included where the host has it.
func anyAddr() netip.Addr {
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { //nolint:noctx // binds and closes at once
		_ = l.Close()
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func isLocal(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range addrs {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}
