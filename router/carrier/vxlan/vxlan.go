// Package vxlan is the carrier of frames that need no seal and no relay: a VXLAN device (RFC 7348) that is a second port of the pods'
// bridge beside the TAP, so that these frames never enter userspace.
//
//   - device_linux.go: the device; conflict_linux.go: devices and programs in its way
//   - probe.go: the frame in which a probe lies; socket_linux.go: the socket for probes
//   - vni.go: the VNI that only members know; pace.go: how often it changes
//   - fdb_linux.go, tables_linux.go: the forwarding entries of the device and of the bridge
//   - pair_linux.go: the devices of pairs; hello.go, hear_linux.go: how one finds the other
//   - senders_linux.go: the senders that the device accepts, by filter.go (nftables) and gate_linux.go (BPF)
package vxlan

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// FirstPrivileged and LastPrivileged are the first and the last source port of VXLAN datagrams that a device accepts. Only privileged
// users of a host have these ports, unless net.ipv4.ip_unprivileged_port_start is lower, so no other user can send into the overlay with
// the address of the host. See docs/adr/0038-kernel-path-without-a-secret.md.
const (
	FirstPrivileged = 512
	LastPrivileged  = 1023
)

// firstSource is the first port from which a device sends; the flow of the inner frame chooses one up to LastPrivileged. An address
// translator of Linux may change it, and keeps it between the accepted ones.
const firstSource = 768

// Overhead4 and Overhead6 are the bytes that VXLAN adds to the payload of a frame on the underlay: IP header, UDP 8,
// VXLAN 8, inner Ethernet header 14. The router's own format adds more, so the pods' MTU always fits.
const (
	Overhead4 = 20 + 8 + 8 + ether.HeaderLen
	Overhead6 = 40 + 8 + 8 + ether.HeaderLen
)

// Errors that callers branch on, besides those of package carrier. The errors that wrap them name the cause and a remedy.
var (
	// ErrNoVXLAN: the kernel has no VXLAN driver, or the process may not use it.
	ErrNoVXLAN = errors.New("the kernel cannot make VXLAN devices")
	// ErrNotOurs: a device that weft did not make has the name, or uses the UDP port for VXLAN.
	ErrNotOurs = errors.New("another device is in the way")
	// ErrPortInUse: a program listens on the UDP port.
	ErrPortInUse = errors.New("the UDP port is in use")
	// ErrNoFilter: nftables does not work; without the filter any host could send into the overlay.
	ErrNoFilter = errors.New("nftables does not work")
)

// Config describes the device that Open makes.
type Config struct {
	// Name of the device: at most 15 letters, digits, dots, dashes and underscores, beginning with a letter. The
	// name of the nftables table is derived from it.
	Name string
	// Bridge is the name of the pods' bridge. Datagrams from the bridge must not reach the device's UDP port.
	Bridge string
	// Tap is the name of the bridge's other port into the overlay. When the kernel starts to carry a peer, the
	// addresses that the bridge learned behind it at this port move to the device.
	Tap string
	// Port is the UDP port of the device, here and on all peers.
	Port uint16
	// VNI is the VXLAN network identifier, of 24 bits and not 0. Frames with another one are not accepted. All peers have the same one,
	// as the kernel sends to addresses that it has learned with the VNI of its own device (RFC 7348; AgreeVNI).
	VNI uint32
	// MTU of the pods in bytes.
	MTU int
	// Local is the address at which the peers reach this node. A VXLAN device has the family of this address; peers of
	// the other family stay in userspace.
	Local netip.Addr
	// CopyDSCP makes datagrams leave with the DSCP of the frame in them. Otherwise they have DSCP 0. The kernel carries ECN in
	// either case.
	CopyDSCP bool
	// Under is the name of a tunnel through which the peers are reached, which authenticates their addresses; empty: the underlay. The
	// device goes with it, and nothing but VXLAN of the peers comes in through it.
	Under string
	// Self is this node's own ID.
	Self peer.ID
	// Translated: Local is the address of an address translator, and the routes choose that of datagrams.
	Translated bool
	// Ports makes the devices of pairs ports of Bridge; nil: there are no pairs.
	Ports Ports
	// Group is the log group of netfilter for the beginnings of pairs. One socket of a network namespace can have it. It is 0 without
	// Ports.
	Group uint16
	// Logger receives why a pair has no device; nil: nothing is logged.
	Logger *slog.Logger
}

// Ports are the ports of the bridge of the pods.
type Ports interface {
	// AddPort makes a device an isolated port and brings it up. SetPeers calls it, without a lock.
	AddPort(device string) error
}

var goodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,14}$`)

// GoodName reports whether a device may have the name.
func GoodName(name string) bool { return goodName.MatchString(name) }

// PairNames returns the pattern of nftables for the names of the devices of pairs that belong to the device called name.
func PairNames(name string) string { return name + pairMark + "*" }

// IsPair reports whether a link has the name of a pair that belongs to the device called name.
func IsPair(name, link string) bool { return strings.HasPrefix(link, name+pairMark) }

// pairMark is between the name of a device and the numbers of its pairs.
const pairMark = "."

// goodBridge excludes names that cannot be quoted in a rule, or that match more than one interface there.
var goodBridge = regexp.MustCompile(`^[!#-)+-~]{1,15}$`)

// Limits of Config.MTU: a probe with a token must fit, and the kernel accepts no more.
const (
	minMTU = carrier.ProbeLen + len(carrier.Token{})
	maxMTU = 65535 - Overhead6
)

// Validate returns an error that wraps ErrConfig and names the invalid field, or nil.
func (c Config) Validate() error {
	switch {
	case !GoodName(c.Name):
		return fmt.Errorf("vxlan: %w: Name %q", carrier.ErrConfig, c.Name)
	case !goodBridge.MatchString(c.Bridge) || c.Bridge == c.Name:
		return fmt.Errorf("vxlan: %w: Bridge %q", carrier.ErrConfig, c.Bridge)
	case c.Tap == c.Name || c.Tap == c.Bridge:
		return fmt.Errorf("vxlan: %w: Tap %q", carrier.ErrConfig, c.Tap)
	case c.Under != "" && (!goodBridge.MatchString(c.Under) || c.Under == c.Name || c.Under == c.Bridge):
		return fmt.Errorf("vxlan: %w: Under %q", carrier.ErrConfig, c.Under)
	case c.Port == 0:
		return fmt.Errorf("vxlan: %w: Port is 0", carrier.ErrConfig)
	case c.VNI == 0 || c.VNI > MaxVNI:
		return fmt.Errorf("vxlan: %w: VNI %d", carrier.ErrConfig, c.VNI)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return fmt.Errorf("vxlan: %w: MTU %d is outside %d to %d", carrier.ErrConfig, c.MTU, minMTU, maxMTU)
	case !Usable(c.Local):
		return fmt.Errorf("vxlan: %w: Local %s is not the address of a node", carrier.ErrConfig, c.Local)
	case c.Self.IsZero():
		return fmt.Errorf("vxlan: %w: Self is the zero ID", carrier.ErrConfig)
	case (c.Ports == nil) != (c.Group == 0):
		return fmt.Errorf("vxlan: %w: Ports and Group belong together", carrier.ErrConfig)
	}
	return nil
}

// Usable reports whether a can be the address of a node. Link-local addresses cannot: they need a zone, which a device
// without an underlying interface does not have.
func Usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
