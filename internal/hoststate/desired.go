package hoststate

import (
	"net/netip"

	"weft/internal/ether"
)

// Desired is the network of this host as weft wants it. What it does not mention is not ours.
type Desired struct {
	Bridge  Bridge
	Tunnels []Tunnel
	Pods    map[string]Pod // by the name of the host end
	PodMTU  int            // MTU of the overlay in bytes: a pod with that one is right, too
	// Addresses are the addresses of the bridge, each with the length of its subnet.
	Addresses []netip.Prefix
	Settings  []Setting
}

// Bridge is the pods' bridge.
type Bridge struct {
	Name string
	MTU  int        // bytes; 0: any
	MAC  ether.Addr // zero: any
	// Alias marks a bridge that weft made; empty: any.
	Alias string
	// Made: weft made the bridge, so its options are those of Options. Otherwise they belong to its owner.
	Made bool
}

// Tunnel is a port of the bridge that leads into the overlay: the TAP, or the VXLAN device. Tunnels are isolated, so that the bridge
// forwards no frame from one to another, which would be a loop.
type Tunnel struct {
	Name string
	MTU  int        // bytes; 0: any
	MAC  ether.Addr // zero: any
}

// Pod is the host end of a pod's pair.
type Pod struct {
	MTU     int // bytes; a higher one is right, too
	Hairpin bool
	Alias   string // the record of its attachment, which another program has overwritten; empty: it has not
}

// Option is an option of a bridge, as "ip -d link" names it.
type Option string

// Options of a bridge that weft made, with their values.
const (
	STP           Option = "stp_state"
	VLANFiltering Option = "vlan_filtering"
	Snooping      Option = "mcast_snooping"
	GroupForward  Option = "group_fwd_mask"
	AgingTime     Option = "ageing_time" //nolint:misspell // the kernel's name; in hundredths of a second
	// NoLinkLocalLearn keeps the bridge from learning the sources of frames to groups that bridges do not forward. Those to the group of
	// LLDP pass no hook of netfilter, so a pod could take the MAC of another one.
	NoLinkLocalLearn Option = "no_linklocal_learn"
)

// options are the values of the options of a bridge that weft made. bridge.Ensure makes it like that, but for NoLinkLocalLearn, which is
// set at the first look.
var options = []struct {
	option Option
	value  uint32
}{{STP, 0}, {VLANFiltering, 0}, {Snooping, 0}, {GroupForward, 0}, {AgingTime, 30000}, {NoLinkLocalLearn, 1}}

// Flag is a flag of a bridge's port, as "ip -d link" names it.
type Flag string

// Flags of ports.
const (
	Isolated      Flag = "isolated"
	Hairpin       Flag = "hairpin"
	Learning      Flag = "learning"
	Flood         Flag = "flood"
	McastFlood    Flag = "mcast_flood"
	BcastFlood    Flag = "bcast_flood"
	RootBlock     Flag = "root_block"
	Locked        Flag = "locked"
	NeighSuppress Flag = "neigh_suppress"
	// Forwarding is the state of a port. The kernel sets it where the link has a carrier.
	Forwarding Flag = "forwarding"
)

// commonFlags are the flags that tunnels and pods have in common.
var commonFlags = []flagValue{
	{Learning, true}, {Flood, true}, {McastFlood, true}, {BcastFlood, true}, {RootBlock, false}, {Locked, false}, {NeighSuppress, false},
	{Forwarding, true},
}

type flagValue struct {
	flag Flag
	on   bool
}
