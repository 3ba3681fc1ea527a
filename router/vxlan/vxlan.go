// Package vxlan is the kernel's way from node to node: a VXLAN device (RFC 7348) that is a second port of the pods'
// bridge beside the TAP, so that frames which nothing has to seal or relay never enter userspace.
//
//	pods --- bridge "weave" --+-- TAP "weft0"      --- router --- peers that are carried in userspace
//	                          +-- VXLAN "weftvx"   ------------- peers that are carried by the kernel
//
// Both ports are isolated: what one delivers never leaves by the other. A frame for everybody goes out of both; the
// router sends it to its peers, the device to those that have a flood entry. So each peer must be with one of the two,
// and a Switch sees to that: it sends probes over the kernel path itself, and moves a peer to it once they have come
// back several times in a row, and away from it within a second when they no longer do.
//
// File by file: probe.go is what a probe looks like on the wire and path.go the decision of one peer, both without
// I/O; switch.go, members.go and program.go are the engine that runs the paths; device_linux.go is the device,
// conflict_linux.go what may be in its way, fdb_linux.go and tables_linux.go its forwarding entries and the bridge's,
// socket_linux.go the probes' way in and out, and filter.go who may send to it.
package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"weft/internal/ether"
	"weft/internal/peer"
)

// VNI is the VXLAN network identifier of the overlay. It is the same on all nodes and tells nothing apart: a network
// has its UDP port for itself.
const VNI = 6783

// Overhead is what VXLAN adds to a frame's payload on the underlay: an IP header, UDP 8, VXLAN 8, the inner Ethernet
// header 14. The router's own format adds more, so that the pods' MTU always fits.
const (
	Overhead4 = 20 + 8 + 8 + ether.HeaderLen
	Overhead6 = 40 + 8 + 8 + ether.HeaderLen
)

// Errors that callers branch on; they are wrapped in sentences that name what is in the way and the mend.
var (
	// ErrConfig: a field of a configuration cannot be meant.
	ErrConfig = errors.New("bad configuration")
	// ErrNoVXLAN: the kernel has no VXLAN driver, or the process may not use it.
	ErrNoVXLAN = errors.New("the kernel makes no VXLAN devices")
	// ErrForeign: a device that is not weft's has the name, or has VXLAN's UDP port.
	ErrNotOurs = errors.New("another device is in the way")
	// ErrPortInUse: a program listens on the UDP port.
	ErrPortInUse = errors.New("the UDP port is in use")
	// ErrNoFilter: nftables does not work, and without a filter anybody could send into the overlay.
	ErrNoFilter = errors.New("nftables does not work")
	// ErrGone: somebody has deleted the device.
	ErrGone = errors.New("the device is gone")
	// ErrUnknownPeer: the peer is not among those of the last SetPeers.
	ErrUnknownPeer = errors.New("unknown peer")
)

// Peer is what must be known of a node to reach it through the kernel.
type Peer struct {
	ID peer.ID
	// Addr is the node's address on the underlay: where its device is reached, and where its datagrams come from. Its
	// family is that of Config.Local, and no other peer has it.
	Addr netip.Addr
}

// Config says what device Open makes.
type Config struct {
	// Name of the device: letters, digits, dots, dashes and underscores, a letter first, at most 15. The table of
	// nftables has a name that is made of it.
	Name string
	// Bridge is the name of the pods' bridge. What comes from there may not reach the device's UDP port.
	Bridge string
	// Tap is the name of the bridge's other port into the overlay: what the bridge has learned there of a peer that the
	// kernel carries from now on moves to the device.
	Tap string
	// Port is the UDP port of the device, here and on all peers.
	Port uint16
	// MTU in bytes, the pods'.
	MTU int
	// Local is the address that the peers know this node by. A VXLAN device is of one family, that of this address;
	// peers of the other have to stay in userspace.
	Local netip.Addr
	// Self is this node's own ID.
	Self peer.ID
}

var goodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,14}$`)

// goodBridge keeps out what could not be quoted in a rule, or would match more than one interface.
var goodBridge = regexp.MustCompile(`^[!#-)+-~]{1,15}$`)

// Limits of Config.MTU: a probe must fit, and the kernel takes no more.
const (
	minMTU = probeLen
	maxMTU = 65535 - Overhead6
)

// Validate returns an error that wraps ErrConfig and names the field that is wrong, or nil.
func (c Config) Validate() error {
	switch {
	case !goodName.MatchString(c.Name):
		return fmt.Errorf("vxlan: %w: Name %q", ErrConfig, c.Name)
	case !goodBridge.MatchString(c.Bridge) || c.Bridge == c.Name:
		return fmt.Errorf("vxlan: %w: Bridge %q", ErrConfig, c.Bridge)
	case c.Tap == c.Name || c.Tap == c.Bridge:
		return fmt.Errorf("vxlan: %w: Tap %q", ErrConfig, c.Tap)
	case c.Port == 0:
		return fmt.Errorf("vxlan: %w: Port is 0", ErrConfig)
	case c.MTU < minMTU || c.MTU > maxMTU:
		return fmt.Errorf("vxlan: %w: MTU %d is outside %d to %d", ErrConfig, c.MTU, minMTU, maxMTU)
	case !usable(c.Local):
		return fmt.Errorf("vxlan: %w: Local %s is no node's address", ErrConfig, c.Local)
	case c.Self.IsZero():
		return fmt.Errorf("vxlan: %w: Self is the zero ID", ErrConfig)
	}
	return nil
}

// usable reports whether datagrams can go from node to node with a as an end. Link-local addresses need a zone, which
// a device without an underlying interface does not have.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

// ProbeMAC returns the address of the VXLAN device of the node id, to which it is sent probes: unicast, locally
// administered. A bridge takes in what is addressed to one of its ports and forwards it nowhere, so pods never see a
// probe. The first byte is as high as can be, as a bridge without an address of its own takes the lowest of its ports'.
func ProbeMAC(id peer.ID) ether.Addr {
	return ether.Addr{0xfe, id[0], id[1], id[2], id[3], id[4]}
}
