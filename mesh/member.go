package mesh

import (
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/internal/identity"
	"weft/internal/peer"
	"weft/mesh/topology"
)

// State is the state of a member, as far as this node knows.
type State uint8

// States of a member. The zero State is invalid.
const (
	StateAlive State = iota + 1
	StateDead        // does not answer, and has not left
	StateLeft        // has announced that it leaves ("weft leave")
)

// String returns the state as in the JSON of the API.
func (s State) String() string {
	switch s {
	case StateAlive:
		return "alive"
	case StateDead:
		return "dead"
	case StateLeft:
		return "left"
	default:
		return "invalid"
	}
}

// Member describes a node of the network, as far as this node knows. Members are values: a snapshot of them does not
// change.
type Member struct {
	ID     peer.ID
	Name   string // nickname, not unique
	Self   bool
	State  State
	Addr   netip.Addr // underlay address, as the member advertises it
	Gossip uint16     // UDP and TCP port
	Data   uint16     // UDP port
	Public [peer.KeySize]byte
	Since  time.Time     // when it entered State, by this node's clock
	RTT    time.Duration // of the latest gossip probe; 0 before the first
	Skew   time.Duration // how far its clock is ahead of this node's, to within half of RTT; 0 when not known

	// Route is the route from this node to the member. It is zero when there is none, and for this node itself.
	Route topology.Route
	// DialOut means that the member accepts no connections: it is reached over links that it has opened itself.
	DialOut bool

	// Capabilities are the member's Config.Capabilities.
	Capabilities uint32
	// Ranges are the address ranges that the member has been started with, and Version is that of its program; empty: not known.
	// The slice is shared and must not be modified.
	Ranges  []netip.Prefix
	Version string
	// DNSDomain is the domain of the member's names; empty: the default.
	DNSDomain string
	// VNI is that of the VXLAN frames that the member accepts; 0: it accepts none.
	VNI uint32
	// Direct is what direct routing to the member needs, see package direct; empty: it takes no part. The slice is shared and must not be
	// modified.
	Direct []byte
	// Gateway is the MAC of the member's bridge, if answers to clients outside of the overlay go back to it; zero otherwise.
	Gateway ether.Addr
	// Certificate is the certificate that admitted the member; zero if it needed none.
	Certificate identity.Certificate
	// Refused is why the member, which is not alive for this node, is not admitted any more; 0 otherwise.
	Refused identity.Refusal
	// Accepts are the fingerprints of the secrets under which the member accepts traffic, its preferred one first. It is
	// empty when the member has no secret. The slice is shared and must not be modified.
	Accepts []uint32
}

// DataAddr returns the address at which the member receives datagrams of the datapath.
func (m Member) DataAddr() netip.AddrPort { return netip.AddrPortFrom(m.Addr, m.Data) }

// GossipAddr returns the address at which the member receives gossip.
func (m Member) GossipAddr() netip.AddrPort { return netip.AddrPortFrom(m.Addr, m.Gossip) }
