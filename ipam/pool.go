package ipam

import (
	"cmp"
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

// pool is one range on this node. Its space always equals the tokens of this node in the ring, without the addresses
// that are never allocated. It is guarded by the Allocator's mu.
type pool struct {
	prefix    netip.Prefix
	self      peer.ID
	ring      *ring.Ring
	bootstrap *paxos.Node
	// acceptorStates are this node's states in the reclaim instances of the range, by dead node.
	acceptorStates map[peer.ID]paxos.Acceptor
	space          space.Space

	requested      bool       // an operation waits for the bootstrap, which is due even if it is lazy
	bootstrappedAt time.Time  // when this node learned of the division; zero: before New
	share          firstShare // what Run does to get one
	announcedAt    time.Time  // when this node last sent tokens to late bootstrap nodes
	unsaved        bool       // the ring contains changes of other nodes that are not durable
	events         events     // for operators
}

// firstShare is how far a node is that owns nothing of a range and requests a share of it.
type firstShare struct {
	requesting bool
	exhausted  bool          // when it last requested one, no node that could be reached had addresses for it
	due        time.Time     // when it requests one again; zero: at once
	pause      time.Duration // how long it waits until then
	logged     string        // why it has none, as it was logged last
}

// noTokens returns the ring without any token, for messages that only name the range.
func (p *pool) noTokens() *ring.Ring { return p.ring.Select(func(ring.Token) bool { return false }) }

// owned returns how many addresses a node owns, as far as this one knows.
func (p *pool) owned(id peer.ID) (addresses uint64) {
	for _, s := range p.ring.Owned(id) {
		addresses += s.Len()
	}
	return addresses
}

// complete reports whether the owner of every address is known.
func (p *pool) complete() bool {
	var known uint64
	for _, total := range p.ring.Totals() {
		known += total.Addresses
	}
	return known == p.ring.Size()
}

// usable returns the spans that this node owns by the ring and may allocate.
func (p *pool) usable() []space.Span {
	var spans []space.Span
	for _, s := range p.ring.Owned(p.self) {
		if s = s.Intersect(p.ring.Usable()); s.Len() > 0 {
			spans = append(spans, space.Span(s))
		}
	}
	return spans
}

// withEdges adds the addresses between span, which this node owns, and the ends of the range that are never allocated:
// else tokens of a few useless addresses would remain.
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

// report updates the free counts of this node's tokens and returns those that changed. Without all it publishes only
// whether a token is used at all and whether it has free addresses, which other nodes act on; the rest is published
// from time to time by Run.
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
	p.unsaved = false
	return nil
}

// syncSpace makes the space follow the ring, and returns the leased addresses that this node does not own any more.
func (p *pool) syncSpace(leases *leaseTable) (lost []netip.Addr) {
	p.space.SetOwned(p.usable())
	for addr := range leases.byAddr {
		if offset, ok := p.ring.Offset(addr); ok && !p.space.Owns(offset) {
			lost = append(lost, addr)
		}
	}
	return lost
}

// check returns an error where the space differs from the ring, or the leases differ from the space.
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

// check checks all pools. The caller holds mu.
func (a *Allocator) check() error {
	for _, p := range a.pools {
		if err := p.check(&a.leases); err != nil {
			return err
		}
	}
	return nil
}

// spans returns the offsets of parts of the range, in order. Those that are no parts of it, or all of it, are left out.
func (p *pool) spans(parts []netip.Prefix) (spans []space.Span) {
	for _, part := range parts {
		if s, ok := p.ring.Span(part); ok && part.Bits() > p.prefix.Bits() {
			spans = append(spans, space.Span(s))
		}
	}
	slices.SortFunc(spans, func(a, b space.Span) int { return cmp.Compare(a.Start, b.Start) })
	return spans
}
