// Package store keeps what a node's address allocator must not forget: the ring of each range, the node's votes in the
// founding, and the leases.
//
// Store is the seam. Bolt is the real one, a file; storetest.Memory is the fake, which can crash at every write. Package
// storetest holds the suite that both pass.
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
	// ErrCorrupt is wrapped by Open and Load when what is stored cannot be read.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrVersion is wrapped by Open when a later weft wrote the file in a way that this one does not know.
	ErrVersion = errors.New("store: written by a later weft")
)

// Store is durable state. Its methods may be called concurrently.
type Store interface {
	// Load returns all that is stored; it is the caller's to keep. A store never written to is empty.
	Load() (State, error)
	// Update runs f on a transaction and, if f returns nil, makes all that f changed durable at once before it returns.
	// Where f returns an error nothing changes and Update returns that error. After any other error the change may be
	// stored or not: Load tells. The Tx is valid until f returns.
	Update(f func(Tx) error) error
	// Close gives the store back; nothing may be called after it.
	Close() error
}

// Tx changes durable state.
type Tx interface {
	// SetSelf stores whose state this is.
	SetSelf(self peer.ID) error
	// SetRing stores the encoded ring of the range, which the store does not look into.
	SetRing(cidr netip.Prefix, ring []byte) error
	// SetVote stores this node's encoded vote in the founding of the range, which the store does not look into.
	SetVote(cidr netip.Prefix, vote []byte) error
	// SetDecree stores this node's encoded part in the decree about what gone owns of the range; nil removes it.
	SetDecree(cidr netip.Prefix, gone peer.ID, decree []byte) error
	// PutLease stores a lease; it replaces one of the same address.
	PutLease(lease Lease) error
	// DeleteLease removes the lease of an address, if there is one.
	DeleteLease(addr netip.Addr) error
}

// State is all that a store holds.
type State struct {
	Source string // what a person would call where it is stored: the path of the file
	Self   peer.ID
	Ranges map[netip.Prefix]Range
	Leases []Lease // sorted by address
}

// Range is what is stored for one range.
type Range struct {
	Ring []byte // nil where none was stored
	Vote []byte // nil where none was stored
	// Decrees are this node's parts in the decrees about what nodes own that are gone, by these; nil for none.
	Decrees map[peer.ID][]byte
}

// Lease says that an owner holds an address.
type Lease struct {
	Holder string       // who holds it, in the words of the caller of the allocator; never empty
	Addr   netip.Addr   // unique
	In     netip.Prefix // what was asked for: a range or a part of it
	Since  time.Time    // when it was given out, to the nanosecond, in UTC
}
