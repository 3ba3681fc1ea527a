package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/renameio/v2"

	"weft/internal/peer"
)

// TargetsFile is the name of the file in the state directory that holds the persistent targets.
const TargetsFile = "targets.json"

// targetsMode is the mode of that file.
const targetsMode = 0o600

// maxSeen bounds how many members of earlier runs are kept.
const maxSeen = 1024

// ErrTargets is wrapped by LoadTargets' error for a file that is not a list of targets.
var ErrTargets = errors.New("mesh: not a list of targets")

// Targets is the durable list of addresses that a node dials: the targets that an operator gave by "weft connect", and
// the members seen in earlier runs. All methods may be called concurrently. List and Seen never wait for the disk.
type Targets struct {
	// constant
	path  string
	write func(path string, data []byte) error // replaces the file: after a crash it holds the old or the new data

	// updating is held by writers, over the write to disk, so that the latest state is the last one written. Readers do
	// not need it.
	updating sync.Mutex

	// saved is the state on disk. It is replaced as a whole after each write, and never modified.
	saved atomic.Pointer[targetsFile]
}

// targetsFile is the JSON form of Targets.
type targetsFile struct {
	Targets []string           `json:"targets"`
	Seen    map[peer.ID]string `json:"seen"` // last known gossip address by member
}

// LoadTargets reads the list in folder dir. Without a file the list is empty.
func LoadTargets(dir string) (*Targets, error) {
	t := &Targets{path: filepath.Join(dir, TargetsFile), write: replaceFile}
	text, err := os.ReadFile(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("mesh: reading targets: %w", err)
	}
	saved := &targetsFile{}
	if err == nil {
		if err := json.Unmarshal(text, saved); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrTargets, t.path, err)
		}
	}
	if saved.Seen == nil {
		saved.Seen = make(map[peer.ID]string)
	}
	t.saved.Store(saved)
	return t, nil
}

// replaceFile writes data to a new file, flushes it to disk, and renames it to path.
func replaceFile(path string, data []byte) error { return renameio.WriteFile(path, data, targetsMode) }

// List returns the operator's targets in the order in which they were added.
func (t *Targets) List() []string { return slices.Clone(t.saved.Load().Targets) }

// Seen returns the gossip addresses of the members of this run and of earlier ones, by ID.
func (t *Targets) Seen() map[peer.ID]string { return maps.Clone(t.saved.Load().Seen) }

// HasSeen reports whether a node is in Seen.
func (t *Targets) HasSeen(id peer.ID) bool {
	_, seen := t.saved.Load().Seen[id]
	return seen
}

// Update replaces the operator's targets by what f returns for the present ones; the slice that f gets is its own. The list is on disk
// when Update returns nil; an error leaves it unchanged. Updates exclude each other.
func (t *Targets) Update(f func(targets []string) []string) error {
	t.updating.Lock()
	defer t.updating.Unlock()
	return t.save(&targetsFile{Targets: f(t.List()), Seen: t.saved.Load().Seen})
}

// RecordSeen records the latest gossip addresses of members, and removes the members in left. It writes once, and not
// at all when nothing has changed. The result is on disk when RecordSeen returns nil; an error leaves the list unchanged.
func (t *Targets) RecordSeen(at map[peer.ID]string, left []peer.ID) error {
	t.updating.Lock()
	defer t.updating.Unlock()
	saved := t.saved.Load()
	seen := maps.Clone(saved.Seen)
	for _, id := range left {
		delete(seen, id)
	}
	for id, addr := range at {
		if _, known := seen[id]; known || len(seen) < maxSeen {
			seen[id] = addr
		}
	}
	if maps.Equal(seen, saved.Seen) {
		return nil
	}
	return t.save(&targetsFile{Targets: saved.Targets, Seen: seen})
}

// save writes f to disk, and makes it the state when that has succeeded; updating is held.
func (t *Targets) save(f *targetsFile) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("mesh: writing targets: %w", err)
	}
	if err := t.write(t.path, append(text, '\n')); err != nil {
		return fmt.Errorf("mesh: writing targets: %w", err)
	}
	t.saved.Store(f)
	return nil
}
