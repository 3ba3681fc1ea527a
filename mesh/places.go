package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
)

// A member that joins costs memory here and in memberlist, which keeps it until some time after its death. Any holder of the secret can
// make up members, and without a secret anyone can. So the roster bounds them before memberlist stores them (NotifyAlive).

const (
	// maxMembers bounds the places in the roster: the gossip addresses of all members. Further ones are refused.
	maxMembers = 10000
	// reservedPlaces are those of maxMembers that only nodes get which this node does not know from gossip alone.
	reservedPlaces = 1000
	// maxPlaces bounds the places of one node.
	maxPlaces = 8
	// placePause is how long a place is kept after its death until another place of its node may replace it. memberlist
	// keeps a dead node for 30 s or more, so a shorter time would let it hold more of them than the roster.
	placePause = time.Minute
	// maxExpected bounds the addresses of targets.
	maxExpected = maxMembers
)

// makeRoom returns why there is no room for a node at the address of rec; nil when there is.
func (r *roster) makeRoom(rec record, now time.Time) error {
	known := r.admission.known(rec.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.place(rec.ID, rec.GossipAddr()) != nil {
		return nil
	}
	if len(r.records[rec.ID]) >= maxPlaces && !r.dropOldestPlace(rec.ID, now) {
		return fmt.Errorf("%w: %d addresses of it are known already", errMember, maxPlaces)
	}
	limit := maxMembers - reservedPlaces
	if _, expected := r.expected[rec.GossipAddr()]; known || expected {
		limit = maxMembers
	}
	if r.count >= limit {
		r.expireSilent(now)
	}
	if r.count >= limit {
		return fmt.Errorf("%w: %d members are known already", errMember, r.count)
	}
	return nil
}

// dropOldestPlace drops the place of a node that has been dead for longest, and reports whether one is dead for long enough.
// A place that is alive stays: made-up places of a node cannot displace it. mu is held.
func (r *roster) dropOldestPlace(id peer.ID, now time.Time) bool {
	places := r.records[id]
	oldest := -1
	for i, rec := range places {
		if rec.State != StateAlive && !rec.Self && now.Sub(rec.Since) >= placePause &&
			(oldest < 0 || rec.Since.Before(places[oldest].Since)) {
			oldest = i
		}
	}
	if oldest >= 0 {
		r.setPlaces(id, append(places[:oldest], places[oldest+1:]...))
	}
	return oldest >= 0
}

// expireSilent drops, at most once in placePause, the places of dead nodes that have never answered this node: most made-up
// nodes are such. A full roster would otherwise keep them until the end of the process, as it keeps a real node that is dead. mu is held.
func (r *roster) expireSilent(now time.Time) {
	if now.Sub(r.expired) < placePause {
		return
	}
	r.expired = now
	for id, places := range r.records {
		kept := places[:0]
		for _, rec := range places {
			if rec.State == StateAlive || rec.Self || rec.answered || now.Sub(rec.Since) < leftTTL {
				kept = append(kept, rec)
			}
		}
		r.setPlaces(id, kept)
	}
}

// setPlaces replaces the places of a node; mu is held.
func (r *roster) setPlaces(id peer.ID, places []record) {
	r.count += len(places) - len(r.records[id])
	at, known := slices.BinarySearchFunc(r.order, id, peer.ID.Compare)
	switch {
	case len(places) == 0 && known:
		r.order = slices.Delete(r.order, at, at+1)
	case len(places) > 0 && !known:
		r.order = slices.Insert(r.order, at, id)
	}
	if r.records[id] = places; len(places) == 0 {
		delete(r.records, id)
	}
}

// expect records that an operator's target is at addr.
func (r *roster) expect(addr netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.expected[addr]; !known && len(r.expected) >= maxExpected {
		clear(r.expected)
	}
	r.expected[addr] = struct{}{}
}

// known implements admission: it reports whether a node was a member in an earlier run, or has a session with this one.
func (m *Mesh) known(id peer.ID) bool {
	if _, seen := m.seenBefore[id]; seen {
		return true
	}
	return m.cfg.Tunnel != nil && m.cfg.Tunnel.Open(id)
}
