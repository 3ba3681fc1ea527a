package datapath

import (
	"context"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/peer"
	"weft/internal/tunnels"
	"weft/router/carrier/wireguard"
)

// controlTunnel is the channel of the exchanges of keys for WireGuard among the control messages between nodes.
const controlTunnel = controlMesh + 1

// tunnelVNI is the VNI in the tunnels. It is no secret: WireGuard authenticates the sender.
const tunnelVNI = 1

// wantsTunnels reports whether WireGuard could carry frames of any peer.
func (d *Datapath) wantsTunnels() bool { return d.settings.WantsTunnels(d.sealed()) }

// openTunnels makes the device of WireGuard with the VXLAN device in it, with another key.
func (d *Datapath) openTunnels(ctx context.Context) (kernelDevice, error) {
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return kernelDevice{}, err
	}
	s, inner := d.settings, d.portConfig()
	inner.Name, inner.Port, inner.VNI = s.TunneledDevice(), s.TunneledPort(), tunnelVNI
	device, err := wireguard.Open(ctx, wireguard.Config{
		Name: s.TunnelDevice(), Existing: s.WireGuardDevice != "", Port: s.TunnelPort(), Private: private, VXLAN: inner,
	})
	if err != nil {
		return kernelDevice{}, err
	}
	d.tunnels.SetDevice(device, private)
	return kernelDevice{carrier: device, rules: device, frames: device, port: device.Device, fixedMTU: inner.MTU}, nil
}

// mayUseTunnel reports whether WireGuard may carry frames to a member where it is reached directly.
func (d *Datapath) mayUseTunnel(m Member) bool { return !d.unsealed(m) && d.tunnels.Has(m.ID) }

// tunnelHost is this node in the form of package tunnels.
type tunnelHost struct{ d *Datapath }

var _ tunnels.Host = tunnelHost{}

func (h tunnelHost) Members() (list []tunnels.Member) {
	for _, m := range h.d.cfg.Membership.Members() {
		list = append(list, h.member(m))
	}
	return list
}

func (h tunnelHost) Member(id peer.ID) (tunnels.Member, bool) {
	m, ok := h.d.cfg.Membership.Member(id)
	return h.member(m), ok
}

func (h tunnelHost) member(m Member) tunnels.Member {
	return tunnels.Member{ID: m.ID, Reached: m.Hops == 1, DialOut: m.DialOut, Sealed: !h.d.unsealed(m)}
}

func (h tunnelHost) Known(id peer.ID) bool { return h.d.isKnown(id) }
func (h tunnelHost) DialOut() bool         { return h.d.reach.DialOut() }
func (h tunnelHost) Changed()              { h.d.SyncPeers() }
