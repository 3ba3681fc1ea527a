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

// load fills memory with what the store holds. The caller holds mu, or nobody else has the Allocator yet. It changes the
// store only where this node's own vote changes by its configuration, and to drop leases that it has no right to.
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
	for i, old := range a.pools { // what was learnt since New, and is not stored
		pools[i].wanted, pools[i].fetching, pools[i].probed = old.wanted, old.fetching, old.probed
		pools[i].warnings = old.warnings
	}
	a.pools, a.leases = pools, leaseTable{}
	return a.loadLeases(state)
}

// loadLeases takes the leases in, and writes back what must not stay as it was.
func (a *Allocator) loadLeases(state store.State) error {
	var stray []netip.Addr
	for _, l := range state.Leases {
		p, offset, ok := a.poolOf(l.Addr)
		if !ok || p.space.Claim(offset) != nil {
			a.cfg.Logger.Error("ipam: dropping a stored lease: its address is not this node's", "addr", l.Addr, "owner", l.Holder)
			stray = append(stray, l.Addr)
			continue
		}
		a.leases.put(Lease{Holder: l.Holder, Addr: l.Addr, In: l.In, Bits: l.In.Bits(), Since: l.Since})
	}
	if state.Self == a.cfg.Self && len(stray) == 0 && !slices.ContainsFunc(a.pools, voteIsNew(&state)) {
		return nil
	}
	return a.commit(func(tx store.Tx) error {
		if err := tx.SetSelf(a.cfg.Self); err != nil {
			return err
		}
		for _, p := range a.pools {
			if err := p.saveVote(tx); err != nil {
				return err
			}
		}
		return deleteAll(tx, stray)
	})
}

// voteIsNew reports whether a pool's own vote differs from the stored one.
func voteIsNew(state *store.State) func(*pool) bool {
	return func(p *pool) bool {
		own := p.votes.Own()
		return !own.IsZero() && !slices.Equal(encodeVote(own), state.Ranges[p.prefix].BootstrapState)
	}
}

// checkStored returns an error where state is not this node's or of a range that it does not use.
func (c *Config) checkStored(state *store.State) error {
	if !state.Self.IsZero() && state.Self != c.Self {
		return fmt.Errorf("ipam: %s is the state of node %s, and this is %s: bring back that node's key, or move the file away "+
			"to join as a new node", state.Source, state.Self, c.Self)
	}
	stored := make([]netip.Prefix, 0, len(state.Ranges))
	for cidr := range state.Ranges {
		stored = append(stored, cidr)
	}
	slices.SortFunc(stored, netip.Prefix.Compare)
	for _, cidr := range stored {
		if !slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool { return r.Masked() == cidr }) {
			return fmt.Errorf("ipam: %s is for the range %s, and this node is told to use %s: go back to --range %s, or move the "+
				"file away to start anew", state.Source, join(stored), join(c.Ranges), join(stored))
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

// loadPool makes the pool of one range of what is stored for it.
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
	var vote paxos.State
	if stored.BootstrapState != nil {
		votes, err := paxos.Decode(stored.BootstrapState)
		if err == nil && len(votes) != 1 {
			err = fmt.Errorf("%d votes", len(votes))
		}
		if err != nil {
			return nil, corrupt(state.Source, cidr, err)
		}
		vote = votes[0]
	}
	p.votes = paxos.New(c.Self, c.InitPeers, vote)
	if err := p.loadDecrees(stored.ReclaimStates); err != nil {
		return nil, corrupt(state.Source, cidr, err)
	}
	p.space.SetOwned(p.usable())
	return p, nil
}

func corrupt(source string, cidr netip.Prefix, err error) error {
	return fmt.Errorf("%w: %s: what it holds for %s (%w): move it away: this node then joins as a new one and asks the others for space",
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

// poolOf returns the pool that addr belongs to, and where in it addr is.
func (a *Allocator) poolOf(addr netip.Addr) (p *pool, offset uint64, ok bool) {
	for _, p := range a.pools {
		if offset, ok := p.ring.Offset(addr); ok {
			return p, offset, true
		}
	}
	return nil, 0, false
}

// owners returns the IDs of all who own part of a range, this node aside, without order.
func (a *Allocator) owners() map[peer.ID]uint64 {
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
