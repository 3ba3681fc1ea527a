package dns

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"weft/internal/peer"
)

// keepRemoved is how long tombstones are kept: longer than a node misses gossip that it will get with a whole state.
const keepRemoved = 30 * time.Minute

// takeRemoved is how old a tombstone may be to be taken by a node that knows nothing of its entry. Nodes drop a tombstone
// at about the same time; who has dropped it must not take it again from one that is a little late, and tell it anew.
const takeRemoved = 25 * time.Minute

// expireEvery is how often at most the table is searched for what has had its time.
const expireEvery = time.Minute

// Errors of a Registry.
var (
	ErrUnknown = errors.New("dns: no such name")
	ErrFull    = errors.New("dns: too many names")
)

// RegistryConfig is what a Registry needs. Fields without a default must be set.
type RegistryConfig struct {
	Self peer.ID

	// Initial is what Save was last given; nil at the first start.
	Initial []byte
	// Save keeps this node's names, all of them each time, before they are told or answered. It is not called concurrently, and
	// may block: only Add, Remove and Release wait for it. Nil: they are not kept.
	Save func([]byte) error
	// Broadcast tells others, by a message of at most MaxDelta bytes. It may be called concurrently and must not block; a
	// message may be lost. Nil: nobody is told.
	Broadcast func([]byte)

	// Alive says whether a node is alive: the names of others are not answered. It is called while the Registry is locked, and
	// must neither call it nor wait for one who does. Nil: all are.
	Alive func(peer.ID) bool

	Now    func() time.Time // nil: time.Now
	Rand   rand.Source      // for the order of answers; nil: as math/rand/v2 has it. It is the Registry's alone
	Logger *slog.Logger     // nil: nothing is logged
}

// Validate returns an error that names the first field that cannot be worked with.
func (c *RegistryConfig) Validate() error {
	if c.Self.IsZero() {
		return errors.New("dns: RegistryConfig.Self is not set")
	}
	return nil
}

func (c *RegistryConfig) setDefaults() {
	if c.Save == nil {
		c.Save = func([]byte) error { return nil }
	}
	if c.Broadcast == nil {
		c.Broadcast = func([]byte) {}
	}
	if c.Alive == nil {
		c.Alive = func(peer.ID) bool { return true }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = globalRand{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// globalRand is the randomness of math/rand/v2.
type globalRand struct{}

// Uint64 implements rand.Source.
func (globalRand) Uint64() uint64 { return rand.Uint64() } //nolint:gosec // only spreads load

// Registry holds the names of all nodes, as far as this node has heard of them. It implements mesh.Channel. All methods may
// be called concurrently; none blocks but those that save.
type Registry struct {
	cfg RegistryConfig // constant after NewRegistry

	changing sync.Mutex // held while this node's own names change, also while they are saved; taken before mu

	mu sync.Mutex
	// Guarded by mu.
	table     table
	last      uint64                // the highest version that this node has used or heard of itself
	forgotten map[peer.ID]time.Time // whom Forget was called about, and when
	expired   time.Time             // when the table was last searched
	refused   uint64                // entries that there was no room for
	rand      *rand.Rand
}

// NewRegistry returns a Registry with this node's names of RegistryConfig.Initial.
func NewRegistry(cfg RegistryConfig) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	r := &Registry{
		cfg: cfg, table: newTable(), forgotten: make(map[peer.ID]time.Time), expired: cfg.Now(),
		rand: rand.New(cfg.Rand), //nolint:gosec // only spreads load
	}
	if err := r.load(cfg.Initial); err != nil {
		return nil, fmt.Errorf("dns: the names that were saved: %w", err)
	}
	return r, nil
}

// Lookup returns the addresses of a name, given without the domain and in letters of any case, in random order: those of
// this node and of nodes that are alive. It returns none where there is no such name.
func (r *Registry) Lookup(name string) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []netip.Addr
	for i := range r.table.byName[strings.ToLower(name)] {
		if r.answers(i.node) {
			addrs = append(addrs, i.addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	r.rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// Reverse returns the names of an address, in order, of this node and of nodes that are alive.
func (r *Registry) Reverse(addr netip.Addr) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for i := range r.table.byAddr[addr.Unmap()] {
		if r.answers(i.node) {
			names = append(names, i.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// answers reports whether the names of a node are answered; mu is held.
func (r *Registry) answers(node peer.ID) bool { return node == r.cfg.Self || r.cfg.Alive(node) }

// hasBelow reports whether there are names below name, as "web.shop" is below "shop", of nodes alive or not.
func (r *Registry) hasBelow(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.parents[strings.ToLower(name)] > 0
}

// List returns all names that there are, ordered by name, node and address: also those of nodes that are not alive, which
// are not answered.
func (r *Registry) List() []Entry {
	r.mu.Lock()
	var list []Entry
	for _, entries := range r.table.nodes {
		for _, e := range entries {
			if !e.Removed {
				list = append(list, e)
			}
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, compareEntries)
	return list
}

// names returns how many names there are, and how many entries there was no room for.
func (r *Registry) names() (names int, refused uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.table.byName), r.refused
}
