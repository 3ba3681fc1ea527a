package mesh

import (
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/mesh/topology"
)

// State is how a member stands, as far as this node knows.
type State uint8

// States of a member. The zero State is invalid.
const (
	StateAlive State = iota + 1
	StateDead        // does not answer, and did not say good-bye
	StateLeft        // said good-bye ("weft leave")
)

// String returns the state's name in the JSON of the API.
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

// Member is what this node knows of a node of the network, itself included. Members are values: a snapshot of them
// does not change.
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
	RTT    time.Duration // of the last gossip probe; 0 before the first
	Skew   time.Duration // how far its clock is ahead of this node's, give or take half of RTT; 0 where not known

	// Route is how it is reached from this node; the zero Route of one that is not, and of this node itself.
	Route topology.Route
	// DialOut: it is reached only over links that it has opened itself.
	DialOut bool

	// Capabilities are the member's Config.Capabilities.
	Capabilities uint32
	// Accepts are the fingerprints of the secrets that the member can open, its preferred one first; none where it has
	// no secret. The slice is shared and never changed.
	Accepts []uint32
}

// DataAddr is where the member receives datagrams.
func (m Member) DataAddr() netip.AddrPort { return netip.AddrPortFrom(m.Addr, m.Data) }

// GossipAddr is where the member receives gossip.
func (m Member) GossipAddr() netip.AddrPort { return netip.AddrPortFrom(m.Addr, m.Gossip) }
