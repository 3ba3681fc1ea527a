package dns

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"weft/internal/peer"
)

// State implements mesh.Channel: all entries, tombstones among them. It is a few megabytes at most.
func (r *Registry) State() []byte {
	now := r.cfg.Now()
	r.mu.Lock()
	r.expire(now)
	entries := make([]Entry, 0, r.table.total)
	for _, of := range r.table.nodes {
		for _, e := range of {
			if !e.Removed || now.Sub(e.At) < keepRemoved {
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
	now := r.cfg.Now()
	var fresh []Entry
	r.mu.Lock()
	r.expire(now)
	for e, bad := range decode(msg, now) {
		var told Entry
		isNews := false
		if bad == nil {
			told, isNews, bad = r.hear(e, now)
		}
		if isNews {
			fresh = append(fresh, told)
		}
		if err == nil {
			err = bad
		}
	}
	r.mu.Unlock()
	for _, delta := range encode(fresh, MaxDelta, now) {
		r.cfg.Broadcast(delta)
	}
	return err
}

// Message implements mesh.Channel; there are none.
func (r *Registry) Message(from peer.ID, _ []byte) error {
	return fmt.Errorf("%w: a message of %s to this node alone", ErrMessage, from)
}

// hear takes in an entry and returns what there is to tell of it: e itself, or the right answer to an entry of this node's
// that is not as e says. mu is held.
func (r *Registry) hear(e Entry, now time.Time) (told Entry, isNews bool, err error) {
	if e.Node == r.cfg.Self {
		return r.hearOwn(e, now)
	}
	if _, gone := r.forgotten[e.Node]; gone && !r.cfg.Alive(e.Node) {
		return Entry{}, false, nil // of a node that has not forgotten it yet
	}
	old, known := r.table.find(e.Node, e.key())
	switch {
	case known && !e.supersedes(old):
		if e.Removed && old.Removed && e.Version == old.Version && e.At.Before(old.At) {
			r.table.put(e) // who has known it for longer knows better when it ends
		}
		return Entry{}, false, nil
	case !known && e.Removed && now.Sub(e.At) >= takeRemoved:
		return Entry{}, false, nil // nothing to remove, and not for long to remember
	case !known && !r.table.room(e):
		r.refused++
		return Entry{}, false, fmt.Errorf("%w: no room for those of %s", ErrFull, e.Node)
	}
	r.table.put(e)
	return e, true, nil
}

// hearOwn answers what others hold for an entry of this node. Only this node changes its entries: where it knows otherwise,
// e is of an earlier run whose state or clock is lost, and what is so gets a version above it.
func (r *Registry) hearOwn(e Entry, now time.Time) (told Entry, isNews bool, err error) {
	r.last = max(r.last, e.Version)
	own, known := r.table.find(e.Node, e.key())
	switch {
	case known && !e.supersedes(own):
		return Entry{}, false, nil
	case known && own.Removed == e.Removed:
		own.Version = e.Version // as e says, if under another version
	case known:
		own.Version, own.At = r.next(now), now
	case e.Removed && now.Sub(e.At) >= takeRemoved:
		return Entry{}, false, nil
	case !r.table.room(Entry{Node: e.Node, Removed: true}):
		r.refused++
		return Entry{}, false, fmt.Errorf("%w: no room for a tombstone of this node's", ErrFull)
	case e.Removed:
		own = e
	default:
		own = e
		own.Version, own.Removed, own.At = r.next(now), true, now
	}
	r.table.put(own)
	return own, true, nil
}

// next returns the version of this node's next change; mu is held.
func (r *Registry) next(now time.Time) uint64 {
	r.last = min(max(uint64(max(now.UnixNano(), 0)), r.last+1), maxVersion)
	return r.last
}

// expire drops what has had its time, now and then; mu is held.
func (r *Registry) expire(now time.Time) {
	if now.Sub(r.expired) < expireEvery {
		return
	}
	r.expired = now
	r.table.expire(now.Add(-keepRemoved))
	for node, at := range r.forgotten {
		if now.Sub(at) >= keepRemoved {
			delete(r.forgotten, node)
		}
	}
}

// Forget drops what was heard of a node that is gone for good. What is still told of it is not heard for the time that
// others need to forget it too, unless the node is alive again.
func (r *Registry) Forget(node peer.ID) {
	if node == r.cfg.Self {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.table.nodes[node] {
		r.table.drop(e)
	}
	r.forgotten[node] = r.cfg.Now()
}
