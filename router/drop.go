package router

import (
	"slices"
	"sync/atomic"

	"weft/internal/ether"
)

// Drop is a reason for which a frame or a datagram is dropped. The zero Drop is invalid.
type Drop uint8

// Reasons; dropReasons has their meanings. Every frame and datagram that is not carried is counted under one.
const (
	// Of frames, from the TAP and from peers.
	DropRunt Drop = iota + 1
	DropFrameExceedsDeviceMTU
	DropLinkLocal
	DropBadSource
	DropOffload

	// Of frames from the TAP.
	DropLocal
	DropNoPeer
	DropNoRoute
	DropNoSession
	DropFrameExceedsPathMTU
	DropDatagramExceedsLinkMTU
	DropSend

	// Of datagrams.
	DropUnknownPeer
	DropTruncated
	DropVersion
	DropType
	DropSession
	DropForged
	DropReplayed
	DropCounter
	DropNotSealed
	DropMetadata
	DropDevice
	DropRelay
	DropForeignSource
	DropNotECT
	DropQueue

	// Of messages of a handshake.
	DropSecret
	DropBusy
	DropUnexpected
	DropCipher

	numDrops
)

// DropReason describes a reason.
type DropReason struct {
	Name    string // the value of the label `reason`; dashboards and alerts depend on it
	Meaning string // which frames or datagrams are counted, as a phrase
}

// dropReasons describes all reasons.
var dropReasons = [numDrops]DropReason{
	DropRunt:                  {"runt", "shorter than an Ethernet header"},
	DropFrameExceedsDeviceMTU: {"frame_exceeds_device_mtu", "longer than the device's MTU and headers"},
	DropLinkLocal:             {"link_local", "to 01:80:c2:00:00:0x, which bridges must not forward"},
	DropBadSource:             {"bad_source", "with a multicast or zero source address"},
	DropOffload:               {"offload", "a superframe, or an incomplete checksum, that contradicts its own headers"},
	DropLocal:                 {"local", "to an address on this host: its bridge has not learned it yet"},
	DropNoPeer:                {"no_peer", "to an unknown address, while there is no peer"},
	DropNoRoute:               {"no_route", "to a peer without a direct link and without a relay, or a relayed datagram without a route"},
	DropNoSession:             {"no_session", "to a peer with which no session was made in time"},
	DropFrameExceedsPathMTU: {"frame_exceeds_path_mtu",
		"longer than the path to the peer takes, and cannot be fragmented: its sender is informed if possible"},
	DropDatagramExceedsLinkMTU: {"datagram_exceeds_link_mtu", "its datagram is larger than the MTU of this host's own link"},
	DropSend:                   {"send", "its datagram could not be sent for another reason"},
	DropUnknownPeer:            {"unknown_peer", "from a node that is not a peer"},
	DropTruncated:              {"truncated", "shorter than its headers"},
	DropVersion:                {"version", "of another protocol version"},
	DropType:                   {"type", "of a type that is not accepted here"},
	DropSession:                {"session", "of an unknown session"},
	DropForged:                 {"forged", "not sealed by the peer, or modified on its way"},
	DropReplayed:               {"replayed", "received before"},
	DropCounter:                {"counter", "with a counter that no datagram of its session has"},
	DropNotSealed:              {"not_sealed", "not sealed, and must be"},
	DropMetadata:               {"metadata", "with metadata that contradicts itself or the frame"},
	DropDevice:                 {"device", "its frame was refused by the TAP"},
	DropRelay:                  {"relay", "relayed too often, or in a circle"},
	DropForeignSource: {"foreign_source",
		"from a peer, with the source address of another node's pod, while --source-check is \"enforce\""},
	DropNotECT: {"not_ect", "of a packet without ECN, in a datagram that the underlay has marked as congested (CE, RFC 6040)"},
	DropQueue: {"queue",
		"of a bulk transfer, so that its sender slows down: frames of pods wait too long for this node (CoDel, RFC 8289)"},
	DropSecret:     {"secret", "from a sender that has no secret in common with this node, or does not know its key"},
	DropBusy:       {"busy", "too many at once"},
	DropUnexpected: {"unexpected", "an answer to nothing, or a request that its sender may not make"},
	DropCipher:     {"cipher", "the peer can use none of this node's ciphers"},
}

// DropReasons returns all reasons, in the order of the constants. The slice is the caller's.
func DropReasons() []DropReason { return slices.Clone(dropReasons[1:]) }

// String returns the reason as it appears in metrics and JSON.
func (d Drop) String() string {
	if d == 0 || d >= numDrops {
		return "invalid"
	}
	return dropReasons[d].Name
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (d Drop) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// dropCounters counts drops by reason.
type dropCounters [numDrops]atomic.Uint64

// nonzero returns the counters that are not 0.
func (c *dropCounters) nonzero() map[Drop]uint64 {
	counts := map[Drop]uint64{}
	for d := range numDrops {
		if n := c[d].Load(); n > 0 {
			counts[d] = n
		}
	}
	return counts
}

// drop counts n drops of one reason, of frames or datagrams from or to the peer v, which may be nil.
func (e *Engine) drop(v *peerView, reason Drop, n int) {
	e.drops[reason].Add(uint64(n))
	if v != nil {
		v.drops[reason].Add(uint64(n))
	}
}

// check returns the reason for which frame, or one of the frames of length bytes that it stands for, must not cross the
// overlay in either direction; 0 if there is none.
func check(frame []byte, length, longest int) Drop {
	switch {
	case len(frame) < ether.HeaderLen:
		return DropRunt
	case length > longest:
		return DropFrameExceedsDeviceMTU
	case ether.Destination(frame).IsLinkLocal():
		return DropLinkLocal
	}
	if source := ether.Source(frame); source.IsMulticast() || source.IsZero() {
		return DropBadSource
	}
	return 0
}
