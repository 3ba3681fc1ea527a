package ipam

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// MaxInitPeers is the highest Config.InitPeers. It is half of the acceptors that a node remembers: in a network with
// more nodes than that, a node that remembers nearly all it can rejects messages with more new acceptors than it has
// room for, so it may never count the last few, and the range would never be divided.
//
// The range is divided among at most paxos.MaxValue of the bootstrap nodes, those with the lowest IDs; the others then
// request a share.
const MaxInitPeers = paxos.MaxAcceptors / 2

// MaxDelta is the length in bytes of the longest delta that is passed to Gossip.Broadcast.
const MaxDelta = 1000

// Gossip sends messages to the allocators of other nodes; the mesh implements it. Its methods may be called
// concurrently. They are called with nothing locked, and may keep the slices.
type Gossip interface {
	// Broadcast sends delta, at most MaxDelta bytes, to all nodes. Deltas may be lost, delayed or repeated. It must not
	// block.
	Broadcast(delta []byte)
	// Unicast sends msg to one node. While both nodes live the message arrives, after any delay; an error means that it
	// cannot be sent. It must not block for long, nor wait until the other node handles msg.
	Unicast(to peer.ID, msg []byte) error
}

// Membership is what the Allocator knows of the nodes of the network. Its methods may be called concurrently, and also
// while the Allocator is locked: they must neither call the Allocator nor wait for a goroutine that does.
type Membership interface {
	// Reachable reports whether a node is alive and can be sent messages.
	Reachable(id peer.ID) bool
	// Awaited reports whether a node that is not reachable may be so within seconds: it is alive without a route, or this
	// node has just started and has not met it yet.
	Awaited(id peer.ID) bool
	// Members returns the nodes of the network that have not left, alive or dead. The owners of addresses need not be
	// among them: the Allocator knows those itself.
	Members() []peer.ID
	// Name returns the name of a node for messages; an empty name stands for its ID.
	Name(id peer.ID) string
}

// Apart knows subnets for holders in them alone, besides those for which the node has leases. It is called as Membership is.
type Apart interface {
	// Subnets returns them, in any order. Other holders get addresses in them only where this node has no others.
	Subnets() []netip.Prefix
}

// Events is notified of changes of the ranges. Its methods are called with nothing locked, from the goroutine that made
// the change, and may call the Allocator.
type Events interface {
	// Bootstrapped is called after a range has been divided for the first time, as far as this node knows, and before the new
	// ring is sent to other nodes. ids are the cluster IDs of all ranges that are divided; the map is the callee's.
	Bootstrapped(ids map[netip.Prefix]ring.ClusterID)
	// Reclaimed is called after the addresses of a dead node were assigned to another one, if this node had agreed to it.
	Reclaimed(dead peer.ID)
}

// Config configures an Allocator. Fields without a default must be set.
type Config struct {
	Self   peer.ID
	Ranges []netip.Prefix // the ranges to allocate from: one per address family, or several that do not overlap

	// InitPeers is how many bootstrap nodes must meet before a range is first divided, at most MaxInitPeers; 0 makes
	// this node an observer, which takes no part in that. Nodes that are started together should all have the same
	// number, that of all of them.
	InitPeers int
	// Lazy delays the bootstrap until the first address is requested, for a lone node that may be joined to others
	// later.
	// See docs/adr/0004-lazy-bootstrap.md.
	Lazy bool

	Store  store.Store // open; the caller closes it after Run has returned
	Gossip Gossip

	Membership Membership   // nil: all nodes are reachable, the owners are the only members, and nodes have no names
	Events     Events       // nil: none
	Apart      Apart        // nil: no further subnets
	Logger     *slog.Logger // nil: nothing is logged
	Rand       rand.Source  // used by the Allocator only; nil: as math/rand/v2
}

// Validate returns an error that names the first invalid field.
func (c *Config) Validate() error {
	switch {
	case c.Self.IsZero():
		return errors.New("ipam: Config.Self is not set")
	case len(c.Ranges) == 0:
		return errors.New("ipam: Config.Ranges is empty")
	case c.InitPeers < 0 || c.InitPeers > MaxInitPeers:
		return fmt.Errorf("ipam: Config.InitPeers is %d: not within 0 and %d", c.InitPeers, MaxInitPeers)
	case c.Store == nil:
		return errors.New("ipam: Config.Store is not set")
	case c.Gossip == nil:
		return errors.New("ipam: Config.Gossip is not set")
	}
	for i, cidr := range c.Ranges {
		if _, err := ring.New(cidr); err != nil {
			return fmt.Errorf("ipam: Config.Ranges: %w", err)
		}
		for _, other := range c.Ranges[:i] {
			if cidr.Overlaps(other) {
				return fmt.Errorf("ipam: Config.Ranges: %s overlaps %s", cidr, other)
			}
		}
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Membership == nil {
		c.Membership = noMembership{}
	}
	if c.Events == nil {
		c.Events = noEvents{}
	}
	if c.Apart == nil {
		c.Apart = noneApart{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Rand == nil {
		c.Rand = globalRand{}
	}
}

// noMembership is the Membership of a network without a mesh.
type noMembership struct{}

func (noMembership) Reachable(peer.ID) bool { return true }
func (noMembership) Awaited(peer.ID) bool   { return false }
func (noMembership) Members() []peer.ID     { return nil }
func (noMembership) Name(peer.ID) string    { return "" }

// noneApart is the Apart of a network without such subnets.
type noneApart struct{}

func (noneApart) Subnets() []netip.Prefix { return nil }

// noEvents ignores all events.
type noEvents struct{}

func (noEvents) Bootstrapped(map[netip.Prefix]ring.ClusterID) {}
func (noEvents) Reclaimed(peer.ID)                            {}

// globalRand is the randomness of math/rand/v2.
type globalRand struct{}

// Uint64 implements rand.Source.
func (globalRand) Uint64() uint64 { return rand.Uint64() } //nolint:gosec // only spreads load
