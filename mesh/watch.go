package mesh

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/mesh/addressbook"
	"weft/mesh/topology"
)

// firstSavePause and longestSavePause are the shortest times between two writes of the membership to disk, so that many
// nodes that join at once cost few writes. The first one applies at the start, when nothing is on disk yet, and doubles up
// to the second.
const (
	firstSavePause   = 100 * time.Millisecond
	longestSavePause = time.Second
)

// observePause is the shortest time between two snapshots of a changing membership.
const observePause = 100 * time.Millisecond

// watch processes changes of the membership until ctx ends (nil) or fail is called.
func (m *Mesh) watch(ctx context.Context) error {
	defer m.saveMembers()
	var observed, saved time.Time
	var saveDue <-chan time.Time // nil: the membership is on disk
	pause := firstSavePause
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-m.failed:
			return err
		case <-saveDue:
			m.saveMembers()
			saved, saveDue = time.Now(), nil
			pause = min(2*pause, longestSavePause)
			continue
		case <-m.roster.change.C():
		}
		select { // merges the changes of many nodes that join at once
		case <-ctx.Done():
			return nil
		case <-time.After(observePause - time.Since(observed)):
		}
		observed = time.Now()
		m.observe()
		if saveDue == nil {
			saveDue = time.After(pause - time.Since(saved)) // at once when that is in the past
		}
	}
}

// observe applies the present membership to the routes and the gossip key, and passes it to the observer.
func (m *Mesh) observe() {
	members := m.roster.snapshot(time.Now())
	m.links.expire(members)
	m.computeRoutes(members)
	m.annotate(members)
	for _, member := range members {
		if member.State == StateAlive && !member.Self {
			m.keyMismatches.Forget(member.Addr) // it is over, also if that node dies later
		}
	}
	m.chooseKey()
	if m.cfg.Observer != nil {
		m.cfg.Observer.MembersChanged(members)
	}
}

// chooseKey seals gossip with a key that all members understand.
func (m *Mesh) chooseKey() {
	if err := m.keys.Choose(); err != nil {
		m.log.Error("gossip key not switched to one that all members have", "err", err)
	}
}

// computeRoutes computes the routes to all members that are alive.
func (m *Mesh) computeRoutes(members []Member) {
	var nodes []topology.Node
	for _, member := range members {
		if member.State == StateAlive {
			nodes = append(nodes, topology.Node{ID: member.ID, RTT: member.RTT})
		}
	}
	routes := topology.Routes(m.cfg.Identity.ID, nodes, m.links.published())
	m.routes.Store(&routes)
}

// annotate fills in how each member is reached. It changes members and returns it.
func (m *Mesh) annotate(members []Member) []Member {
	routes := m.routes.Load()
	for i := range members {
		members[i].DialOut = m.links.dialOut(members[i].ID)
		if routes != nil {
			members[i].Route = (*routes)[members[i].ID]
		}
	}
	return members
}

// saveMembers writes the addresses of the members to disk, to find them again after a restart.
func (m *Mesh) saveMembers() {
	at := make(map[peer.ID]addressbook.Place)
	left := m.roster.foreign()
	for _, member := range m.Members() {
		switch {
		case member.Self:
		case member.State == StateAlive:
			at[member.ID] = addressbook.Place{Addr: member.GossipAddr().String(), Name: member.Name}
		case member.State == StateLeft:
			left = append(left, member.ID)
		}
	}
	if err := m.cfg.Targets.RecordSeen(at, left); err != nil {
		m.log.Warn("members not saved", "err", err)
	}
}

// Known returns the nodes of the network that have not left: the members that are alive or dead, and the nodes that were
// seen in earlier runs and were not found again yet. It does not wait for I/O: callers may hold locks of their own.
func (m *Mesh) Known() (ids []peer.ID) {
	seen := m.cfg.Targets.Seen()
	for _, member := range m.Members() {
		delete(seen, member.ID)
		if member.State != StateLeft {
			ids = append(ids, member.ID)
		}
	}
	return append(ids, slices.Collect(maps.Keys(seen))...)
}

// Knows reports whether a node is one of Known. It waits for nothing, and knows a node that joins at once.
func (m *Mesh) Knows(id peer.ID) bool {
	if state, known := m.roster.state(id); known {
		return state != StateLeft
	}
	return m.cfg.Targets.HasSeen(id)
}

// LastSeen returns where a node was in this run or an earlier one, and its nickname, empty where it is not known.
func (m *Mesh) LastSeen(id peer.ID) (at netip.AddrPort, name string) {
	if member, known := m.roster.lookup(id); known {
		return member.GossipAddr(), member.Name
	}
	at, _ = netip.ParseAddrPort(m.cfg.Targets.Seen()[id])
	return at, m.cfg.Targets.Name(id)
}

// Forget marks a node that is not alive as one that has left: the mesh stops dialing it, and soon stops listing it. The
// node may join again. Forget has no effect on a node that is alive. An error is about the write to disk.
func (m *Mesh) Forget(id peer.ID) error {
	if !m.roster.markLeft(id) {
		return nil
	}
	m.roster.change.Set()
	return m.cfg.Targets.RecordSeen(nil, []peer.ID{id})
}
