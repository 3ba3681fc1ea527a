package underlay

import "strings"

// Features is the set of a kernel's offloads that a socket uses. The zero Features is none.
type Features uint8

// The offloads, of Linux 4.18 and 5.0.
const (
	// GSO: UDP_SEGMENT, many datagrams of one size cross the sender's stack as one.
	GSO Features = 1 << iota
	// GRO: UDP_GRO, datagrams of one size from one sender cross the receiver's stack as one.
	GRO
)

// Has reports whether f has all of other.
func (f Features) Has(other Features) bool { return f&other == other }

// Names returns what f has, in a fixed order: "gso", "gro".
func (f Features) Names() []string {
	var names []string
	if f.Has(GSO) {
		names = append(names, "gso")
	}
	if f.Has(GRO) {
		names = append(names, "gro")
	}
	return names
}

// String returns the names with a comma between, and "none" for the zero Features.
func (f Features) String() string {
	if f == 0 {
		return "none"
	}
	return strings.Join(f.Names(), ",")
}
