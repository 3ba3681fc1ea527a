package guard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/google/renameio/v2"

	"weft/internal/api"
)

// Entry is what a node knows about the guard of an attachment.
type Entry struct {
	Port
	// Owner is the holder of the attachment, in text form.
	Owner string `json:"owner"`
	// Mode is what the port may send; never empty.
	Mode api.GuardMode `json:"mode"`
}

// Store holds the entries of a node in a file, so that they survive the daemon. Its methods may be called concurrently.
type Store struct {
	path string

	mu      sync.Mutex
	entries map[string]Entry // guarded by mu; by link
}

// OpenStore reads the file at path. A file that does not exist is an empty one.
func OpenStore(path string) (*Store, error) {
	s := &Store{path: path, entries: map[string]Entry{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return nil, fmt.Errorf("guard: read the bound ports: %w", err)
	}
	var list []Entry
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("guard: read the bound ports: %s: %w", path, err)
	}
	for _, e := range list {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("guard: read the bound ports: %s: %w", path, err)
		}
		s.entries[e.Link] = e
	}
	return s, nil
}

// All returns the entries, sorted by link. The caller owns the slice.
func (s *Store) All() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all()
}

// all is All for callers that hold mu.
func (s *Store) all() []Entry {
	list := make([]Entry, 0, len(s.entries))
	for _, e := range s.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Link, b.Link) })
	return list
}

// Of returns the entry of a link.
func (s *Store) Of(link string) (Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[link]
	return e, ok
}

// Put stores an entry in place of that of its link. On an error the entry before stays.
func (s *Store) Put(e Entry) error {
	return s.change(e.Link, func() { s.entries[e.Link] = e })
}

// Delete removes the entry of a link, if there is one.
func (s *Store) Delete(link string) error {
	return s.change(link, func() { delete(s.entries, link) })
}

// change applies a change of the entry of link and writes the file.
func (s *Store) change(link string, apply func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.entries[link]
	apply()
	text, err := json.Marshal(s.all())
	if err == nil {
		err = renameio.WriteFile(s.path, text, 0o600)
	}
	if err == nil {
		return nil
	}
	delete(s.entries, link)
	if known {
		s.entries[link] = before
	}
	return fmt.Errorf("guard: store the bound ports: %w", err)
}
