package router

import (
	"sync/atomic"

	"weft/internal/ether"
)

// Drop is a reason for which a frame or a datagram goes nowhere. The zero Drop is invalid.
type Drop uint8

// Reasons. Every frame and datagram that is not carried is counted under one.
const (
	// Of frames, from the TAP as from a peer.
	DropRunt      Drop = iota + 1 // shorter than an Ethernet header
	DropOversize                  // longer than the device's MTU and headers
	DropLinkLocal                 // for 01:80:c2:00:00:0x, which bridges must not forward
	DropBadSource                 // from a group address, or from none
	DropOffload                   // a superframe, or a checksum left to write, that contradicts its own headers

	// Of frames from the TAP.
	DropLocal       // for an address on this host: its bridge has not learned it yet
	DropNoPeer      // for everybody, or for one unknown, when there is no peer
	DropNoRoute     // for a peer that is reached neither itself nor over a relay, or by a relay that does not know how either
	DropNoSession   // for a peer with whom no session has come about in time
	DropTooBig      // longer than the path to the peer takes, and it may not be cut: its sender was told, if that is allowed
	DropSendTooLong // the datagram is larger than the path takes
	DropSend        // the datagram could not be sent otherwise

	// Of datagrams.
	DropUnknownPeer // from nobody that is a peer
	DropTruncated   // shorter than its headers
	DropVersion     // of another protocol version
	DropType        // of a type that is not taken here
	DropSession     // for a session that does not exist
	DropForged      // not sealed by the peer, or changed on its way
	DropReplayed    // came before
	DropCounter     // with a counter that no datagram of its session has
	DropNotSealed   // not sealed, and has to be
	DropMetadata    // whose metadata contradicts itself or the frame
	DropDevice      // its frame was refused by the TAP
	DropRelay       // relayed too far, or in a circle

	// Of messages of a handshake.
	DropSecret     // from somebody without a secret in common with this node, or without knowledge of its key
	DropBusy       // too many at once
	DropUnexpected // an answer to nothing
	DropCipher     // the peer would use none of this node's ciphers

	numDrops
)

var dropNames = [numDrops]string{
	DropRunt: "runt", DropOversize: "oversize", DropLinkLocal: "link_local", DropBadSource: "bad_source",
	DropOffload: "offload", DropLocal: "local", DropNoPeer: "no_peer", DropNoRoute: "no_route", DropNoSession: "no_session",
	DropTooBig: "too_big", DropSendTooLong: "send_too_long", DropSend: "send", DropUnknownPeer: "unknown_peer",
	DropTruncated: "truncated", DropVersion: "version", DropType: "type", DropSession: "session", DropForged: "forged",
	DropReplayed: "replayed", DropCounter: "counter", DropNotSealed: "not_sealed", DropMetadata: "metadata",
	DropDevice: "device", DropRelay: "relay", DropSecret: "secret", DropBusy: "busy", DropUnexpected: "unexpected", DropCipher: "cipher",
}

// String returns the reason as metrics and JSON have it.
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

// nonzero returns the counters that have counted something.
func (c *dropCounters) nonzero() map[Drop]uint64 {
	counts := map[Drop]uint64{}
	for d := range numDrops {
		if n := c[d].Load(); n > 0 {
			counts[d] = n
		}
	}
	return counts
}

// drop counts n drops of one reason, with from or to the peer h where one is known.
func (e *Engine) drop(h *hop, reason Drop, n int) {
	e.drops[reason].Add(uint64(n))
	if h != nil && h.state != nil {
		h.state.drops[reason].Add(uint64(n))
	}
}

// check returns why frame, or one of the frames of length bytes that it stands for, may not cross the overlay in either
// direction, or 0.
func check(frame []byte, length, longest int) Drop {
	switch {
	case len(frame) < ether.HeaderLen:
		return DropRunt
	case length > longest:
		return DropOversize
	case ether.Destination(frame).IsLinkLocal():
		return DropLinkLocal
	}
	if source := ether.Source(frame); source.IsMulticast() || source.IsZero() {
		return DropBadSource
	}
	return 0
}
