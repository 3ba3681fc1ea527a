// Package holder types the holders of leases: what an address is leased for. A holder has one text form, in which it is
// stored on disk, sent over the API and shown by "weft ip list"; only this package writes and parses it.
package holder

import (
	"path/filepath"
	"strings"

	"weft/internal/ether"
	"weft/internal/podlink"
)

// Kind says what sort of thing holds a lease. The zero Kind is invalid.
type Kind uint8

// Kinds of holders.
const (
	Container Kind = iota + 1 // an interface that a container runtime added through CNI
	Docker                    // an endpoint of a Docker network
	Namespace                 // an interface in a network namespace, of "weft attach"
	Process                   // the same, where the namespace was named by a process in it
	Host                      // the bridge of this node: "weft expose", and the gateway of its pods
	Gateway                   // addresses that the bridge had, and that running pods use as their gateway: reserved until it has them again
	Probes                    // the source addresses of the probes of direct routing, which no pod has
	Orphan                    // a pod link that lost its lease; the address is held until the holder is known again
	Names                     // names that an operator gave to addresses, without a lease
	Reserved                  // another name of the daemon's own, of another version
	Named                     // a name that an operator chose
)

// Prefixes of the text form. Clients cannot use a text with reservedPrefix.
const (
	containerPrefix = "cni/"
	dockerPrefix    = "docker/"
	namespacePrefix = "netns:"
	reservedPrefix  = "weft:"
	hostText        = reservedPrefix + "expose"
	gatewayText     = reservedPrefix + "gateway"
	probesText      = reservedPrefix + "direct"
	secondText      = reservedPrefix + "second"
	namesText       = reservedPrefix + "dns"
	orphanPrefix    = reservedPrefix + "orphan/"
)

// Holder is what an address is leased for. Holders are values and can be compared with ==; the zero Holder is invalid.
type Holder struct {
	Kind Kind

	MAC         ether.Addr // of a Docker endpoint
	Network     string     // of a Container: the name of the CNI network
	ContainerID string     // of a Container
	Netns       string     // of a Namespace and a Process: the path of the namespace
	Ifname      string     // of a Container, Namespace and Process: the interface inside the namespace
	Link        string     // of an Orphan: the name of its host end
	Name        string     // of Named and Reserved: the whole text
}

// ForContainer returns the holder of the leases of a container's interface. The network is part of it because the GC of one
// network must not end leases of another network that the same daemon serves.
func ForContainer(network, containerID, ifname string) Holder {
	return Holder{Kind: Container, Network: network, ContainerID: containerID, Ifname: ifname}
}

// ForDocker returns the holder of the leases of an endpoint of a Docker network: Docker asks for its addresses before it has a name, but
// not before it has a MAC.
func ForDocker(mac ether.Addr) Holder { return Holder{Kind: Docker, MAC: mac} }

// ForNamespace returns the holder of the leases of an interface in the namespace at an absolute path.
func ForNamespace(netns, ifname string) Holder {
	netns = filepath.Clean(netns)
	kind := Namespace
	if strings.HasPrefix(netns, "/proc/") {
		kind = Process
	}
	return Holder{Kind: kind, Netns: netns, Ifname: ifname}
}

// ForHost returns the holder of the leases of the bridge's own addresses.
func ForHost() Holder { return Holder{Kind: Host} }

// ForGateway returns the holder of the addresses that are reserved because pods use them as their gateway, while the bridge lacks them.
func ForGateway() Holder { return Holder{Kind: Gateway} }

// ForSecond returns the holder of a second address of the bridge in a range, until it is that of ForHost.
func ForSecond() Holder { return Holder{Kind: Reserved, Name: secondText} }

// ForProbes returns the holder of the addresses of this node's probes for direct routing.
func ForProbes() Holder { return Holder{Kind: Probes} }

// ForNames returns the holder of names that were given to addresses without a lease.
func ForNames() Holder { return Holder{Kind: Names} }

// ForOrphan returns the holder of the addresses of a pod link without a lease; link is the name of its host end.
func ForOrphan(link string) Holder { return Holder{Kind: Orphan, Link: link} }

// Parse returns the holder with the given text form. It succeeds for every text that is not empty: a text without a known
// form is a name that an operator chose.
func Parse(text string) Holder {
	switch {
	case text == hostText:
		return ForHost()
	case text == gatewayText:
		return ForGateway()
	case text == probesText:
		return ForProbes()
	case text == namesText:
		return ForNames()
	case strings.HasPrefix(text, orphanPrefix):
		return ForOrphan(strings.TrimPrefix(text, orphanPrefix))
	case strings.HasPrefix(text, reservedPrefix):
		return Holder{Kind: Reserved, Name: text}
	case strings.HasPrefix(text, namespacePrefix):
		path := strings.TrimPrefix(text, namespacePrefix)
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			h := Holder{Kind: Namespace, Netns: path[:i], Ifname: path[i+1:]}
			if strings.HasPrefix(path, "/proc/") {
				h.Kind = Process
			}
			return h
		}
	case strings.HasPrefix(text, dockerPrefix):
		if mac, err := ether.ParseAddr(strings.TrimPrefix(text, dockerPrefix)); err == nil && dockerPrefix+mac.String() == text {
			return ForDocker(mac)
		}
	case strings.HasPrefix(text, containerPrefix):
		// Neither part can contain a slash: the specification and the kernel forbid it.
		p := strings.Split(text, "/")
		if len(p) == 4 && p[1] != "" && p[2] != "" && p[3] != "" {
			return ForContainer(p[1], p[2], p[3])
		}
	}
	return Holder{Kind: Named, Name: text}
}

// String returns the text form:
//
//	cni/NETWORK/CONTAINER/IFNAME   Container
//	docker/MAC                     Docker
//	netns:PATH/IFNAME              Namespace, Process
//	weft:expose                    Host
//	weft:gateway                   Gateway
//	weft:direct                    Probes
//	weft:orphan/LINK               Orphan
//	weft:dns                       Names
//	anything else                  Named
func (h Holder) String() string {
	switch h.Kind {
	case Container:
		return containerPrefix + h.Network + "/" + h.ContainerID + "/" + h.Ifname
	case Docker:
		return dockerPrefix + h.MAC.String()
	case Namespace, Process:
		return namespacePrefix + h.Netns + "/" + h.Ifname
	case Host:
		return hostText
	case Gateway:
		return gatewayText
	case Probes:
		return probesText
	case Names:
		return namesText
	case Orphan:
		return orphanPrefix + h.Link
	case Named, Reserved:
		return h.Name
	default:
		return ""
	}
}

// IsReserved reports whether only the daemon itself may use the holder: clients that name it are refused.
func (h Holder) IsReserved() bool {
	switch h.Kind {
	case Host, Gateway, Probes, Names, Orphan, Reserved:
		return true
	default:
		return false
	}
}

// AttachLink returns the name of the host end that "weft attach" makes for a holder. A holder has one attachment: as the name
// is taken, a second namespace cannot get the same addresses.
func (h Holder) AttachLink() string { return podlink.HostLinkName(h.String(), "") }

// HostLink returns the name of the host end of the pair that a lease of h is for; ok is false where its lease is for no pair, or
// where only the operator knows what it is for.
func (h Holder) HostLink() (name string, ok bool) {
	switch h.Kind {
	case Namespace, Process, Docker:
		return h.AttachLink(), true
	case Container:
		return podlink.HostLinkName(h.String(), h.Ifname), true
	default:
		return "", false
	}
}

// PossibleLinks returns the names of all host ends that may belong to h: a container's pair can also be made by "weft attach"
// under the container's name.
func (h Holder) PossibleLinks() []string {
	names := []string{h.AttachLink()}
	if h.Kind == Container {
		names = append(names, podlink.HostLinkName(h.String(), h.Ifname))
	}
	return names
}
