package router

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Times and bounds of finding duplicates.
const (
	// flapWithin is how soon an address has to come back again to count as flapping: a pod that moves does not come back, and one that is
	// started again and again has another hardware address each time, or the same.
	flapWithin = 30 * time.Second
	// flapsMany is how often it does so in a row until it is taken for two that have the same.
	flapsMany = 4
	// flapFor is how long that is told after the last time.
	flapFor = 10 * time.Minute
	// formerHolders is how many that have had an address are remembered, to know it when it comes back to one.
	formerHolders = 3
	// maxClaims bounds what is remembered; beyond it all is forgotten, and found again.
	maxClaims = 1 << 14
)

// Duplicate is an address that two seem to have.
type Duplicate struct {
	Addr  netip.Addr // whose hardware address goes to and fro; not valid where it is MAC itself that goes from node to node
	MAC   ether.Addr // who had it last
	Flaps int        // how often it went to and fro
	Last  time.Time
}

// duplicates finds addresses that go to and fro: IP addresses between hardware addresses, in what pods say of themselves
// (RFC 826, RFC 4861), and hardware addresses between nodes.
type duplicates struct {
	mu     sync.Mutex
	claims map[netip.Addr]*claim[ether.Addr] // guarded by mu
	moves  map[ether.Addr]*claim[peer.ID]    // guarded by mu
}

// claim is who had an address last, and how often that has gone to and fro.
type claim[Holder comparable] struct {
	holder Holder
	were   []Holder // who had it before, the latest first, at most formerHolders
	flaps  int
	last   time.Time // when it last went to somebody who has had it before
}

// handOver notes who has an address now, and counts where that is somebody who has had it before.
func (c *claim[Holder]) handOver(to Holder, now time.Time) {
	if slices.Contains(c.were, to) {
		if now.Sub(c.last) > flapWithin {
			c.flaps = 0
		}
		c.flaps++
		c.last = now
	}
	c.were = append([]Holder{c.holder}, c.were[:min(len(c.were), formerHolders-1)]...)
	c.holder = to
}

// claimOf returns the claim for an address, a new one of holder's where there is none.
func claimOf[Addr, Holder comparable](claims *map[Addr]*claim[Holder], addr Addr, holder Holder) *claim[Holder] {
	if c := (*claims)[addr]; c != nil {
		return c
	}
	if *claims == nil || len(*claims) >= maxClaims {
		*claims = make(map[Addr]*claim[Holder])
	}
	c := &claim[Holder]{holder: holder}
	(*claims)[addr] = c
	return c
}

// claimed notes that mac says that it has addr.
func (d *duplicates) claimed(addr netip.Addr, mac ether.Addr, now time.Time) {
	if !addr.IsValid() || addr.IsUnspecified() || mac.IsZero() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := claimOf(&d.claims, addr, mac); c.holder != mac {
		c.handOver(mac, now)
	}
}

// moved notes that mac turned up at another node than before. What comes while another goroutine is here is not counted:
// frames do not wait for it.
func (d *duplicates) moved(mac ether.Addr, to peer.ID, now time.Time) {
	if !d.mu.TryLock() {
		return
	}
	defer d.mu.Unlock()
	if c := claimOf(&d.moves, mac, to); c.holder != to {
		c.handOver(to, now)
	}
}

// Duplicates returns the addresses that two seem to have, or seemed to minutes ago, the latest first.
func (e *Engine) Duplicates() []Duplicate {
	d, now := &e.duplicates, e.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []Duplicate
	add := func(addr netip.Addr, mac ether.Addr, flaps int, last time.Time) {
		if flaps >= flapsMany && now.Sub(last) < flapFor {
			found = append(found, Duplicate{addr, mac, flaps, last})
		}
	}
	for addr, c := range d.claims {
		add(addr, c.holder, c.flaps, c.last)
	}
	for mac, c := range d.moves {
		add(netip.Addr{}, mac, c.flaps, c.last)
	}
	slices.SortFunc(found, func(a, b Duplicate) int {
		return cmp.Or(b.Last.Compare(a.Last), a.Addr.Compare(b.Addr), cmp.Compare(a.MAC.Uint64(), b.MAC.Uint64()))
	})
	return found
}
