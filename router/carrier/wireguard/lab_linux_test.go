package wireguard_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nettest/wireguardtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/vxlan"
	"weft/router/carrier/wireguard"
)

const (
	outerPort = 6786
	innerPort = 6787
	innerName = "weftwx"
	mtu       = 1350 // of pods: what is left of 1500 bytes on an underlay of IPv6
	patience  = 20 * time.Second
)

// lab is what the hosts of a test have: a device of WireGuard each, and keys.
type lab struct {
	names   map[peer.ID]string
	keys    map[peer.ID]wgtypes.Key
	devices map[peer.ID]*wireguard.Device

	programs map[peer.ID]*nettest.Process // in place of the kernel
}

func newLab() *lab {
	return &lab{
		names: map[peer.ID]string{}, keys: map[peer.ID]wgtypes.Key{}, devices: map[peer.ID]*wireguard.Device{},
		programs: map[peer.ID]*nettest.Process{},
	}
}

// name returns the name of the device of a host, which exists unless the kernel makes it.
func (l *lab) name(t *testing.T, h *carriertest.Host) string {
	t.Helper()
	if name := l.names[h.ID]; name != "" && exists(h, name) {
		return name
	}
	if wireguardtest.Kernel() {
		l.names[h.ID] = wireguardtest.Name()
	} else {
		l.names[h.ID] = wireguardtest.Name()
		l.programs[h.ID] = wireguardtest.StartNamed(t, h.Host, l.names[h.ID])
	}
	return l.names[h.ID]
}

func exists(h *carriertest.Host, name string) bool {
	return h.Do(func() error {
		_, err := netlink.LinkByName(name)
		return err
	}) == nil
}

// key returns the private key of a node.
func (l *lab) key(t *testing.T, id peer.ID) wgtypes.Key {
	t.Helper()
	if _, ok := l.keys[id]; !ok {
		k, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		l.keys[id] = k
	}
	return l.keys[id]
}

// config describes the devices of a host.
func (l *lab) config(t *testing.T, h *carriertest.Host) wireguard.Config {
	t.Helper()
	return wireguard.Config{
		Name: l.name(t, h), Existing: !wireguardtest.Kernel(), Port: outerPort, Private: l.key(t, h.ID),
		VXLAN: vxlan.Config{
			Name: innerName, Bridge: carriertest.Bridge, Tap: carriertest.Tap, Port: innerPort, VNI: 0xabcdef, MTU: mtu, Self: h.ID,
		},
	}
}

// open makes the devices of a host, with a tunnel to each of the others.
func (l *lab) open(t *testing.T, h *carriertest.Host, others ...carrier.Peer) (*wireguard.Device, error) {
	t.Helper()
	d, err := wireguard.Open(t.Context(), l.config(t, h))
	if err != nil {
		return nil, err
	}
	l.devices[h.ID] = d
	for _, p := range others {
		if err := d.SetTunnel(p.ID, l.tunnel(t, p, 1)); err != nil {
			t.Error(err)
		}
	}
	return d, nil
}

// tunnel returns the tunnel to a peer with the preshared key of a number.
func (l *lab) tunnel(t *testing.T, p carrier.Peer, preshared byte) wireguard.Tunnel {
	t.Helper()
	return wireguard.Tunnel{
		Public: l.key(t, p.ID).PublicKey(), Preshared: wgtypes.Key{preshared}, Endpoint: netip.AddrPortFrom(p.Addr, outerPort),
	}
}

// configure changes the WireGuard device of a host as another program would.
func (l *lab) configure(t *testing.T, h *carriertest.Host, c wgtypes.Config) {
	t.Helper()
	l.client(t, h, func(client *wgctrl.Client) error { return client.ConfigureDevice(l.names[h.ID], c) })
}

// configured returns the peers of the WireGuard device of a host.
func (l *lab) configured(t *testing.T, h *carriertest.Host) (peers []wgtypes.Peer) {
	t.Helper()
	l.client(t, h, func(client *wgctrl.Client) error {
		device, err := client.Device(l.names[h.ID])
		if err == nil {
			peers = device.Peers
		}
		return err
	})
	return peers
}

// client calls f with a client of WireGuard on a host.
func (l *lab) client(t *testing.T, h *carriertest.Host, f func(*wgctrl.Client) error) {
	t.Helper()
	err := h.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		return f(client)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCarrier: a Device passes the tests of carriers.
func TestCarrier(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			carriertest.Run(t, func(t *testing.T) carriertest.Network {
				l := newLab()
				var network carriertest.Network
				network = carriertest.Hosts(t, carriertest.Kind{
					Open: func(t *testing.T, h *carriertest.Host) (carrier.Carrier, error) {
						other := network.Peer(0)
						if other.ID == h.ID {
							other = network.Peer(1)
						}
						return l.open(t, h, other)
					},
					Port: innerName, Link: innerName, UDP: outerPort,
					Disturb: func(t *testing.T, h *carriertest.Host) {
						labtest.Run(t, h.Space, "nft", "flush", "ruleset")
						carriertest.IP(t, h.Space, "link set "+innerName+" down") // forgets its entries
						carriertest.IP(t, h.Space, "link set "+innerName+" up")
						l.configure(t, h, wgtypes.Config{ReplacePeers: true})
						carriertest.IP(t, h.Space, "addr flush dev "+l.names[h.ID])
					},
				}, v6)
				return network
			})
		})
	}
}
