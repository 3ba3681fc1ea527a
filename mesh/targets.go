package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"weft/internal/peer"
)

// TargetsFile is the name of the file in the state directory that holds the persistent targets.
const TargetsFile = "targets.json"

// maxSeen bounds how many members of earlier runs are remembered.
const maxSeen = 1024

// ErrTargets is wrapped by LoadTargets' error for a file that it cannot read as targets.
var ErrTargets = errors.New("mesh: not a list of targets")

// ErrTarget is wrapped by ParseTarget's errors.
var ErrTarget = errors.New("mesh: not a peer address")

// Target is an address that an operator gave: a host name or IP address, and the gossip port.
type Target struct {
	Host string
	Port uint16
}

// ParseTarget reads "host", "host:port", an IP address, or "[IPv6]:port"; without a port it is defaultPort.
func ParseTarget(s string, defaultPort uint16) (Target, error) {
	host, portText := strings.Trim(s, "[]"), ""
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, portText = h, p
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") || host == "" || strings.ContainsAny(host, "/ \t\n") || strings.HasPrefix(host, "-") {
		return Target{}, fmt.Errorf("%w: %q: want HOST or HOST:PORT, an IPv6 address with a port in brackets", ErrTarget, s)
	}
	t := Target{Host: host, Port: defaultPort}
	if portText != "" {
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || port == 0 {
			return Target{}, fmt.Errorf("%w: %q: the port is not a number from 1 to 65535", ErrTarget, s)
		}
		t.Port = uint16(port)
	}
	return t, nil
}

// String returns the target as host:port, with brackets where they are needed.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// Targets is the durable list of what a node dials: the targets an operator gave by "weft connect", and the members
// seen in earlier runs. All methods may be called concurrently.
type Targets struct {
	path string // constant

	mu    sync.Mutex
	saved targetsFile // guarded by mu
}

// targetsFile is the JSON form of Targets.
type targetsFile struct {
	Targets []string           `json:"targets"`
	Seen    map[peer.ID]string `json:"seen"` // last known gossip address by member
}

// LoadTargets reads the list in folder dir; where there is none it is empty.
func LoadTargets(dir string) (*Targets, error) {
	t := &Targets{path: filepath.Join(dir, TargetsFile)}
	text, err := os.ReadFile(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("mesh: reading targets: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(text, &t.saved); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrTargets, t.path, err)
		}
	}
	if t.saved.Seen == nil {
		t.saved.Seen = make(map[peer.ID]string)
	}
	return t, nil
}

// List returns the operator's targets in the order they were added.
func (t *Targets) List() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.saved.Targets)
}

// Seen returns the gossip addresses of members of earlier runs and of this one.
func (t *Targets) Seen() map[peer.ID]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.saved.Seen)
}

// Set replaces the operator's targets. The list is on disk when it returns.
func (t *Targets) Set(targets []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.save(targetsFile{Targets: slices.Clone(targets), Seen: t.saved.Seen})
}

// Note notes where members were last heard of, by ID, and drops what it noted of those who are gone. It writes at most once,
// and only what is new.
func (t *Targets) RecordSeen(at map[peer.ID]string, gone []peer.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := maps.Clone(t.saved.Seen)
	for _, id := range gone {
		delete(seen, id)
	}
	for id, addr := range at {
		if _, known := seen[id]; known || len(seen) < maxSeen {
			seen[id] = addr
		}
	}
	if maps.Equal(seen, t.saved.Seen) {
		return nil
	}
	return t.save(targetsFile{Targets: t.saved.Targets, Seen: seen})
}

// save writes f and then takes it as the state; mu is held.
func (t *Targets) save(f targetsFile) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("mesh: writing targets: %w", err)
	}
	if err := renameio.WriteFile(t.path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("mesh: writing targets: %w", err)
	}
	t.saved = f
	return nil
}
