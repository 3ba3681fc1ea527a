// Package store keeps the durable state of a node's address allocator: the ring of each range, the node's states in the
// Paxos instances of the range (bootstrap and reclaims), and the leases.
//
// Store is the seam. Bolt is the real implementation, a file; storetest.Memory is the fake, which can crash at every
// write. Package storetest holds the suite that both pass.
package store

import (
	"errors"
	"net/netip"
	"time"

	"weft/internal/peer"
)

// Errors that callers branch on.
var (
	// ErrInUse is wrapped by Open when another process has the file open.
	ErrInUse = errors.New("store: in use by another weft")
	// ErrCorrupt is wrapped by Open and Load when the stored state cannot be read.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrVersion is wrapped by Open when a later weft wrote the file in a format that this one does not know.
	ErrVersion = errors.New("store: written by a later weft")
)

// Store is durable state. Its methods may be called concurrently.
type Store interface {
	// Load returns all that is stored, as a copy that the caller owns. A store that was never written is empty.
	Load() (State, error)
	// Update runs f on a transaction and, if f returns nil, makes all changes of f durable at once before it returns.
	// Where f returns an error nothing changes and Update returns that error. After any other error the changes may or
	// may not be durable: Load shows which. The Tx is valid until f returns.
	Update(f func(Tx) error) error
	// Close releases the store; no method may be called after it.
	Close() error
}

// Tx changes durable state.
type Tx interface {
	// SetSelf stores the ID of the node that the state belongs to.
	SetSelf(self peer.ID) error
	// SetRing stores the encoded ring of the range, which is opaque to the store.
	SetRing(cidr netip.Prefix, ring []byte) error
	// SetBootstrapState stores this node's encoded state in the bootstrap instance of the range, which is opaque to the
	// store.
	SetBootstrapState(cidr netip.Prefix, state []byte) error
	// SetReclaimState stores this node's encoded acceptor state in the reclaim instance of the range and dead; nil
	// removes it.
	SetReclaimState(cidr netip.Prefix, dead peer.ID, state []byte) error
	// PutLease stores a lease; it replaces a lease of the same address.
	PutLease(lease Lease) error
	// DeleteLease removes the lease of an address, if there is one.
	DeleteLease(addr netip.Addr) error
}

// State is all that a store holds.
type State struct {
	Source string // where it is stored, for messages: the path of the file
	Self   peer.ID
	Ranges map[netip.Prefix]Range
	Leases []Lease // sorted by address
}

// Range is what is stored for one range.
type Range struct {
	Ring           []byte // nil where none is stored
	BootstrapState []byte // nil where none is stored
	// ReclaimStates are this node's acceptor states in reclaim instances, by dead node; nil for none.
	ReclaimStates map[peer.ID][]byte
}

// Lease records that a holder has an address.
type Lease struct {
	Holder string       // as the caller of the allocator named it; never empty
	Addr   netip.Addr   // unique
	In     netip.Prefix // the prefix that was requested: a range or a part of it
	Since  time.Time    // when it was allocated, to the nanosecond, in UTC
}
