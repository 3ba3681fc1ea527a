package docker

import (
	"net/netip"
	"sync"
	"time"

	"weft/internal/ether"
)

// busyTime is how long after the last request for it an endpoint counts as being made: Docker sends the next one in less.
const busyTime = 15 * time.Second

// busyMACs are the endpoints that are being made: they have leases before they have an interface. The zero value is empty. Its methods may
// be called concurrently.
type busyMACs struct {
	mu       sync.Mutex
	since    map[ether.Addr]time.Time
	creating map[ether.Addr]bool // CreateEndpoint is at work
}

// touch notes a request for an endpoint.
func (b *busyMACs) touch(mac ether.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since == nil {
		b.since, b.creating = map[ether.Addr]time.Time{}, map[ether.Addr]bool{}
	}
	now := time.Now()
	for other, since := range b.since {
		if now.Sub(since) > busyTime {
			delete(b.since, other)
		}
	}
	b.since[mac] = now
}

// begin notes that an endpoint is being made, until end is called. Not ok: another one with the same MAC is.
func (b *busyMACs) begin(mac ether.Addr) (end func(), ok bool) {
	b.touch(mac)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.creating[mac] {
		return nil, false
	}
	b.creating[mac] = true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.creating, mac)
		delete(b.since, mac)
	}, true
}

// has reports whether an endpoint is being made.
func (b *busyMACs) has(mac ether.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	since, known := b.since[mac]
	return b.creating[mac] || known && time.Since(since) < busyTime
}

// isCreating reports whether CreateEndpoint is at work for an endpoint.
func (b *busyMACs) isCreating(mac ether.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.creating[mac]
}

// reserveTime is how long a subnet is reserved between RequestPool and CreateNetwork.
const reserveTime = 30 * time.Second

// reservedPools are the subnets of networks that are being created. The zero value is empty. Its methods may be called concurrently.
type reservedPools struct {
	mu    sync.Mutex
	since map[netip.Prefix]time.Time
}

// all returns the reserved subnets.
func (r *reservedPools) all() (list []netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s, since := range r.since {
		if time.Since(since) < reserveTime {
			list = append(list, s)
		}
	}
	return list
}

// add reserves a subnet, unless it overlaps one that is reserved.
func (r *reservedPools) add(subnet netip.Prefix) (ok bool) {
	if overlap(r.all(), []netip.Prefix{subnet}) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == nil {
		r.since = map[netip.Prefix]time.Time{}
	}
	r.since[subnet] = time.Now()
	return true
}

// remove ends reservations.
func (r *reservedPools) remove(subnets ...netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range subnets {
		delete(r.since, s)
	}
}
