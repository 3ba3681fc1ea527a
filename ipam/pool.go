package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/space"
	"weft/ipam/store"
)

// pool is one range on this node. Its space is always what the ring says this node owns, without the addresses that are
// never given out. It is guarded by the Allocator's mu.
type pool struct {
	prefix netip.Prefix
	self   peer.ID
	ring   *ring.Ring
	votes  *paxos.Node
	// decrees are this node's parts in the decrees about what nodes own that are gone, by these.
	decrees map[peer.ID]paxos.Acceptor
	space   space.Space

	wanted   bool      // somebody waits for the founding, even if it is to be lazy
	adopted  time.Time // when this node heard of the founding; zero: before New
	fetching bool      // Run is asking for a first share
	probed   time.Time // when every node last said that it has no space for this one; zero: never
	retold   time.Time // when this node last told a latecomer to the founding that it is over
	stale    bool      // the ring holds news of others that are not on disk
	warnings []string  // what a person must know, the latest last
}

// maxWarnings bounds how many warnings a pool keeps.
const maxWarnings = 8

// fillIn adds to a ring of which this node heard in part what its founding says of the rest, where the electors that it
// has met prove to be the founders. Without it a founder whose own share is not in what it heard first would ask for
// another one.
func (p *pool) fillIn() {
	var electors []peer.ID
	for _, s := range p.votes.States() {
		electors = append(electors, s.Node)
	}
	electors = electors[:min(len(electors), paxos.MaxValue)]
	p.ring.FillIn(electors)
}

// owned is how many addresses a node owns, as far as this one knows.
func (p *pool) owned(id peer.ID) (addresses uint64) {
	for _, s := range p.ring.Owned(id) {
		addresses += s.Len()
	}
	return addresses
}

func (p *pool) warn(text string) {
	if slices.Contains(p.warnings, text) {
		return
	}
	p.warnings = append(p.warnings, text)
	if n := len(p.warnings); n > maxWarnings {
		p.warnings = slices.Clone(p.warnings[n-maxWarnings:])
	}
}

// complete reports whether the ring says of every address whose it is.
func (p *pool) complete() bool {
	var known uint64
	for _, total := range p.ring.Totals() {
		known += total.Addresses
	}
	return known == p.ring.Size()
}

// usable is what this node owns by the ring and may give out.
func (p *pool) usable() []space.Span {
	var spans []space.Span
	for _, s := range p.ring.Owned(p.self) {
		if s = s.Intersect(p.ring.Usable()); s.Len() > 0 {
			spans = append(spans, space.Span(s))
		}
	}
	return spans
}

// withEdges adds to span, which this node owns, what lies between it and the ends of the range and is never given out: it
// would be left behind as crumbs.
func (p *pool) withEdges(span ring.Span) ring.Span {
	usable := p.ring.Usable()
	if owner, ok := p.ring.Owner(0); ok && owner == p.self && span.Start == usable.Start {
		span.Start = 0
	}
	last := p.ring.Size() - 1
	if owner, ok := p.ring.Owner(last); ok && owner == p.self && span.End == usable.End {
		span.End = last + 1
	}
	return span
}

func (p *pool) free(s ring.Span) uint64 { return p.space.FreeIn(space.Span(s)) }

// report sets the free counts of this node's tokens. At once it tells only whether a token is used at all and whether it has
// space, which others act on; the rest is told now and then, by Run.
func (p *pool) report(all bool) (delta *ring.Ring) {
	if all {
		return p.ring.ReportFree(p.self, p.free, nil)
	}
	return p.ring.ReportFree(p.self, p.free, func(was, is, capacity uint64) bool {
		return (was == capacity) != (is == capacity) || (was == 0) != (is == 0)
	})
}

func (p *pool) saveRing(tx store.Tx) error {
	if err := tx.SetRing(p.prefix, p.ring.Append(nil)); err != nil {
		return err
	}
	p.stale = false
	return nil
}

func (p *pool) saveVote(tx store.Tx) error {
	own := p.votes.Own()
	if own.IsZero() {
		return nil
	}
	return tx.SetBootstrapState(p.prefix, encodeVote(own))
}

func encodeVote(own paxos.State) []byte { return paxos.Append(nil, []paxos.State{own}) }

// adopt makes the space follow the ring, and returns the addresses that this node gave out and owns no more.
func (p *pool) adopt(leases *leaseTable) (lost []netip.Addr) {
	p.space.SetOwned(p.usable())
	for addr := range leases.byAddr {
		if offset, ok := p.ring.Offset(addr); ok && !p.space.Owns(offset) {
			lost = append(lost, addr)
		}
	}
	return lost
}

// check returns an error where the space is not what the ring says, or leases are not what the space says.
func (p *pool) check(leases *leaseTable) error {
	if err := p.ring.Check(); err != nil {
		return fmt.Errorf("ipam: %s: %w", p.prefix, err)
	}
	var want space.Space
	want.SetOwned(p.usable())
	if !slices.Equal(want.Owned(), p.space.Owned()) {
		return fmt.Errorf("ipam: %s: space %v, by the ring %v", p.prefix, p.space.Owned(), want.Owned())
	}
	var count uint64
	for addr := range leases.byAddr {
		offset, ok := p.ring.Offset(addr)
		if !ok {
			continue
		}
		count++
		if !p.space.Owns(offset) || p.space.Free(offset) {
			return fmt.Errorf("ipam: %s: %s is leased and not taken", p.prefix, addr)
		}
	}
	if taken := p.space.Len() - p.space.FreeIn(space.Span{Start: 0, End: p.ring.Size()}); taken != count {
		return fmt.Errorf("ipam: %s: %d addresses taken, %d leased", p.prefix, taken, count)
	}
	return nil
}

// check is pool.check of all pools. The caller holds mu.
func (a *Allocator) check() error {
	for _, p := range a.pools {
		if err := p.check(&a.leases); err != nil {
			return err
		}
	}
	return nil
}
