// Package addressbook keeps the durable list of addresses that a node dials: the targets that an operator gave, and the members
// that it has seen in earlier runs.
package addressbook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/renameio/v2"

	"weft/internal/peer"
)

// FileName is the name of the file in the state directory that holds the persistent targets.
const FileName = "targets.json"

// fileMode is the mode of that file.
const fileMode = 0o600

// maxSeen bounds how many members of earlier runs are kept: as many as a mesh may have.
const maxSeen = 10000

// ErrMalformed is wrapped by Load's error for a file that is not a list of targets.
var ErrMalformed = errors.New("addressbook: not a list of targets")

// Book is the durable list of addresses that a node dials: the targets that an operator gave by "weft connect", and
// the members seen in earlier runs. All methods may be called concurrently. List and Seen never wait for the disk.
type Book struct {
	// constant
	path  string
	write func(path string, data []byte) error // replaces the file: after a crash it holds the old or the new data

	// updating is held by writers, over the write to disk, so that the latest state is the last one written. Readers do
	// not need it.
	updating sync.Mutex

	// saved is the state on disk. It is replaced as a whole after each write, and never modified.
	saved atomic.Pointer[content]
}

// content is the JSON form of a Book.
type content struct {
	Targets []string           `json:"targets"`
	Seen    map[peer.ID]string `json:"seen"` // last known gossip address by member
	Names   map[peer.ID]string `json:"names,omitempty"`
}

// Place is where a member was seen, and under which nickname.
type Place struct{ Addr, Name string }

// Load reads the list in folder dir. Without a file the list is empty.
func Load(dir string) (*Book, error) {
	b := &Book{path: filepath.Join(dir, FileName), write: replaceFile}
	text, err := os.ReadFile(b.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("addressbook: reading targets: %w", err)
	}
	saved := &content{}
	if err == nil {
		if err := json.Unmarshal(text, saved); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, b.path, err)
		}
	}
	if saved.Seen == nil {
		saved.Seen = make(map[peer.ID]string)
	}
	if saved.Names == nil {
		saved.Names = make(map[peer.ID]string)
	}
	b.saved.Store(saved)
	return b, nil
}

// InMemory returns an empty list that is not on any disk, for simulations.
func InMemory() *Book {
	b := &Book{write: func(string, []byte) error { return nil }}
	b.saved.Store(&content{Seen: make(map[peer.ID]string), Names: make(map[peer.ID]string)})
	return b
}

// replaceFile writes data to a new file, flushes it to disk, and renames it to path.
func replaceFile(path string, data []byte) error { return renameio.WriteFile(path, data, fileMode) }

// List returns the operator's targets in the order in which they were added.
func (b *Book) List() []string { return slices.Clone(b.saved.Load().Targets) }

// Seen returns the gossip addresses of the members of this run and of earlier ones, by ID.
func (b *Book) Seen() map[peer.ID]string { return maps.Clone(b.saved.Load().Seen) }

// AllSeen iterates over Seen, in any order.
func (b *Book) AllSeen() iter.Seq2[peer.ID, string] { return maps.All(b.saved.Load().Seen) }

// HasSeen reports whether a node is in Seen.
func (b *Book) HasSeen(id peer.ID) bool {
	_, seen := b.saved.Load().Seen[id]
	return seen
}

// Name returns the nickname of a node in Seen; empty: not known.
func (b *Book) Name(id peer.ID) string { return b.saved.Load().Names[id] }

// Update replaces the operator's targets by what f returns for the present ones; the slice that f gets is its own. The list is on disk
// when Update returns nil; an error leaves it unchanged. Updates exclude each other.
func (b *Book) Update(f func(targets []string) []string) error {
	b.updating.Lock()
	defer b.updating.Unlock()
	return b.save(&content{Targets: f(b.List()), Seen: b.saved.Load().Seen, Names: b.saved.Load().Names})
}

// RecordSeen records the latest gossip addresses and nicknames of members, and removes the members in left. It writes once, and not
// at all when nothing has changed. The result is on disk when RecordSeen returns nil; an error leaves the list unchanged.
func (b *Book) RecordSeen(at map[peer.ID]Place, left []peer.ID) error {
	b.updating.Lock()
	defer b.updating.Unlock()
	saved := b.saved.Load()
	seen, names := maps.Clone(saved.Seen), maps.Clone(saved.Names)
	for _, id := range left {
		delete(seen, id)
		delete(names, id)
	}
	for id, place := range at {
		if _, known := seen[id]; known || len(seen) < maxSeen {
			seen[id] = place.Addr
			if place.Name != "" {
				names[id] = place.Name
			}
		}
	}
	if maps.Equal(seen, saved.Seen) && maps.Equal(names, saved.Names) {
		return nil
	}
	return b.save(&content{Targets: saved.Targets, Seen: seen, Names: names})
}

// save writes f to disk, and makes it the state when that has succeeded; updating is held.
func (b *Book) save(f *content) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("addressbook: writing targets: %w", err)
	}
	if err := b.write(b.path, append(text, '\n')); err != nil {
		return fmt.Errorf("addressbook: writing targets: %w", err)
	}
	b.saved.Store(f)
	return nil
}
