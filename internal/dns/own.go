package dns

import (
	"fmt"
	"net/netip"
	"time"
)

// Add gives a name, as ParseName reads it, to addresses that this node answers for; other addresses of the name stay. What
// is so already stays as it is, but for the owner. Nothing is changed where Add fails: with ErrName, ErrFull, or what Save
// says.
func (r *Registry) Add(name, owner string, addrs ...netip.Addr) error {
	name, err := ParseName(name)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("dns: %q without an address", name)
	}
	for _, a := range addrs {
		if !validAddr(a.Unmap()) {
			return fmt.Errorf("dns: nothing can be reached at %q", a)
		}
	}
	return r.change(func() ([]Entry, error) {
		var added []Entry
		seen := make(map[netip.Addr]bool, len(addrs))
		isNew := 0
		for _, a := range addrs {
			e := Entry{Node: r.cfg.Self, Name: name, Addr: a.Unmap(), Owner: owner}
			old, known := r.table.find(e.Node, e.key())
			if seen[e.Addr] || known && !old.Removed && old.Owner == owner {
				continue
			}
			seen[e.Addr] = true
			added = append(added, e)
			if !known || old.Removed {
				isNew++
			}
		}
		if r.table.living(r.cfg.Self)+isNew > maxNodeEntries {
			return nil, fmt.Errorf("%w: at most %d addresses with names on a node", ErrFull, maxNodeEntries)
		}
		return added, nil
	})
}

// Remove takes a name from addresses of this node, from all where none is given. It returns ErrUnknown where this node has no such
// name for any of them. What Save says is returned too, but the name is gone.
func (r *Registry) Remove(name string, addrs ...netip.Addr) error {
	name, err := ParseName(name)
	if err != nil {
		return err
	}
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a.Unmap()] = true
	}
	return r.change(func() ([]Entry, error) {
		gone := r.own(func(e Entry) bool { return e.Name == name && (len(wanted) == 0 || wanted[e.Addr]) })
		if len(gone) == 0 {
			return nil, fmt.Errorf("%w on this node: %q", ErrUnknown, name)
		}
		return gone, nil
	})
}

// Release drops all names of an owner on this node, of one of its addresses where addr is valid. There need not be any.
func (r *Registry) Release(owner string, addr netip.Addr) {
	err := r.change(func() ([]Entry, error) {
		return r.own(func(e Entry) bool { return e.Owner == owner && (!addr.IsValid() || e.Addr == addr.Unmap()) }), nil
	})
	if err != nil {
		r.cfg.Logger.Error("names released, but not on disk", "err", err)
	}
}

// own returns tombstones for this node's entries that match; mu is held.
func (r *Registry) own(match func(Entry) bool) (gone []Entry) {
	for _, e := range r.table.nodes[r.cfg.Self] {
		if !e.Removed && match(e) {
			e.Removed, e.Owner = true, ""
			gone = append(gone, e)
		}
	}
	return gone
}

// change saves, makes and tells the changes that plan returns, all additions or all tombstones; plan is called with mu held.
// Names are answered while they are saved. Additions that cannot be saved are not made: after a restart they would be gone,
// and whoever asked for them would not know. Tombstones are made all the same: what had the name is gone.
func (r *Registry) change(plan func() ([]Entry, error)) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	now := r.cfg.Now()
	r.mu.Lock()
	changes, err := plan()
	if err != nil || len(changes) == 0 {
		r.mu.Unlock()
		return err
	}
	for i := range changes {
		changes[i].Version, changes[i].At = r.next(now), now
	}
	state := r.snapshot(changes)
	r.mu.Unlock()
	if err = r.cfg.Save(state); err != nil {
		err = fmt.Errorf("dns: saving names: %w", err)
		if !changes[0].Removed {
			return err
		}
	}
	r.apply(changes, now)
	for _, msg := range encode(changes, MaxDelta, now) {
		r.cfg.Broadcast(msg)
	}
	return err
}

// apply makes changes of this node's.
func (r *Registry) apply(changes []Entry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range changes {
		old, known := r.table.find(e.Node, e.key())
		if known && !e.supersedes(old) {
			changes[i].Version = r.next(now) // gossip about it was heard while it was saved
		}
		if !known && len(r.table.nodes[e.Node]) >= maxNodeEntries {
			r.table.dropOldestTombstone(e.Node)
		}
		r.table.put(changes[i])
	}
}
