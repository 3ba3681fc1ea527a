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

const (
	// tombstoneTTL is how long tombstones are kept: longer than the time for which a node may miss gossip before it gets a
	// full state.
	tombstoneTTL = 30 * time.Minute
	// tombstoneAcceptAge is the age up to which a node accepts a tombstone of an entry that it does not know. All nodes drop
	// a tombstone at about the same time. A node that has dropped it must not accept it again from one that is a little
	// later, and pass it on.
	tombstoneAcceptAge = 25 * time.Minute
	// expirePause is the shortest time between two searches for expired tombstones.
	expirePause = time.Minute
)

// Errors of a Registry.
var (
	ErrUnknown = errors.New("dns: no such name")
	ErrFull    = errors.New("dns: too many names")
	ErrAddress = errors.New("dns: no address for the name")
)

// RegistryConfig configures a Registry. Fields without a default are required.
type RegistryConfig struct {
	Self   peer.ID
	Domain string // of all names, in lower case, without a dot at its end, such as weft.local; at most MaxDomain bytes

	Initial    []byte     // the latest that Store has saved; nil at the first start
	Store      Store      // nil: names are not saved
	Gossip     Gossip     // nil: names are not sent to other nodes
	Membership Membership // nil: all nodes are members and alive
	Clock      Clock      // nil: the system's

	Rand   rand.Source  // for the order of answers; nil: that of math/rand/v2. The Registry owns it
	Logger *slog.Logger // nil: nothing is logged
}

// Store keeps this node's names.
type Store interface {
	// Save replaces the saved state, and returns when the new one is durable. A Registry calls it before it answers or
	// broadcasts a change, from the goroutine of Add, Remove or Release, one call at a time. It may block: only further calls
	// of these three wait for it. It must not call them. It may keep state.
	Save(state []byte) error
}

// Gossip sends messages to the other nodes.
type Gossip interface {
	// Broadcast sends a message of at most MaxDelta bytes to all nodes; it may be lost. It is called from the goroutines of
	// Add, Remove, Release and Merge, also concurrently. It must not block, and must not call the first three. It may keep
	// the message.
	Broadcast(delta []byte)
}

// Membership knows which nodes are alive.
type Membership interface {
	// Alive reports whether a node is alive. Queries for the names of a node that is not alive are not answered. It is called
	// with the Registry locked: it must not block, and must not call the Registry or wait for a goroutine that does.
	Alive(id peer.ID) bool
	// Known reports whether a node is a member, alive or not, or was one in an earlier run. Entries of other nodes are kept for
	// nonMemberTTL, as far as there is room. It is called as Alive is, for each entry from gossip of a node that is new.
	Known(id peer.ID) bool
}

// Clock is the time source of a Registry.
type Clock interface {
	// Now returns the present time. It may be called concurrently, also with the Registry locked.
	Now() time.Time
}

// Validate returns an error that names the first invalid field.
func (c *RegistryConfig) Validate() error {
	if c.Self.IsZero() {
		return errors.New("dns: RegistryConfig.Self is not set")
	}
	if len(c.Domain) > MaxDomain || !validLabels(c.Domain) {
		return fmt.Errorf("dns: RegistryConfig.Domain: %q is not a domain", c.Domain)
	}
	return nil
}

func (c *RegistryConfig) setDefaults() {
	if c.Store == nil {
		c.Store = defaults{}
	}
	if c.Gossip == nil {
		c.Gossip = defaults{}
	}
	if c.Membership == nil {
		c.Membership = defaults{}
	}
	if c.Clock == nil {
		c.Clock = defaults{}
	}
	if c.Rand == nil {
		c.Rand = defaults{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// defaults implements the interfaces of RegistryConfig where a field is nil.
type defaults struct{}

func (defaults) Save([]byte) error  { return nil }
func (defaults) Broadcast([]byte)   {}
func (defaults) Alive(peer.ID) bool { return true }
func (defaults) Known(peer.ID) bool { return true }
func (defaults) Now() time.Time     { return time.Now() }

// Uint64 implements rand.Source.
func (defaults) Uint64() uint64 { return rand.Uint64() } //nolint:gosec // only spreads load

// Registry holds the names of all nodes, as far as this node knows them. It implements mesh.Channel. All methods may be
// called concurrently. Only Add, Remove and Release block, on Store.Save.
type Registry struct {
	cfg RegistryConfig // constant after NewRegistry

	changing sync.Mutex // held while this node's own names change and are saved

	mu sync.Mutex
	// Guarded by mu.
	table     table
	last      uint64                // the highest version of an entry of this node, own or received
	forgotten map[peer.ID]time.Time // when Forget was called, by node
	expired   time.Time             // when expired tombstones were last searched for
	refused   uint64                // entries for which there was no room
	rand      *rand.Rand
}

// NewRegistry returns a Registry with the names of this node in RegistryConfig.Initial.
func NewRegistry(cfg RegistryConfig) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	r := &Registry{
		cfg: cfg, table: newTable(), forgotten: make(map[peer.ID]time.Time), expired: cfg.Clock.Now(),
		rand: rand.New(cfg.Rand), //nolint:gosec // only spreads load
	}
	if err := r.load(cfg.Initial); err != nil {
		return nil, fmt.Errorf("dns: reading the saved names: %w", err)
	}
	return r, nil
}

// Lookup returns the addresses of a name in random order: those of this node and of nodes that are alive. The name is given
// without the domain, in upper or lower case. The result is empty when there is no such name.
func (r *Registry) Lookup(name string) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []netip.Addr
	for i := range r.table.byName[strings.ToLower(name)] {
		if r.isAnswered(i.node) {
			addrs = append(addrs, i.addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	r.rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// Reverse returns the names of an address, in order: those of this node and of nodes that are alive.
func (r *Registry) Reverse(addr netip.Addr) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for i := range r.table.byAddr[addr.Unmap()] {
		if r.isAnswered(i.node) {
			names = append(names, i.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isAnswered reports whether queries for the names of a node are answered; mu is held.
func (r *Registry) isAnswered(node peer.ID) bool {
	return node == r.cfg.Self || r.cfg.Membership.Alive(node)
}

// hasBelow reports whether there are names below name, as "web.shop" is below "shop", of nodes alive or not.
func (r *Registry) hasBelow(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.parents[strings.ToLower(name)] > 0
}

// List returns all names, ordered by name, node and address, including those of nodes that are not alive.
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

// counts returns the number of names, and the number of entries for which there was no room.
func (r *Registry) counts() (names int, refused uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.table.byName), r.refused
}
