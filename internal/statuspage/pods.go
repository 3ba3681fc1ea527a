package statuspage

import (
	"net/netip"
	"slices"
	"strings"
	"time"

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
	v := podsView{Names: len(s.Names)}
	names := ownNames(s, s.Status.ID)
	for _, l := range s.Leases {
		since := newMoment(l.Since, now)
		row := podRow{IP: l.IP.Addr(), Names: names[l.IP.Addr()], Since: &since}
		row.Kind, row.What = describeHolder(holder.Parse(l.Owner))
		delete(names, l.IP.Addr())
		v.Rows = append(v.Rows, row)
	}
	for ip, list := range names {
		v.Rows = append(v.Rows, podRow{Kind: "name only", IP: ip, Names: list})
	}
	slices.SortFunc(v.Rows, func(a, b podRow) int { return a.IP.Compare(b.IP) })
	if n := len(v.Rows) - maxPods; n > 0 {
		v.Rows, v.More = v.Rows[:maxPods], n
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
	case holder.Namespace:
		return "namespace", h.Netns + " " + h.Ifname
	case holder.Process:
		return "process", strings.TrimSuffix(strings.TrimPrefix(h.Netns, "/proc/"), "/ns/net") + " " + h.Ifname
	case holder.Host:
		return "this host, the gateway of its pods", ""
	case holder.Orphan:
		return "pod without a lease", h.Link
	default:
		return "claimed", h.Name
	}
}
