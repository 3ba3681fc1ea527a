package dns

import (
	"cmp"
	"net/netip"
	"time"

	"weft/internal/peer"
)

// Entry states that a node has a name for an address, or, when Removed is set, that it no longer has it: a tombstone.
type Entry struct {
	Node    peer.ID    // the node that made the entry; only that node changes it
	Name    string     // without the domain, as ParseName returns it
	Addr    netip.Addr // without a zone, and not IPv4 mapped to IPv6
	Holder  string     // holder of the lease or attachment that the name is for; known on the node itself only
	Version uint64     // of two versions of one entry the higher one counts; made from the node's clock, in nanoseconds
	Removed bool
	// Withdrawn is set in a tombstone of this node with which its entry can come back: see Registry.Withdraw. It has its Holder. Other
	// nodes do not know it.
	Withdrawn bool
	At        time.Time // when it was removed, by this node's clock; for other entries, when this node received this version
}

// maxVersion bounds versions, so that one bad version cannot use up the numbers.
const maxVersion = 1 << 62

// maxAhead is how far ahead of a node's clock a version may be, 80 years: clocks that begin in 1970 and clocks that are decades
// ahead are no obstacle. The bound grows with the clock, so a node can always exceed a version that others have made up for it.
const maxAhead = 80 * 365 * 24 * time.Hour

// isTimely reports whether the version of e is one that a node accepts at now.
func (e *Entry) isTimely(now time.Time) bool {
	return e.Version <= uint64(max(now.Add(maxAhead).UnixNano(), 0))
}

// key identifies an entry among those of its node.
type key struct {
	name string
	addr netip.Addr
}

// id identifies an entry among all.
type id struct {
	node peer.ID
	key
}

func (e *Entry) key() key { return key{e.Name, e.Addr} }
func (e *Entry) id() id   { return id{e.Node, e.key()} }

// supersedes reports whether e replaces old, which has the same key. A correct node uses a version once. For a version that
// was used twice the tombstone wins, so that all nodes agree in any case.
func (e *Entry) supersedes(old Entry) bool {
	if e.Version != old.Version {
		return e.Version > old.Version
	}
	return e.Removed && !old.Removed
}

// valid reports whether e may be in a registry.
func (e *Entry) valid() bool {
	return !e.Node.IsZero() && e.Version > 0 && e.Version <= maxVersion && validName(e.Name) && validAddr(e.Addr)
}

// validAddr reports whether a is the address of a host, in the form in which a registry keeps addresses.
func validAddr(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

// compareEntries compares entries by name, node and address.
func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), a.Node.Compare(b.Node), a.Addr.Compare(b.Addr))
}
