package underlay

import "strings"

// Features is the set of features of the kernel that a socket uses.
type Features uint8

// The offloads, since Linux 4.18 and 5.0, and the program that selects a socket, since Linux 4.5.
const (
	// GSO: UDP_SEGMENT; many datagrams of one size cross the network stack of the sender as one message.
	GSO Features = 1 << iota
	// GRO: UDP_GRO; datagrams of one size from one sender cross the network stack of the receiver as one message.
	GRO
	// Steering: SO_ATTACH_REUSEPORT_CBPF; each socket of ListenQueues receives from the entropy ports with its number. A single socket has
	// no need of it.
	Steering
)

// Has reports whether f has all of other.
func (f Features) Has(other Features) bool { return f&other == other }

// Names returns the names of the features in f, in the order "gso", "gro", "steering".
func (f Features) Names() []string {
	var names []string
	if f.Has(GSO) {
		names = append(names, "gso")
	}
	if f.Has(GRO) {
		names = append(names, "gro")
	}
	if f.Has(Steering) {
		names = append(names, "steering")
	}
	return names
}

// String returns the names separated by commas, and "none" for the zero Features.
func (f Features) String() string {
	if f == 0 {
		return "none"
	}
	return strings.Join(f.Names(), ",")
}
