package datapath

import (
	"weft/internal/reach"
	"weft/mesh/topology"
)

// reachHost is this node in the form of package reach.
type reachHost struct {
	members Membership
	gossip  Gossip
}

var _ reach.Host = reachHost{}

func (h reachHost) Members() (list []reach.Member) {
	for _, m := range h.members.Members() {
		list = append(list, reach.Member{ID: m.ID, DialOut: m.DialOut, RTT: m.RTT})
	}
	return list
}

func (h reachHost) SetLinks(l topology.Links) { h.gossip.SetLinks(l) }
