package statuspage

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/leases/holder"
	"weft/internal/peer"
)

// maxPods bounds the table of pods. Further addresses are counted below it.
const maxPods = 200

// podsView is the table of addresses in use on this node.
type podsView struct {
	Rows  []podRow
	More  int // number of rows that are not shown
	Names int // number of names in the overlay, of all nodes

	Domain string // of the names
}

// podRow is an address on this node with what it is leased for.
type podRow struct {
	Kind  string // such as "container"
	What  string // such as an ID or a path
	IP    netip.Addr
	Names []string
	Since *moment // nil for an address that only has a name
}

func newPodsView(s Snapshot, now time.Time) podsView {
	v := podsView{Names: len(s.Names), Domain: s.Status.DNSDomain}
	names, leases := ownNames(s, s.Status.ID), map[netip.Addr]api.Lease{}
	for _, l := range s.Leases {
		leases[l.IP.Addr()] = l
	}
	addrs := slices.Collect(maps.Keys(leases))
	for ip := range names {
		if _, leased := leases[ip]; !leased {
			addrs = append(addrs, ip)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if n := len(addrs) - maxPods; n > 0 {
		addrs, v.More = addrs[:maxPods], n
	}
	for _, ip := range addrs {
		row := podRow{Kind: "name only", IP: ip, Names: names[ip]}
		if l, leased := leases[ip]; leased {
			since := newMoment(l.Since, now)
			row.Since = &since
			row.Kind, row.What = describeHolder(holder.Parse(l.Owner))
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// ownNames returns the names that this node published, by address.
func ownNames(s Snapshot, self peer.ID) map[netip.Addr][]string {
	names := map[netip.Addr][]string{}
	for _, n := range s.Names {
		if n.Node == self {
			names[n.IP] = append(names[n.IP], n.Name)
		}
	}
	return names
}

// describeHolder returns what a lease is for: its kind, and which of that kind.
func describeHolder(h holder.Holder) (kind, what string) {
	switch h.Kind {
	case holder.Container:
		return "container", shortened(h.ContainerID, 13) + " " + h.Ifname
	case holder.Docker:
		return "Docker container", h.MAC.String()
	case holder.Namespace:
		return "namespace", h.Netns + " " + h.Ifname
	case holder.Process:
		return "process", strings.TrimSuffix(strings.TrimPrefix(h.Netns, "/proc/"), "/ns/net") + " " + h.Ifname
	case holder.Host:
		return "this host, the gateway of its pods", ""
	case holder.Gateway:
		return "reserved for this host: the gateway of pods", ""
	case holder.Probes:
		return "probes of direct routing", ""
	case holder.Orphan:
		return "pod without a lease", h.Link
	default:
		return "claimed", h.Name
	}
}
