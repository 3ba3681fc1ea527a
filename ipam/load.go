package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// load fills memory from the store. The caller holds mu, or is New. It changes the store only where this node's own
// bootstrap state changes by its configuration, and to remove leases of addresses that this node does not own.
func (a *Allocator) load() error {
	state, err := a.cfg.Store.Load()
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	if err := a.cfg.checkStored(&state); err != nil {
		return err
	}
	var pools []*pool
	for _, cidr := range a.cfg.Ranges {
		p, err := a.cfg.loadPool(cidr.Masked(), &state)
		if err != nil {
			return err
		}
		pools = append(pools, p)
	}
	for i, old := range a.pools { // state that is not stored
		pools[i].requested, pools[i].share, pools[i].events = old.requested, old.share, old.events
	}
	a.pools, a.leases = pools, leaseTable{}
	return a.loadLeases(state)
}

// loadLeases loads the leases, and writes the changes that load requires.
func (a *Allocator) loadLeases(state store.State) error {
	var stray []netip.Addr
	for _, l := range state.Leases {
		p, offset, ok := a.poolOf(l.Addr)
		if !ok || p.space.Claim(offset) != nil {
			a.cfg.Logger.Error("stored lease dropped, its address does not belong to this node", "addr", l.Addr, "owner", l.Holder)
			stray = append(stray, l.Addr)
			a.lost.add(LostLease{Lease: leaseOf(l)})
			continue
		}
		a.leases.put(leaseOf(l))
	}
	if state.Self == a.cfg.Self && len(stray) == 0 && !slices.ContainsFunc(a.pools, stateChanged(&state)) {
		return nil
	}
	return a.update(func(tx store.Tx) error {
		if err := tx.SetSelf(a.cfg.Self); err != nil {
			return err
		}
		for _, p := range a.pools {
			if err := p.saveBootstrap(tx); err != nil {
				return err
			}
		}
		return deleteAll(tx, stray)
	})
}

// stateChanged returns a function that reports whether a pool's own bootstrap state differs from the stored one.
func stateChanged(state *store.State) func(*pool) bool {
	return func(p *pool) bool {
		own := p.bootstrap.Own()
		return !own.IsZero() && !slices.Equal(encodeState(own), state.Ranges[p.prefix].BootstrapState)
	}
}

// checkStored returns an error where the stored state is of another node or of a range that is not configured.
func (c *Config) checkStored(state *store.State) error {
	if !state.Self.IsZero() && state.Self != c.Self {
		return fmt.Errorf("ipam: %s is the state of node %s, but this is node %s: restore the key of that node, or move the file away "+
			"to join as a new node", state.Source, state.Self, c.Self)
	}
	stored := make([]netip.Prefix, 0, len(state.Ranges))
	for cidr := range state.Ranges {
		stored = append(stored, cidr)
	}
	slices.SortFunc(stored, netip.Prefix.Compare)
	for _, cidr := range stored {
		if !slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Masked() == cidr }) {
			return &StoredRangeError{Source: state.Source, Stored: join(stored), Configured: join(c.Ranges)}
		}
	}
	return nil
}

func join(cidrs []netip.Prefix) string {
	texts := make([]string, len(cidrs))
	for i, cidr := range cidrs {
		texts[i] = cidr.Masked().String()
	}
	return strings.Join(texts, ",")
}

// loadPool makes the pool of one range from its stored state.
func (c *Config) loadPool(cidr netip.Prefix, state *store.State) (*pool, error) {
	stored := state.Ranges[cidr]
	p := &pool{prefix: cidr, self: c.Self}
	var err error
	if p.ring, err = ring.New(cidr); err != nil {
		return nil, err
	}
	if stored.Ring != nil {
		if p.ring, err = ring.Decode(stored.Ring); err == nil && p.ring.Range() != cidr {
			err = fmt.Errorf("ring of %s", p.ring.Range())
		}
	}
	if err != nil {
		return nil, corrupt(state.Source, cidr, err)
	}
	var own paxos.State
	if stored.BootstrapState != nil {
		states, err := paxos.Decode(stored.BootstrapState)
		if err == nil && len(states) != 1 {
			err = fmt.Errorf("%d bootstrap states", len(states))
		}
		if err != nil {
			return nil, corrupt(state.Source, cidr, err)
		}
		own = states[0]
	}
	p.bootstrap = paxos.New(c.Self, c.InitPeers, own)
	if err := p.loadAcceptors(stored.ReclaimStates); err != nil {
		return nil, corrupt(state.Source, cidr, err)
	}
	p.space.SetOwned(p.usable())
	return p, nil
}

func corrupt(source string, cidr netip.Prefix, err error) error {
	return fmt.Errorf("%w: %s: state of %s (%w): move the file away: this node then joins as a new one and requests addresses of the others",
		store.ErrCorrupt, source, cidr, err)
}

func deleteAll(tx store.Tx, addrs []netip.Addr) error {
	for _, addr := range addrs {
		if err := tx.DeleteLease(addr); err != nil {
			return err
		}
	}
	return nil
}

// pool returns the pool of a range; nil where this node does not use it. The caller holds mu.
func (a *Allocator) pool(cidr netip.Prefix) *pool {
	for _, p := range a.pools {
		if p.prefix == cidr {
			return p
		}
	}
	return nil
}

// poolOf returns the pool that addr belongs to, and the offset of addr in it. The caller holds mu.
func (a *Allocator) poolOf(addr netip.Addr) (p *pool, offset uint64, ok bool) {
	for _, p := range a.pools {
		if offset, ok := p.ring.Offset(addr); ok {
			return p, offset, true
		}
	}
	return nil, 0, false
}

// otherOwners returns how many addresses each other node owns. The caller holds mu.
func (a *Allocator) otherOwners() map[peer.ID]uint64 {
	owners := make(map[peer.ID]uint64)
	for _, p := range a.pools {
		for _, total := range p.ring.Totals() {
			if total.Owner != a.cfg.Self {
				owners[total.Owner] += total.Addresses
			}
		}
	}
	return owners
}
