// Package simnet is an underlay in memory: hosts that send datagrams to one another through links with latency, loss,
// duplicates, reordering, an MTU, address translators and partitions.
//
// It starts no goroutine and sleeps only in ReadBatch, so that it works under testing/synctest, where a second of
// latency costs nothing. Chance comes from a seed: the same calls in the same order meet the same fate.
package simnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Link says what befalls the datagrams from one host to another. The zero Link is perfect.
type Link struct {
	// Latency is how long a datagram is under way. Jitter adds an even chance of up to as much again: with it, datagrams
	// overtake one another.
	Latency, Jitter time.Duration
	// Loss, Duplicate and Reorder are chances from 0 to 1: that a datagram vanishes, that it arrives twice, and that it
	// takes Delay longer than its followers.
	Loss, Duplicate, Reorder float64
	Delay                    time.Duration
	// MTU in bytes, IP and UDP headers counted: what is larger vanishes without a word, as in a black hole. 0 for none.
	MTU int
}

// Stats counts the datagrams of a Network.
type Stats struct {
	Sent       uint64 // given to WriteBatch, a segment each
	Delivered  uint64 // put into a receiver's buffer, duplicates counted
	Lost       uint64 // by Link.Loss
	Cut        uint64 // by a partition
	TooLarge   uint64 // by Link.MTU
	Overflowed uint64 // the receiver's buffer was full
	Nobody     uint64 // no socket has the address
}

// Network joins sockets. All methods may be called from any goroutine.
type Network struct {
	merge atomic.Bool

	// Guarded by mu.
	mu       sync.Mutex
	rand     *rand.Rand
	conns    map[netip.AddrPort]*Conn
	fallback Link
	links    map[route]Link
	cut      map[route]bool
	nats     map[netip.Addr]*nat // by the hosts behind them
	outsides map[netip.Addr]*nat // by their own addresses
	nextPort uint16
	seq      uint64
	stats    Stats
}

// route is a direction between two hosts.
type route struct{ from, to netip.Addr }

// New returns a network of perfect links whose chance comes from seed.
func New(seed uint64) *Network {
	return &Network{
		rand:     rand.New(rand.NewPCG(seed, 0)),
		conns:    map[netip.AddrPort]*Conn{},
		links:    map[route]Link{},
		cut:      map[route]bool{},
		nats:     map[netip.Addr]*nat{},
		outsides: map[netip.Addr]*nat{},
		nextPort: 49152,
	}
}

// Listen opens a socket at addr; port 0 takes a free one. The error is syscall.EADDRINUSE where another has it.
func (n *Network) Listen(addr netip.AddrPort) (*Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr.Port() == 0 {
		if free := netip.AddrPortFrom(addr.Addr(), n.nextPort); n.conns[free] == nil {
			addr = free
		}
		n.nextPort++
	}
	if n.conns[addr] != nil {
		return nil, fmt.Errorf("simnet: %s: %w", addr, syscall.EADDRINUSE)
	}
	c := newConn(n, addr)
	n.conns[addr] = c
	return c, nil
}

// SetDefault gives every pair of hosts without a link of its own the link l.
func (n *Network) SetDefault(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fallback = l
}

// SetLink gives the direction from one host to another the link l.
func (n *Network) SetLink(from, to netip.Addr, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[route{from, to}] = l
}

// Partition cuts every host of a from every host of b, in both directions, until Heal.
func (n *Network) Partition(a, b []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range a {
		for _, y := range b {
			n.cut[route{x, y}], n.cut[route{y, x}] = true, true
		}
	}
}

// Heal ends all partitions.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// SetMerge has sockets merge datagrams of one size from one sender that are due, into elements with a SegmentSize, as the
// kernel does with UDP_GRO. It loses and reorders nothing.
func (n *Network) SetMerge(on bool) { n.merge.Store(on) }

// Stats returns the counters.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// send carries one datagram from one socket to the address to, or loses it.
func (n *Network) send(from, to netip.AddrPort, buf []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Sent++
	from, to = n.translate(from, to)
	way := route{from.Addr(), to.Addr()}
	link, ok := n.links[way]
	if !ok {
		link = n.fallback
	}
	c := n.conns[to]
	switch {
	case n.cut[way]:
		n.stats.Cut++
	case link.MTU > 0 && len(buf)+overhead(to.Addr()) > link.MTU:
		n.stats.TooLarge++
	case n.chance(link.Loss):
		n.stats.Lost++
	case c == nil:
		n.stats.Nobody++
	default:
		n.deliver(c, from, buf, link)
		if n.chance(link.Duplicate) {
			n.deliver(c, from, buf, link)
		}
	}
}

// translate returns the addresses of a datagram as its receiver sees them; to is not valid where nobody gets it.
func (n *Network) translate(from, to netip.AddrPort) (seen, socket netip.AddrPort) {
	if t := n.nats[from.Addr()]; t != nil && t != n.nats[to.Addr()] {
		from = t.leave(from, to)
	}
	switch t, behind := n.outsides[to.Addr()], n.nats[to.Addr()]; {
	case t != nil:
		to = t.enter(from, to)
	case behind != nil && behind != n.nats[from.Addr()]:
		to = netip.AddrPort{} // a private address
	}
	return from, to
}

// deliver puts one datagram into c's buffer, to be received when it is due.
func (n *Network) deliver(c *Conn, from netip.AddrPort, buf []byte, link Link) {
	wait := link.Latency
	if link.Jitter > 0 {
		wait += time.Duration(n.rand.Int64N(int64(link.Jitter)))
	}
	if n.chance(link.Reorder) {
		wait += link.Delay
	}
	n.seq++
	if c.push(time.Now().Add(wait), n.seq, from, buf) {
		n.stats.Delivered++
	} else {
		n.stats.Overflowed++
	}
}

// chance is true with the probability p. It draws only where there is something to decide.
func (n *Network) chance(p float64) bool { return p > 0 && n.rand.Float64() < p }

// forget frees the address of a closed socket.
func (n *Network) forget(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[c.addr] == c {
		delete(n.conns, c.addr)
	}
}

// overhead is the length of the IP and UDP headers on the way to addr.
func overhead(addr netip.Addr) int {
	if addr.Is4() {
		return 20 + 8
	}
	return 40 + 8
}
