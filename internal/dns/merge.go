package dns

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"weft/internal/peer"
)

// State implements mesh.Channel: it returns all entries of members, including tombstones, a few megabytes at most.
func (r *Registry) State() []byte {
	now := r.cfg.Clock.Now()
	r.mu.Lock()
	r.expire(now)
	entries := make([]Entry, 0, r.table.total)
	for node, ofNode := range r.table.nodes {
		if !r.isMember(node) {
			continue
		}
		for _, e := range ofNode {
			if !e.Removed || now.Sub(e.At) < tombstoneTTL {
				entries = append(entries, e)
			}
		}
	}
	r.mu.Unlock()
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Or(a.Node.Compare(b.Node), compareEntries(a, b)) })
	return encode(entries, 0, now)[0]
}

// Merge implements mesh.Channel: it broadcasts the entries that were new, with nothing locked. The error is about the first
// entry that could not be applied: ErrMessage, or ErrFull.
func (r *Registry) Merge(msg []byte) (err error) {
	now := r.cfg.Clock.Now()
	var updates []Entry
	r.mu.Lock()
	r.expire(now)
	for e, entryErr := range decode(msg, now) {
		if entryErr == nil {
			var update Entry
			var changed bool
			if update, changed, entryErr = r.applyReceived(e, now); changed {
				updates = append(updates, update)
			}
		}
		if err == nil {
			err = entryErr
		}
	}
	r.mu.Unlock()
	for _, delta := range encode(updates, MaxDelta, now) {
		r.cfg.Gossip.Broadcast(delta)
	}
	return err
}

// Message implements mesh.Channel; the channel has no unicasts.
func (r *Registry) Message(from peer.ID, _ []byte) error {
	return fmt.Errorf("%w: unicast from %s", ErrMessage, from)
}

// applyReceived applies an entry from gossip. When something has changed that other nodes want, it returns the entry to broadcast: e
// itself, or the correct version of an entry of this node that differs from e. mu is held.
func (r *Registry) applyReceived(e Entry, now time.Time) (update Entry, changed bool, err error) {
	if !e.isTimely(now) {
		return Entry{}, false, fmt.Errorf("%w: a version that is decades ahead", ErrMessage)
	}
	if e.Node == r.cfg.Self {
		return r.correctOwn(e, now)
	}
	if _, forgotten := r.forgotten[e.Node]; forgotten && !r.cfg.Membership.Alive(e.Node) {
		return Entry{}, false, nil // from a node that has not forgotten the entry's node yet
	}
	old, known := r.table.find(e.Node, e.key())
	switch {
	case known && !e.supersedes(old):
		if e.Removed && old.Removed && e.Version == old.Version && e.At.Before(old.At) {
			r.table.put(e) // the sender has known it for longer, and knows better when it expires
		}
		return Entry{}, false, nil
	case !known && e.Removed && now.Sub(e.At) >= tombstoneAcceptAge:
		return Entry{}, false, nil // there is nothing to remove, and it expires soon
	case !known && !r.makeRoom(e):
		r.refused++
		return Entry{}, false, fmt.Errorf("%w: no room for an entry of %s", ErrFull, e.Node)
	}
	r.table.put(e)
	return e, r.isMember(e.Node), nil
}

// correctOwn compares an entry of this node that came from gossip with this node's own state, which is authoritative. When
// they differ, e is of an earlier run of this node, before its state or clock was lost; correctOwn makes a version above e with the correct
// state, and returns it as the update. So it does if e was withdrawn so long ago that the tombstone is not sent any more. mu is held.
func (r *Registry) correctOwn(e Entry, now time.Time) (update Entry, changed bool, err error) {
	r.last = max(r.last, e.Version)
	own, known := r.table.find(e.Node, e.key())
	switch {
	case known && !e.supersedes(own) && (e.Removed || !own.Withdrawn || now.Sub(own.At) < tombstoneTTL):
		return Entry{}, false, nil
	case known && own.Removed == e.Removed:
		own.Version = e.Version // the same state under another version
	case known:
		own.Version, own.At = r.nextVersion(now), now
	case e.Removed && now.Sub(e.At) >= tombstoneAcceptAge:
		return Entry{}, false, nil
	case !r.makeRoom(Entry{Node: e.Node, Removed: true}):
		r.refused++
		return Entry{}, false, fmt.Errorf("%w: no room for a tombstone of this node", ErrFull)
	case e.Removed:
		own = e
	default:
		own = e
		own.Version, own.Removed, own.At = r.nextVersion(now), true, now
	}
	r.table.put(own)
	return own, true, nil
}

// nextVersion returns the version of this node's next change; mu is held.
func (r *Registry) nextVersion(now time.Time) uint64 {
	r.last = min(max(uint64(max(now.UnixNano(), 0)), r.last+1), maxVersion)
	return r.last
}

// expire drops expired tombstones, entries of non-members and forgotten nodes, at most once in expirePause; mu is held.
func (r *Registry) expire(now time.Time) {
	if now.Sub(r.expired) < expirePause {
		return
	}
	r.expired = now
	r.table.expire(now.Add(-tombstoneTTL))
	r.expireNonMembers(now.Add(-nonMemberTTL))
	for node, at := range r.forgotten {
		if now.Sub(at) >= tombstoneTTL {
			delete(r.forgotten, node)
		}
	}
}

// Forget drops the names of a node that has left for good. Entries of it that still come from gossip are ignored until all
// nodes have forgotten it, unless the node is alive again. Forget has no effect for this node itself.
func (r *Registry) Forget(node peer.ID) {
	if node == r.cfg.Self {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.table.nodes[node] {
		r.table.drop(e)
	}
	r.forgotten[node] = r.cfg.Clock.Now()
}
