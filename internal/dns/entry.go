package dns

import (
	"cmp"
	"net/netip"
	"time"

	"weft/internal/peer"
)

// Entry says that a node has a name for an address, or, Removed, that it no longer has: a tombstone.
type Entry struct {
	Node    peer.ID    // whose entry it is: that node alone changes it
	Name    string     // without the domain, as ParseName returns it
	Addr    netip.Addr // without a zone; IPv4 never as IPv6
	Owner   string     // of the lease or attachment that it is for; known on the node itself only
	Version uint64     // of two versions of one entry the higher one counts; from the node's clock, in nanoseconds
	Removed bool
	At      time.Time // when it was removed, by this node's clock; of other entries: when this node heard of this version
}

// maxVersion bounds versions, so that none is pushed to the end of its numbers by one mistake.
const maxVersion = 1 << 62

// key is an entry among those of its node.
type key struct {
	name string
	addr netip.Addr
}

// id is an entry among all.
type id struct {
	node peer.ID
	key
}

func (e *Entry) key() key { return key{e.Name, e.Addr} }
func (e *Entry) id() id   { return id{e.Node, e.key()} }

// supersedes reports whether e counts where both e and old, of the same key, are known. Honest nodes use a version once;
// that a tombstone wins makes all nodes agree even so.
func (e *Entry) supersedes(old Entry) bool {
	if e.Version != old.Version {
		return e.Version > old.Version
	}
	return e.Removed && !old.Removed
}

// valid reports whether e may stand in a registry.
func (e *Entry) valid() bool {
	return !e.Node.IsZero() && e.Version > 0 && e.Version <= maxVersion && validName(e.Name) && validAddr(e.Addr)
}

// validAddr reports whether something can be reached at a, in the form in which addresses are kept.
func validAddr(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

// compareEntries orders entries by name, node and address.
func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), a.Node.Compare(b.Node), a.Addr.Compare(b.Addr))
}
