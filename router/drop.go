package router

import (
	"sync/atomic"

	"weft/internal/ether"
)

// Drop is a reason for which a frame or a datagram is dropped. The zero Drop is invalid.
type Drop uint8

// Reasons. Every frame and datagram that is not carried is counted under one.
const (
	// Of frames, from the TAP and from peers.
	DropRunt                  Drop = iota + 1 // shorter than an Ethernet header
	DropFrameExceedsDeviceMTU                 // longer than the device's MTU and headers
	DropLinkLocal                             // to 01:80:c2:00:00:0x, which bridges must not forward
	DropBadSource                             // with a multicast or zero source address
	DropOffload                               // a superframe, or an incomplete checksum, that contradicts its own headers

	// Of frames from the TAP.
	DropLocal                  // to an address on this host: its bridge has not learned it yet
	DropNoPeer                 // to all peers, or to an unknown address, while there is no peer
	DropNoRoute                // to a peer without a direct link and without a relay, or a relayed datagram without a route
	DropNoSession              // to a peer with which no session was made in time
	DropFrameExceedsPathMTU    // longer than the path to the peer takes, and cannot be fragmented: its sender is informed if possible
	DropDatagramExceedsLinkMTU // its datagram is larger than the MTU of this host's own link
	DropSend                   // its datagram could not be sent for another reason

	// Of datagrams.
	DropUnknownPeer // from a node that is not a peer
	DropTruncated   // shorter than its headers
	DropVersion     // of another protocol version
	DropType        // of a type that is not accepted here
	DropSession     // of an unknown session
	DropForged      // not sealed by the peer, or modified on its way
	DropReplayed    // received before
	DropCounter     // with a counter that no datagram of its session has
	DropNotSealed   // not sealed, and must be
	DropMetadata    // with metadata that contradicts itself or the frame
	DropDevice      // its frame was refused by the TAP
	DropRelay       // relayed too often, or in a circle

	// Of messages of a handshake.
	DropSecret     // from a sender that has no secret in common with this node, or does not know its key
	DropBusy       // too many at once
	DropUnexpected // an answer to nothing
	DropCipher     // the peer can use none of this node's ciphers

	numDrops
)

// dropNames are the values of the label `reason`. Dashboards and alerts depend on them.
var dropNames = [numDrops]string{
	DropRunt: "runt", DropFrameExceedsDeviceMTU: "frame_exceeds_device_mtu", DropLinkLocal: "link_local",
	DropBadSource: "bad_source", DropOffload: "offload", DropLocal: "local", DropNoPeer: "no_peer", DropNoRoute: "no_route",
	DropNoSession: "no_session", DropFrameExceedsPathMTU: "frame_exceeds_path_mtu",
	DropDatagramExceedsLinkMTU: "datagram_exceeds_link_mtu", DropSend: "send", DropUnknownPeer: "unknown_peer",
	DropTruncated: "truncated", DropVersion: "version", DropType: "type", DropSession: "session", DropForged: "forged",
	DropReplayed: "replayed", DropCounter: "counter", DropNotSealed: "not_sealed", DropMetadata: "metadata",
	DropDevice: "device", DropRelay: "relay", DropSecret: "secret", DropBusy: "busy", DropUnexpected: "unexpected", DropCipher: "cipher",
}

// String returns the reason as it appears in metrics and JSON.
func (d Drop) String() string {
	if d == 0 || d >= numDrops {
		return "invalid"
	}
	return dropNames[d]
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
