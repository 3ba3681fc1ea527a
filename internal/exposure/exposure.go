// Package exposure keeps what an operator has asked for the addresses of the bridge beside their leases, in a file that survives the
// daemon and the bridge: their prefix lengths, and what happens to packets from outside the overlay ("weft expose").
package exposure

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/google/renameio/v2"

	"weft/internal/api"
)

// state is the content of the file.
type state struct {
	Inward    api.InwardMode `json:"inward,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"` // sorted, each address once
}

// Store is the file. Its methods may be called concurrently.
type Store struct {
	path string // empty: nothing is written

	mu    sync.Mutex
	state state // guarded by mu; its slice is never changed
}

// Open reads the file at path. A file that does not exist is an empty one. An empty path is a Store in memory.
func Open(path string) (*Store, error) {
	s := &Store{path: path}
	if path == "" {
		return s, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return nil, fmt.Errorf("exposure: read the addresses of the bridge: %w", err)
	}
	if err := json.Unmarshal(text, &s.state); err != nil {
		return nil, fmt.Errorf("exposure: read the addresses of the bridge: %s: %w", path, err)
	}
	if _, err := api.ParseInwardMode(string(s.state.Inward)); err != nil {
		return nil, fmt.Errorf("exposure: read the addresses of the bridge: %s: %w", path, err)
	}
	return s, nil
}

// Inward returns what happens to packets from outside the overlay; never empty.
func (s *Store) Inward() api.InwardMode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Inward == "" {
		return api.InwardOff
	}
	return s.state.Inward
}

// LetsIn reports whether packets from outside the overlay are forwarded to pods.
func (s *Store) LetsIn() bool { return s.Inward() != api.InwardOff }

// SetInward stores what happens to packets from outside the overlay. On an error the mode before stays.
func (s *Store) SetInward(mode api.InwardMode) error {
	return s.change(func(st *state) { st.Inward = mode })
}

// Prefix returns an address of the bridge with the prefix length that was asked for, or p itself if none was.
func (s *Store) Prefix(p netip.Prefix) netip.Prefix {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.state.Addresses {
		if a.Addr() == p.Addr() {
			return a
		}
	}
	return p
}

// SetPrefix stores the prefix length of an address. On an error the length before stays.
func (s *Store) SetPrefix(p netip.Prefix) error {
	return s.change(func(st *state) {
		st.Addresses = slices.DeleteFunc(slices.Clone(st.Addresses), func(a netip.Prefix) bool { return a.Addr() == p.Addr() })
		st.Addresses = append(st.Addresses, p)
		slices.SortFunc(st.Addresses, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	})
}

// KeepOnly forgets the prefix lengths of all other addresses.
func (s *Store) KeepOnly(addrs []netip.Addr) error {
	return s.change(func(st *state) {
		st.Addresses = slices.DeleteFunc(slices.Clone(st.Addresses), func(a netip.Prefix) bool { return !slices.Contains(addrs, a.Addr()) })
	})
}

// change applies a change and writes the file, if anything differs.
func (s *Store) change(apply func(*state)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state
	apply(&next)
	if next.Inward == s.state.Inward && slices.Equal(next.Addresses, s.state.Addresses) {
		return nil
	}
	if s.path != "" {
		text, err := json.Marshal(next)
		if err == nil {
			err = renameio.WriteFile(s.path, text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("exposure: store the addresses of the bridge: %w", err)
		}
	}
	s.state = next
	return nil
}
