// Package drop lists the reasons for which frames and datagrams are dropped, and counts them.
package drop

import "sync/atomic"

// Reason is why a frame or a datagram is dropped. The zero Reason stands for none.
type Reason uint8

// Reasons; descriptions has their meanings. Every frame and datagram that is not carried is counted under one.
const (
	// Of frames, from the TAP and from peers.
	Runt Reason = iota + 1
	FrameExceedsDeviceMTU
	LinkLocal
	BadSource
	Offload

	// Of frames from the TAP.
	Local
	NoPeer
	NoRoute
	NoSession
	FrameExceedsPathMTU
	DatagramExceedsLinkMTU
	Send

	// Of datagrams.
	UnknownPeer
	Truncated
	Version
	Type
	Session
	Forged
	Replayed
	Counter
	NotSealed
	Metadata
	Device
	Relay
	ForeignSource
	NotECT
	Queue

	// Of messages of a handshake.
	Secret
	Busy
	Unexpected
	Cipher

	end
)

// description describes a reason.
type description struct {
	name    string // the value of the label `reason`; dashboards and alerts depend on it
	meaning string // which frames or datagrams are counted, as a phrase
}

// descriptions describes all reasons.
var descriptions = [end]description{
	Runt:                  {"runt", "shorter than an Ethernet header"},
	FrameExceedsDeviceMTU: {"frame_exceeds_device_mtu", "longer than the device's MTU and headers"},
	LinkLocal:             {"link_local", "to 01:80:c2:00:00:0x, which bridges must not forward"},
	BadSource:             {"bad_source", "with a multicast or zero source address"},
	Offload:               {"offload", "a superframe, or an incomplete checksum, that contradicts its own headers"},
	Local:                 {"local", "to an address on this host: its bridge has not learned it yet"},
	NoPeer:                {"no_peer", "to an unknown address, while there is no peer"},
	NoRoute:               {"no_route", "to a peer without a direct link and without a relay, or a relayed datagram without a route"},
	NoSession:             {"no_session", "to a peer with which no session was made in time"},
	FrameExceedsPathMTU: {"frame_exceeds_path_mtu",
		"longer than the path to the peer takes, and cannot be fragmented: its sender is informed if possible"},
	DatagramExceedsLinkMTU: {"datagram_exceeds_link_mtu", "its datagram is larger than the MTU of this host's own link"},
	Send:                   {"send", "its datagram could not be sent for another reason"},
	UnknownPeer:            {"unknown_peer", "from a node that is not a peer"},
	Truncated:              {"truncated", "shorter than its headers"},
	Version:                {"version", "of another protocol version"},
	Type:                   {"type", "of a type that is not accepted here"},
	Session:                {"session", "of an unknown session"},
	Forged:                 {"forged", "not sealed by the peer, or modified on its way"},
	Replayed:               {"replayed", "received before"},
	Counter:                {"counter", "with a counter that no datagram of its session has"},
	NotSealed:              {"not_sealed", "not sealed, and must be"},
	Metadata:               {"metadata", "with metadata that contradicts itself or the frame"},
	Device:                 {"device", "its frame was refused by the TAP"},
	Relay:                  {"relay", "relayed too often, or in a circle"},
	ForeignSource: {"foreign_source",
		"from a peer, with the source address of another node's pod, while --source-check is \"enforce\""},
	NotECT: {"not_ect", "of a packet without ECN, in a datagram that the underlay has marked as congested (CE, RFC 6040)"},
	Queue: {"queue",
		"of a bulk transfer, so that its sender slows down: frames of pods wait too long for this node (CoDel, RFC 8289)"},
	Secret:     {"secret", "from a sender that has no secret in common with this node, or does not know its key"},
	Busy:       {"busy", "too many at once"},
	Unexpected: {"unexpected", "an answer to nothing, or a request that its sender may not make"},
	Cipher:     {"cipher", "the peer can use none of this node's ciphers"},
}

// All returns all reasons, in the order of the constants. The slice is the caller's.
func All() (all []Reason) {
	for r := Reason(1); r < end; r++ {
		all = append(all, r)
	}
	return all
}

// String returns the reason as it appears in metrics and JSON.
func (r Reason) String() string {
	if r == 0 || r >= end {
		return "invalid"
	}
	return descriptions[r].name
}

// Meaning returns which frames or datagrams are counted under a valid reason, as a phrase.
func (r Reason) Meaning() string { return descriptions[r].meaning }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Counters count drops by reason. The zero Counters are ready for use; methods may be called concurrently.
type Counters [end]atomic.Uint64

// Add counts n drops.
func (c *Counters) Add(r Reason, n int) { c[r].Add(uint64(n)) }

// Nonzero returns the counters that are not 0.
func (c *Counters) Nonzero() map[Reason]uint64 {
	counts := map[Reason]uint64{}
	for r := range end {
		if n := c[r].Load(); n > 0 {
			counts[r] = n
		}
	}
	return counts
}
