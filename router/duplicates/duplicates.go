// Package duplicates detects addresses that are in use twice: they flap.
//
// It has no clock and starts no goroutine; times are arguments.
package duplicates

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Times and bounds of the detection of duplicates.
const (
	// flapWithin is how soon after its last flap an address has to return to a former holder to count as flapping. A
	// pod that moves does not return, and one that is restarted repeatedly has another hardware address each time, or
	// the same.
	flapWithin = 30 * time.Second
	// minFlaps is the number of flaps in a row after which an address is reported as a duplicate.
	minFlaps = 4
	// flapReported is how long it is reported after its last flap.
	flapReported = 10 * time.Minute
	// formerHolders is how many former holders of an address are remembered, to recognize one to which it returns.
	formerHolders = 3
	// maxClaims bounds the addresses that are remembered. Beyond it all are forgotten, and detected again.
	maxClaims = 1 << 14
)

// Duplicate is an address that seems to be in use twice.
type Duplicate struct {
	Addr  netip.Addr // the IP address that flaps between hardware addresses; not valid if MAC itself flaps between nodes
	MAC   ether.Addr // the last hardware address
	Flaps int        // how often it has flapped
	Last  time.Time
}

// Table detects addresses that flap: IP addresses between hardware addresses, in the announcements of pods (RFC 826, RFC
// 4861), and hardware addresses between nodes. Its memory is bounded. The zero Table is ready for use. All methods may be
// called from any goroutine.
type Table struct {
	mu     sync.Mutex
	claims map[netip.Addr]*claim[ether.Addr] // guarded by mu
	moves  map[ether.Addr]*claim[peer.ID]    // guarded by mu
}

// claim is the present holder of an address, and how often the address has flapped.
type claim[Holder comparable] struct {
	holder Holder
	former []Holder // the latest first, at most formerHolders
	flaps  int
	last   time.Time // when it last returned to a former holder
}

// move makes to the holder, and counts a flap if it was one before.
func (c *claim[Holder]) move(to Holder, now time.Time) {
	if slices.Contains(c.former, to) {
		if now.Sub(c.last) > flapWithin {
			c.flaps = 0
		}
		c.flaps++
		c.last = now
	}
	c.former = append([]Holder{c.holder}, c.former[:min(len(c.former), formerHolders-1)]...)
	c.holder = to
}

// claimOf returns the claim of an address, a new one of holder if there is none.
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

// NoteClaim notes that a pod with hardware address mac has announced addr.
func (d *Table) NoteClaim(addr netip.Addr, mac ether.Addr, now time.Time) {
	if !addr.IsValid() || addr.IsUnspecified() || mac.IsZero() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := claimOf(&d.claims, addr, mac); c.holder != mac {
		c.move(mac, now)
	}
}

// NoteMove notes that mac was learned behind another node than before. A move that comes while another goroutine holds
// the lock is not counted, so that frames do not wait.
func (d *Table) NoteMove(mac ether.Addr, to peer.ID, now time.Time) {
	if !d.mu.TryLock() {
		return
	}
	defer d.mu.Unlock()
	if c := claimOf(&d.moves, mac, to); c.holder != to {
		c.move(to, now)
	}
}

// List returns the addresses that seem to be in use twice at now, or did so within flapReported, the latest first.
func (d *Table) List(now time.Time) []Duplicate {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []Duplicate
	add := func(addr netip.Addr, mac ether.Addr, flaps int, last time.Time) {
		if flaps >= minFlaps && now.Sub(last) < flapReported {
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
