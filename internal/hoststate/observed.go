package hoststate

import (
	"net/netip"

	"weft/internal/ether"
)

// Observed is the network of this host as it is.
type Observed struct {
	Links map[string]Link // by name
	// Addresses, Routes and Local are those of the bridge: its addresses, the destinations of its routes without a gateway in the main
	// table, and those of its routes of type local in the table local.
	Addresses []netip.Prefix
	Routes    []netip.Prefix
	Local     []netip.Prefix
	// Deaf: the forwarding database of the bridge lacks the bridge's own MAC, as after "bridge fdb flush". The bridge floods frames to
	// this host, and the host does not get them.
	Deaf     bool
	Settings map[string]string // by the path below /proc/sys/net, without those that the kernel does not have
}

// Link is a network interface.
type Link struct {
	Name   string
	Index  int
	Kind   string // as "ip -d link" names it; empty: hardware
	Up     bool   // administratively
	Master string // name of the bridge that it is a port of; empty: none
	MTU    int    // bytes
	MAC    ether.Addr
	NoARP  bool // it neither asks for addresses nor answers
	Alias  string
	// Running: it has a carrier.
	Running bool
	// Port has the flags of a port of a bridge; nil: it is none. A flag that the kernel does not know is not there.
	Port map[Flag]bool
	// Options are those of a bridge; nil: it is none.
	Options map[Option]uint32
}
