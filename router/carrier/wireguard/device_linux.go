package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

var _ carrier.Carrier = (*Device)(nil)

// Device is the WireGuard device of this node with the VXLAN device in it. Its methods may be called from any goroutine; they work in the
// network namespace in which Open was called. Those that it does not declare are those of the VXLAN device.
type Device struct {
	*vxlan.Device

	mu      sync.Mutex
	link    *link              // guarded by mu; nil after Close
	tunnels map[peer.ID]Tunnel // guarded by mu: those that may be used
	peers   []carrier.Peer     // guarded by mu: of the last SetPeers
	kept    bool               // guarded by mu
}

// Open makes the devices that cfg describes, in place of those that an earlier run left behind. The VXLAN device is down:
// bridge.AddPort brings it up as an isolated port. The errors wrap carrier.ErrConfig, ErrNoWireGuard, ErrNotOurs or an error of vxlan.Open
// where a caller can react. On an error nothing is left behind.
func Open(ctx context.Context, cfg Config) (*Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l, err := openLink(cfg)
	if err != nil {
		return nil, err
	}
	inner, err := vxlan.Open(ctx, cfg.inner())
	if err != nil {
		return nil, errors.Join(err, l.close(false))
	}
	return &Device{Device: inner, link: l, tunnels: map[peer.ID]Tunnel{}}, nil
}

// SetTunnel sets the tunnel to a peer, which the next SetPeers uses. A tunnel that is in use changes at once, without loss.
func (d *Device) SetTunnel(id peer.ID, t Tunnel) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tunnels[id] = t
	if d.link == nil {
		return net.ErrClosed
	}
	if _, used := d.link.set[id]; !used {
		return nil
	}
	return d.setLink(d.peers)
}

// RemoveTunnel removes the tunnel to a peer at once. The peer is not reached any more, until SetTunnel and SetPeers.
func (d *Device) RemoveTunnel(id peer.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tunnels, id)
	if d.link == nil {
		return net.ErrClosed
	}
	return d.setLink(d.peers)
}

// setLink makes those of peers that have a tunnel the only ones of the WireGuard device. mu is held.
func (d *Device) setLink(peers []carrier.Peer) error {
	set := map[peer.ID]Tunnel{}
	for _, p := range d.reachable(peers) {
		set[p.ID] = d.tunnels[p.ID]
	}
	return d.link.setPeers(set)
}

// reachable returns those of peers that have a tunnel, with a key of their own. mu is held.
func (d *Device) reachable(peers []carrier.Peer) (list []carrier.Peer) {
	keys := map[[32]byte]bool{d.link.cfg.Private.PublicKey(): true}
	for _, p := range peers {
		if t, ok := d.tunnels[p.ID]; ok && !keys[t.Public] {
			keys[t.Public] = true
			list = append(list, p)
		}
	}
	return list
}

// SetPeers implements carrier.Carrier. It reaches the peers that have a tunnel.
func (d *Device) SetPeers(ctx context.Context, peers []carrier.Peer) (reached []carrier.Peer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return nil, net.ErrClosed
	}
	outer := map[peer.ID]carrier.Peer{}
	var inner []carrier.Peer
	for _, p := range d.reachable(peers) {
		outer[p.ID] = p
		inner = append(inner, carrier.Peer{ID: p.ID, Addr: Address(p.ID)})
	}
	if inner, err = d.Device.SetPeers(ctx, inner); err != nil {
		return nil, err
	}
	for _, p := range inner {
		reached = append(reached, outer[p.ID])
	}
	d.peers = reached
	return reached, d.setLink(reached)
}

// Ensure implements carrier.Carrier.
func (d *Device) Ensure(ctx context.Context) error {
	if err := d.ensureLink(); err != nil {
		return err
	}
	return d.Device.Ensure(ctx)
}

// ensureLink restores the WireGuard device if another program changed it.
func (d *Device) ensureLink() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return net.ErrClosed
	}
	intact, err := d.link.intact()
	switch {
	case err != nil:
		return err
	case intact:
		return d.link.setUp()
	default:
		return d.link.configure(d.link.set)
	}
}

// Keep implements carrier.Carrier.
func (d *Device) Keep() {
	d.mu.Lock()
	d.kept = true
	d.mu.Unlock()
	d.Device.Keep()
}

// Close implements carrier.Carrier.
func (d *Device) Close() error {
	err := d.Device.Close() // first: its frames must not leave by another way
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return err
	}
	if back := d.link.close(d.kept); back != nil {
		err = errors.Join(err, fmt.Errorf("wireguard: close: %w", back))
	}
	d.link = nil
	return err
}
