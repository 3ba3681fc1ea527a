// Package wireguard is the carrier of frames that must be sealed: VXLAN in a tunnel of WireGuard, so that these frames never enter
// userspace either.
//
//	pods --- bridge "weave" --- VXLAN "weftwx" --- WireGuard "weftwg" --- underlay
//
// Each node has a key pair for this purpose alone. Two nodes exchange public keys, ports and the parts of a preshared key inside their
// authenticated session, and prove to each other that they own their keys (Exchange). So a tunnel is worth what the session was worth.
// A node has one address inside, which depends on its ID; WireGuard accepts a peer's packets from that address alone (AllowedIPs), and the
// VXLAN device those of peers alone.
//
//   - exchange.go: what two nodes say to each other (without I/O)
//   - device_linux.go: the tunnel with the VXLAN device in it; link_linux.go: the link of WireGuard
package wireguard

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

// Overhead4 and Overhead6 are the bytes that WireGuard adds to a packet on an underlay of IPv4 or IPv6: IP header, UDP 8, WireGuard 32.
// It also fills a packet up to a multiple of 16 bytes, but not beyond the MTU of its link.
const (
	Overhead4 = 20 + 8 + 32
	Overhead6 = 40 + 8 + 32
)

// MinMTU is the least MTU of pods in bytes: the addresses inside tunnels need a link of 1,280 bytes (RFC 8200, section 5).
const MinMTU = 1280 - vxlan.Overhead6

// MTU returns what an underlay with an MTU of so many bytes leaves for pods.
func MTU(underlay int, is6 bool) int {
	if is6 {
		return underlay - Overhead6 - vxlan.Overhead6
	}
	return underlay - Overhead4 - vxlan.Overhead6
}

// prefix is that of the addresses inside tunnels: a unique local one of IPv6 (RFC 4193) with a random global ID. The kernel routes packets
// to it into the tunnel alone, whatever other routes there are.
var prefix = netip.MustParsePrefix("fdb0:9c5e:77e7::/64")

// Address returns the address of a node inside tunnels.
func Address(id peer.ID) netip.Addr {
	a := prefix.Addr().As16()
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}

// Errors that callers branch on, besides those of packages carrier and vxlan. The errors that wrap them name the cause and a remedy.
var (
	// ErrNoWireGuard: the kernel cannot make devices of WireGuard, or there is none with the name of Config.Existing.
	ErrNoWireGuard = errors.New("there is no WireGuard")
	// ErrNotOurs: a device that weft did not make has the name, or has peers that weft did not add.
	ErrNotOurs = errors.New("another device is in the way")
)

// Config describes the tunnel that Open makes.
type Config struct {
	// Name of the WireGuard device. If Existing is set it exists already, perhaps in a program other than the kernel, and belongs to weft;
	// otherwise Open makes it.
	Name     string
	Existing bool
	// Port is the UDP port on the underlay.
	Port uint16
	// Private is the key of this node for this run.
	Private wgtypes.Key
	// VXLAN is the device in the tunnel. Its fields Local and Under are ignored.
	VXLAN vxlan.Config
}

// Validate returns an error that wraps carrier.ErrConfig and names the invalid field, or nil.
func (c Config) Validate() error {
	switch {
	case !vxlan.GoodName(c.Name):
		return fmt.Errorf("wireguard: %w: Name %q", carrier.ErrConfig, c.Name)
	case c.Port == 0:
		return fmt.Errorf("wireguard: %w: Port is 0", carrier.ErrConfig)
	case c.VXLAN.MTU < MinMTU:
		return fmt.Errorf("wireguard: %w: MTU %d is below %d", carrier.ErrConfig, c.VXLAN.MTU, MinMTU)
	case c.Private == wgtypes.Key{}:
		return fmt.Errorf("wireguard: %w: Private is missing", carrier.ErrConfig)
	}
	return c.inner().Validate()
}

// inner returns the configuration of the VXLAN device.
func (c Config) inner() vxlan.Config {
	c.VXLAN.Local, c.VXLAN.Under = Address(c.VXLAN.Self), c.Name
	return c.VXLAN
}

// Tunnel is what this node knows about the tunnel to a peer, from an Exchange.
type Tunnel struct {
	Public    wgtypes.Key // of the peer
	Preshared wgtypes.Key // that both ends have
	// Endpoint is where the peer listens; not valid: it is behind an address translator, and begins.
	Endpoint netip.AddrPort
	// Keepalive: this node is behind an address translator, and keeps its mapping there.
	Keepalive bool
}
