package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Add assigns a name, which ParseName must accept, to addresses for a holder; other addresses of the name are not
// affected. For an address that has the name already only the holder changes. When Add fails nothing has changed: with
// ErrName, ErrFull, or the error of Store.Save.
func (r *Registry) Add(name, holder string, addrs ...netip.Addr) error {
	name, err := ParseName(name, r.cfg.Domain)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("%w %q", ErrAddress, name)
	}
	for _, a := range addrs {
		if !validAddr(a.Unmap()) {
			return fmt.Errorf("%w %q: %s is not the address of a host", ErrAddress, name, a)
		}
	}
	return r.change(func() ([]Entry, error) {
		var added []Entry
		seen := make(map[netip.Addr]bool, len(addrs))
		newEntries := 0 // those that are withdrawn are counted already
		for _, a := range addrs {
			e := Entry{Node: r.cfg.Self, Name: name, Addr: a.Unmap(), Holder: holder}
			old, known := r.table.find(e.Node, e.key())
			if seen[e.Addr] || known && !old.Removed && old.Holder == holder {
				continue
			}
			seen[e.Addr] = true
			added = append(added, e)
			if !known || old.Removed && !old.Withdrawn {
				newEntries++
			}
		}
		if r.table.living(r.cfg.Self)+newEntries > maxNodeEntries {
			return nil, fmt.Errorf("%w: at most %d addresses with names on a node", ErrFull, maxNodeEntries)
		}
		return added, nil
	})
}

// Remove removes a name from addresses of this node, or from all its addresses when none is given. It returns ErrUnknown
// when this node has the name for none of them. An error of Store.Save is returned too, but the name is removed.
func (r *Registry) Remove(name string, addrs ...netip.Addr) error {
	name, err := ParseName(name, r.cfg.Domain)
	if err != nil {
		return err
	}
	wanted := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		wanted[a.Unmap()] = true
	}
	return r.change(func() ([]Entry, error) {
		removed := r.tombstones(func(e Entry) bool { return e.Name == name && (len(wanted) == 0 || wanted[e.Addr]) })
		if len(removed) == 0 {
			return nil, fmt.Errorf("%w on this node: %q", ErrUnknown, name)
		}
		return removed, nil
	})
}

// Release removes all names of a holder on this node; when addr is valid, only those of that address. It is no error when
// there are none.
func (r *Registry) Release(holder string, addr netip.Addr) {
	err := r.change(func() ([]Entry, error) {
		return r.tombstones(func(e Entry) bool { return e.Holder == holder && (!addr.IsValid() || e.Addr == addr.Unmap()) }), nil
	})
	if err != nil {
		r.cfg.Logger.Error("names removed, but not on disk", "err", err)
	}
}

// Withdraw ends the names of a holder on this node until Restore: no node answers them meanwhile. They outlast restarts, and Remove and
// Release end them as other names.
func (r *Registry) Withdraw(holder string) {
	err := r.change(func() ([]Entry, error) {
		withdrawn := r.own(func(e Entry) bool { return !e.Removed && e.Holder == holder })
		for i := range withdrawn {
			withdrawn[i].Removed, withdrawn[i].Withdrawn = true, true
		}
		return withdrawn, nil
	})
	if err != nil {
		r.cfg.Logger.Error("names withdrawn, but not on disk", "err", err)
	}
}

// Restore brings back the names of a holder that were withdrawn. It is no error when there are none. An error is that of Store.Save, and
// nothing has changed then.
func (r *Registry) Restore(holder string) error {
	return r.change(func() ([]Entry, error) {
		restored := r.own(func(e Entry) bool { return e.Withdrawn && e.Holder == holder })
		for i := range restored {
			restored[i].Removed, restored[i].Withdrawn = false, false
		}
		return restored, nil
	})
}

// Own returns the names of this node, those that are withdrawn included, ordered by name and address.
func (r *Registry) Own() []Entry {
	r.mu.Lock()
	list := r.own(func(e Entry) bool { return !e.Removed || e.Withdrawn })
	r.mu.Unlock()
	slices.SortFunc(list, compareEntries)
	return list
}

// own returns this node's entries that match; mu is held.
func (r *Registry) own(match func(Entry) bool) (list []Entry) {
	for _, e := range r.table.nodes[r.cfg.Self] {
		if match(e) {
			list = append(list, e)
		}
	}
	return list
}

// tombstones returns tombstones for this node's names that match, also for those that are withdrawn; mu is held.
func (r *Registry) tombstones(match func(Entry) bool) []Entry {
	removed := r.own(func(e Entry) bool { return (!e.Removed || e.Withdrawn) && match(e) })
	for i := range removed {
		removed[i].Removed, removed[i].Withdrawn, removed[i].Holder = true, false, ""
	}
	return removed
}

// change saves, applies and broadcasts the changes that plan returns: only additions, or only tombstones. plan is called
// with mu held. Queries are answered while the names are saved. Additions that cannot be saved are not applied: after a
// restart they would be lost without notice. Tombstones are applied in any case, since the holder of the name is gone.
func (r *Registry) change(plan func() ([]Entry, error)) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	now := r.cfg.Clock.Now()
	r.mu.Lock()
	changes, err := plan()
	if err != nil || len(changes) == 0 {
		r.mu.Unlock()
		return err
	}
	for i := range changes {
		changes[i].Version, changes[i].At = r.nextVersion(now), now
	}
	state := r.snapshot(changes)
	r.mu.Unlock()
	if err = r.cfg.Store.Save(state); err != nil {
		err = fmt.Errorf("dns: saving names: %w", err)
		if !changes[0].Removed {
			return err
		}
	}
	r.applyOwn(changes, now)
	for _, msg := range encode(changes, MaxDelta, now) {
		r.cfg.Gossip.Broadcast(msg)
	}
	return err
}

// applyOwn applies changes of this node's entries, and raises their versions where gossip has changed an entry meanwhile.
func (r *Registry) applyOwn(changes []Entry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range changes {
		old, known := r.table.find(e.Node, e.key())
		if known && !e.supersedes(old) {
			changes[i].Version = r.nextVersion(now)
		}
		if !known && len(r.table.nodes[e.Node]) >= maxNodeEntries {
			r.table.dropOldestTombstone(e.Node)
		}
		r.table.put(changes[i])
	}
}
