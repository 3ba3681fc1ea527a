package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/podlink"
	"weft/router"
	"weft/router/underlay"
	"weft/tap"
	"weft/tap/bridge"
	"weft/tap/virtio"
)

// plane is the data plane while it is up: the bridge, the TAP on it, and the router behind the TAP.
type plane struct {
	// constant
	d      *Daemon
	router *router.Engine
	linker podlink.Linker
	// features are what the TAP's kernel and the router leave undone for each other.
	features virtio.Features
	kernel   kernelPath

	// mu serialises what changes the host, so that keep does not bring back what clear takes away.
	mu      sync.Mutex
	cleared bool // guarded by mu

	// atomic
	mended   atomic.Pointer[mended] // what was done to the bridge; nil: nothing
	rulesErr atomic.Pointer[error]  // why pods do not reach beyond the overlay; nil or nil inside where they do
}

// errStarting is the answer to what needs the data plane while it is not up yet.
func errStarting() error {
	return problem(api.KindStarting, "Try again in a moment, or wait for it: \"weft wait\".", "the node is still starting")
}

// runPlane brings the data plane up once the targets were tried, and runs it until ctx ends.
func (d *Daemon) runPlane(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.mesh.Joined():
	case <-time.After(joinPatience):
	}
	p, err := d.openPlane(ctx)
	if err != nil {
		return err
	}
	d.plane.Store(p)
	d.syncSecrets() // where a reload has changed them since
	p.router.SetTrusted(*d.trusted.Load())
	d.syncPeers()
	if err := p.restoreExposed(); err != nil {
		d.log.Warn("giving the bridge its address again", "err", err)
	}
	d.log.Info("data plane up", "bridge", d.cfg.Bridge, "tap", d.cfg.Tap)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.keep(ctx) })
	group.Go(func() error { return p.router.Run(ctx) })
	group.Go(func() error { return p.kernel.run(ctx) })
	group.Go(func() error { p.collectGarbage(ctx); return nil })
	group.Go(func() error { d.orphans.run(ctx); return nil })
	group.Go(func() error { d.reach.run(ctx, p.router); return nil })
	return group.Wait()
}

// openPlane makes bridge, TAP and router; keep makes the rules, while frames flow already. What a failed openPlane made it takes away again.
func (d *Daemon) openPlane(ctx context.Context) (_ *plane, err error) {
	undo := undoList{}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	before, err := bridge.Inspect(d.cfg.Bridge)
	if err != nil {
		return nil, err
	}
	br, err := bridge.Ensure(d.bridgeConfig())
	if err != nil {
		return nil, refuse("--bridge", "Choose another name, or mend what is said.", "%w", err)
	}
	defer br.Close()
	undo.add(func() error {
		if before.State != bridge.Absent {
			return nil
		}
		return bridge.Remove(d.cfg.Bridge)
	})
	device, err := tap.Open(tap.Config{Name: d.cfg.Tap, MTU: d.mtu, Queues: d.cfg.Queues, Plain: d.cfg.Offload == offloadOff})
	if err != nil {
		return nil, refuse("--tap", "Choose another name, or mend what is said.", "%w", err)
	}
	undo.add(device.Close)
	if err := br.AddPort(d.cfg.Tap); err != nil {
		return nil, err
	}
	engine, err := router.New(router.Config{
		Private: d.identity.Private(), Cluster: clusterName, Offer: d.cfg.offer(),
		Secrets: sessionSecrets(d.secretList()), Trusted: *d.trusted.Load(),
		Owners: d.addressOwners(), Events: routerEvents{d},
		Device: device, Conns: d.routerConns(), Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	p := &plane{d: d, linker: podlink.New(), router: engine, features: device.Features()}
	p.kernel.plane = p
	if err := p.kernel.open(ctx, br); err != nil {
		return nil, err
	}
	return p, nil
}

// addressOwners returns the allocator, so that the router sends an address query only to the peer that assigns the address;
// nil if the operator wants all queries to go to all peers.
func (d *Daemon) addressOwners() router.AddressOwners {
	if d.cfg.NoARPProxy {
		return nil
	}
	return d.ipam
}

// routerEvents passes the events of the router to the daemon. It implements router.Events.
type routerEvents struct{ d *Daemon }

func (e routerEvents) PlainAgreed(id peer.ID)                           { e.d.onAgreed(id) }
func (e routerEvents) LinksChanged(l router.Links)                      { e.d.reach.onLinks(l) }
func (e routerEvents) DialBack(to netip.AddrPort, datagram []byte)      { e.d.knock(to, datagram) }
func (e routerEvents) ControlReceived(from peer.ID, to uint8, m []byte) { e.d.onControl(from, to, m) }

// routerConns returns the sockets as the router takes them.
func (d *Daemon) routerConns() []underlay.Conn {
	conns := make([]underlay.Conn, len(d.conns))
	for i, c := range d.conns {
		conns[i] = c
	}
	return conns
}

// bridgeConfig describes the node's bridge.
func (d *Daemon) bridgeConfig() bridge.Config {
	return bridge.Config{Name: d.cfg.Bridge, MTU: d.mtu, MAC: bridgeMAC(d.identity.ID)}
}

// clear takes the host and its pods off the overlay, for a node that leaves: the addresses are others' from now on.
func (p *plane) clear(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleared = true
	errs := []error{p.hide()}
	if !p.d.cfg.NoMasquerade {
		errs = append(errs, removeRules(ctx))
	}
	errs = append(errs, p.clearBridge())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("daemon: taking the host off the overlay: %w", err)
	}
	return nil
}

// clearBridge deletes the pods' pairs on the bridge, and the bridge itself if it is ours and others have no port there.
func (p *plane) clearBridge() error {
	info, err := bridge.Inspect(p.d.cfg.Bridge)
	if err != nil || info.State != bridge.Found {
		return err
	}
	err = unplug(info.Index)
	others := slices.DeleteFunc(info.Ports, func(port string) bool {
		return port == p.d.cfg.Tap || port == p.kernel.port() || strings.HasPrefix(port, podlink.HostPrefix)
	})
	if info.Ours && len(others) == 0 {
		err = errors.Join(err, bridge.Remove(p.d.cfg.Bridge))
	}
	return err
}

// bridgeMAC returns the address of the bridge: the same for a node at every start, since pods keep it in their
// neighbour tables.
func bridgeMAC(id [8]byte) ether.Addr {
	return ether.Addr{0x06, 0x57, id[0], id[1], id[2], id[3]}
}

// undoList collects what takes back the steps done so far.
type undoList []func() error

func (u *undoList) add(f func() error) { *u = append(*u, f) }

// run takes the steps back, the last first.
func (u *undoList) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	return errors.Join(errs...)
}
