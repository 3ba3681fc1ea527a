package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// errInvalidSaved is the error about saved entries that cannot be this node's.
var errInvalidSaved = errors.New("invalid entry")

// saved is this node's names in JSON, as passed to Store.Save.
type saved struct {
	Last  uint64       `json:"last"` // the highest version used, from which versions continue even when the clock was set back
	Names []savedEntry `json:"names"`
	// Withdrawn are names that come back when their holder does.
	Withdrawn []savedEntry `json:"withdrawn,omitempty"`
}

type savedEntry struct {
	Name    string     `json:"name"`
	Addr    netip.Addr `json:"addr"`
	Holder  string     `json:"owner"`
	Version uint64     `json:"version"`
}

// snapshot returns this node's names as they will be after changes; mu is held. It leaves out other tombstones: after a restart
// gossip brings them back, or brings the entries that this node then lacks and removes again.
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
		if !e.Removed || e.Withdrawn {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, compareEntries)
	for _, e := range list {
		to := &s.Names
		if e.Withdrawn {
			to = &s.Withdrawn
		}
		*to = append(*to, savedEntry{e.Name, e.Addr, e.Holder, e.Version})
	}
	b, err := json.Marshal(s)
	if err != nil { // unreachable: strings and numbers can always be encoded
		r.cfg.Logger.Error("names cannot be encoded as JSON", "err", err)
	}
	return b
}

// load reads what snapshot returned.
func (r *Registry) load(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	r.last = min(s.Last, maxVersion)
	for i, n := range slices.Concat(s.Names, s.Withdrawn) {
		e := Entry{Node: r.cfg.Self, Name: n.Name, Addr: n.Addr, Holder: n.Holder, Version: n.Version, At: r.cfg.Clock.Now()}
		e.Withdrawn = i >= len(s.Names)
		e.Removed = e.Withdrawn
		if !e.valid() || !r.makeRoom(e) {
			return fmt.Errorf("%w: %q at %s", errInvalidSaved, n.Name, n.Addr)
		}
		r.last = max(r.last, e.Version)
		r.table.put(e)
	}
	return nil
}
