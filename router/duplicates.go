package router

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/ether"
)

// Times and bounds of finding duplicates.
const (
	// flapWithin is how soon an address has to turn up elsewhere again to count as flapping: a pod that moves does so once, and one that is
	// started again and again has another hardware address each time, or the same.
	flapWithin = 30 * time.Second
	// flapsMany is how often it does so in a row until it is taken for two that have the same.
	flapsMany = 4
	// flapFor is how long that is told after the last time.
	flapFor = 10 * time.Minute
	// formerHolders is how many hardware addresses that have had an IP address are remembered, to know it when it comes back to one.
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
	claims map[netip.Addr]*claim // guarded by mu
	moves  map[ether.Addr]*claim // guarded by mu
}

// claim is who had an address last, and how often that has gone to and fro.
type claim struct {
	mac   ether.Addr
	were  [formerHolders]ether.Addr // who had it before, the latest first
	flaps int
	last  time.Time // of a change
}

// handOver notes who has an IP address now, and counts where that is somebody who has had it before.
func (c *claim) handOver(mac ether.Addr, now time.Time) {
	if slices.Contains(c.were[:], mac) {
		c.change(now)
	}
	copy(c.were[1:], c.were[:])
	c.were[0], c.mac = c.mac, mac
}

func (c *claim) change(now time.Time) {
	if now.Sub(c.last) > flapWithin {
		c.flaps = 0
	}
	c.flaps++
	c.last = now
}

// claimed notes that mac says that it has addr.
func (d *duplicates) claimed(addr netip.Addr, mac ether.Addr, now time.Time) {
	if !addr.IsValid() || addr.IsUnspecified() || mac.IsZero() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.claims[addr]
	if c == nil {
		if d.claims == nil || len(d.claims) >= maxClaims {
			d.claims = make(map[netip.Addr]*claim)
		}
		d.claims[addr] = &claim{mac: mac}
		return
	}
	if c.mac != mac {
		c.handOver(mac, now)
	}
}

// moved notes that mac turned up at another node than before. What comes while another goroutine is here is not counted:
// frames do not wait for it.
func (d *duplicates) moved(mac ether.Addr, now time.Time) {
	if !d.mu.TryLock() {
		return
	}
	defer d.mu.Unlock()
	c := d.moves[mac]
	if c == nil {
		if d.moves == nil || len(d.moves) >= maxClaims {
			d.moves = make(map[ether.Addr]*claim)
		}
		c = &claim{mac: mac}
		d.moves[mac] = c
	}
	c.change(now)
}

// Duplicates returns the addresses that two seem to have, or seemed to minutes ago, the latest first.
func (e *Engine) Duplicates() []Duplicate {
	d, now := &e.duplicates, e.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []Duplicate
	add := func(addr netip.Addr, c *claim) {
		if c.flaps >= flapsMany && now.Sub(c.last) < flapFor {
			found = append(found, Duplicate{addr, c.mac, c.flaps, c.last})
		}
	}
	for addr, c := range d.claims {
		add(addr, c)
	}
	for _, c := range d.moves {
		add(netip.Addr{}, c)
	}
	slices.SortFunc(found, func(a, b Duplicate) int {
		return cmp.Or(b.Last.Compare(a.Last), a.Addr.Compare(b.Addr), cmp.Compare(a.MAC.Uint64(), b.MAC.Uint64()))
	})
	return found
}
