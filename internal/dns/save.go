package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// errNotOwn is what is wrong with saved entries that cannot be this node's.
var errNotOwn = errors.New("an entry that cannot be")

// saved is this node's names as RegistryConfig.Save gets them, in JSON.
type saved struct {
	Last  uint64       `json:"last"` // the highest version used: versions go on from there though the clock be set back
	Names []savedEntry `json:"names"`
}

type savedEntry struct {
	Name    string     `json:"name"`
	Addr    netip.Addr `json:"addr"`
	Owner   string     `json:"owner"`
	Version uint64     `json:"version"`
}

// snapshot returns this node's names as they will be after changes; mu is held. Tombstones are not saved: the others tell
// them, or else the entries that this node then has not.
func (r *Registry) snapshot(changes []Entry) []byte {
	after := make(map[key]Entry)
	for k, e := range r.table.nodes[r.cfg.Self] {
		after[k] = e
	}
	for _, e := range changes {
		after[e.key()] = e
	}
	s := saved{Last: r.last, Names: []savedEntry{}}
	list := make([]Entry, 0, len(after))
	for _, e := range after {
		if !e.Removed {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, compareEntries)
	for _, e := range list {
		s.Names = append(s.Names, savedEntry{e.Name, e.Addr, e.Owner, e.Version})
	}
	b, err := json.Marshal(s)
	if err != nil {
		r.cfg.Logger.Error("names cannot be written as JSON", "err", err) // strings and numbers always can
	}
	return b
}

// load takes over what snapshot returned.
func (r *Registry) load(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	r.last = min(s.Last, maxVersion)
	for _, n := range s.Names {
		e := Entry{Node: r.cfg.Self, Name: n.Name, Addr: n.Addr, Owner: n.Owner, Version: n.Version, At: r.cfg.Now()}
		if !e.valid() || !r.table.room(e) {
			return fmt.Errorf("%w: %q at %s", errNotOwn, n.Name, n.Addr)
		}
		r.last = max(r.last, e.Version)
		r.table.put(e)
	}
	return nil
}
