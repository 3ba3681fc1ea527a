package hoststate

import (
	"fmt"
	"net/netip"

	"weft/internal/ether"
)

// Kind is the kind of an action; a label of metrics.
type Kind string

// Kinds of actions.
const (
	MakeBridge Kind = "bridge"        // the bridge is gone
	Rename     Kind = "name"          // a link has another name
	SetAlias   Kind = "alias"         // a link has another alias than the one that records what it is
	SetMaster  Kind = "master"        // a link is no port of the bridge
	SetUp      Kind = "up"            // a link is down
	SetMTU     Kind = "mtu"           // a link has another MTU
	SetMAC     Kind = "mac"           // a link has another hardware address
	AddMAC     Kind = "own_mac"       // the bridge lacks its own MAC in its forwarding database
	SetARP     Kind = "arp"           // the bridge neither asks for addresses nor answers
	SetFlag    Kind = "port_flag"     // a port has another flag
	SetOption  Kind = "bridge_option" // a bridge has another option
	AddAddress Kind = "address"       // the bridge lacks an address
	AddRoute   Kind = "route"         // the bridge lacks the route to the subnet of an address
	AddLocal   Kind = "local_route"   // the host does not accept packets to an address of the bridge
	Set        Kind = "setting"       // a setting of the kernel has another value
)

// Kinds returns all kinds of actions.
func Kinds() []Kind {
	return []Kind{
		MakeBridge, Rename, SetAlias, SetMaster, SetUp, SetMTU, SetMAC, AddMAC, SetARP, SetFlag, SetOption, AddAddress, AddRoute,
		AddLocal, Set,
	}
}

// Action makes one part of the host as it should be. Fields that its Kind does not need are zero.
type Action struct {
	Kind   Kind
	Link   string       // the interface that it changes, by its present name; empty for Set
	Master string       // SetMaster: the bridge
	Tunnel bool         // SetMaster: the port is isolated at the same time
	MTU    int          // SetMTU: bytes
	MAC    ether.Addr   // SetMAC, AddMAC
	Flag   Flag         // SetFlag
	On     bool         // SetFlag
	Option Option       // SetOption
	Value  uint32       // SetOption
	Prefix netip.Prefix // AddAddress: address and length; AddRoute: the same, the route goes to its subnet; AddLocal: of one address
	Path   string       // Set: below /proc/sys/net
	Text   string       // Set: the value; Rename: the name; SetAlias: the alias
	Have   string       // what there is instead, for people; may be empty
}

// Object returns what an action is about: two actions with the same kind and object undo the same change.
func (a Action) Object() string {
	switch a.Kind {
	case SetFlag:
		return a.Link + " " + string(a.Flag)
	case SetOption:
		return a.Link + " " + string(a.Option)
	case AddAddress, AddRoute, AddLocal:
		return a.Prefix.String()
	case Set:
		return a.Path
	case Rename:
		return a.Text
	default:
		return a.Link
	}
}

// String says what is wrong, as a part of a sentence.
func (a Action) String() string {
	text := a.wrong()
	if a.Have != "" {
		text += " (it is " + a.Have + ")"
	}
	return text
}

func (a Action) wrong() string {
	switch a.Kind {
	case MakeBridge:
		return fmt.Sprintf("the bridge %s is missing", a.Link)
	case Rename:
		return fmt.Sprintf("%s has another name", a.Text)
	case SetAlias:
		return fmt.Sprintf("the alias of %s is not %q", a.Link, a.Text)
	case SetMaster:
		return fmt.Sprintf("%s is no port of %s", a.Link, a.Master)
	case SetUp:
		return fmt.Sprintf("%s is down", a.Link)
	case SetMTU:
		return fmt.Sprintf("the MTU of %s is not %d", a.Link, a.MTU)
	case SetMAC:
		return fmt.Sprintf("the MAC of %s is not %s", a.Link, a.MAC)
	case AddMAC:
		return fmt.Sprintf("the forwarding database of %s lacks its MAC", a.Link)
	case SetARP:
		return fmt.Sprintf("ARP of %s is off", a.Link)
	case SetFlag:
		return fmt.Sprintf("the port flag %s of %s is not %s", a.Flag, a.Link, onOff(a.On))
	case SetOption:
		return fmt.Sprintf("the option %s of %s is not %d", a.Option, a.Link, a.Value)
	case AddAddress:
		return fmt.Sprintf("%s lacks the address %s", a.Link, a.Prefix)
	case AddRoute:
		return fmt.Sprintf("the route to %s by %s is missing", a.Prefix.Masked(), a.Link)
	case AddLocal:
		return fmt.Sprintf("the local route of the address %s of %s is missing", a.Prefix.Addr(), a.Link)
	case Set:
		return fmt.Sprintf("the setting net/%s is not %s", a.Path, a.Text)
	}
	return string(a.Kind)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
