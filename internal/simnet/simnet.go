// Package simnet is an underlay in memory: hosts send datagrams to each other through links with latency, loss,
// duplicates, reordering, an MTU, address translators and partitions.
//
// It starts no goroutine and does not sleep: a socket becomes ready when a datagram is due. So it works under
// testing/synctest, where a second of latency takes no time. Random decisions come from a seed: the same
// calls in the same order have the same results.
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

// Link describes the link from one host to another. The zero Link is perfect.
type Link struct {
	// Latency is the delay of a datagram. Jitter adds a random delay below it, with a uniform distribution, so that
	// datagrams overtake each other.
	Latency, Jitter time.Duration
	// Loss, Duplicate and Reorder are probabilities from 0 to 1: that a datagram is lost, that it arrives twice, and
	// that it takes Delay longer than others.
	Loss, Duplicate, Reorder float64
	Delay                    time.Duration
	// MTU in bytes, with the IP and UDP headers: larger datagrams are silently lost, as in a black hole. 0 for no
	// limit.
	MTU int
}

// Stats counts the datagrams of a Network.
type Stats struct {
	Sent       uint64 // passed to WriteBatch, each segment counted
	Delivered  uint64 // put into a receiver's buffer, duplicates included
	Lost       uint64 // by Link.Loss
	Cut        uint64 // by a partition
	Blocked    uint64 // by a firewall
	TooLarge   uint64 // by Link.MTU
	Overflowed uint64 // the receiver's buffer was full
	NoSocket   uint64 // no socket has the address
}

// Network connects sockets. All methods may be called from any goroutine.
type Network struct {
	merge atomic.Bool

	// Guarded by mu.
	mu       sync.Mutex
	rand     *rand.Rand
	conns    map[netip.AddrPort]*Conn
	fallback Link
	links    map[route]Link
	cut      map[route]bool
	blocked  map[netip.AddrPort]bool
	closed   map[[2]netip.AddrPort]bool // paths, by their sockets
	nats     map[netip.Addr]*nat        // by the hosts behind them
	outsides map[netip.Addr]*nat        // by their own addresses
	nextPort uint16
	seq      uint64
	stats    Stats
}

// route is a direction between two hosts.
type route struct{ from, to netip.Addr }

// New returns a network of perfect links; its random decisions come from seed.
func New(seed uint64) *Network {
	return &Network{
		rand:     rand.New(rand.NewPCG(seed, 0)),
		conns:    map[netip.AddrPort]*Conn{},
		links:    map[route]Link{},
		cut:      map[route]bool{},
		blocked:  map[netip.AddrPort]bool{},
		closed:   map[[2]netip.AddrPort]bool{},
		nats:     map[netip.Addr]*nat{},
		outsides: map[netip.Addr]*nat{},
		nextPort: 49152,
	}
}

// Listen opens a socket at addr; port 0 stands for a free port. The error wraps syscall.EADDRINUSE if another socket
// has the address.
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

// SetDefault sets the link of every pair of hosts without a link of its own.
func (n *Network) SetDefault(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fallback = l
}

// SetLink sets the link from one host to another, in this direction.
func (n *Network) SetLink(from, to netip.Addr, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[route{from, to}] = l
}

// Partition drops all datagrams between hosts of a and hosts of b until Heal.
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

// Block makes a firewall drop all datagrams from and to a socket, whether it is open or not, or stop to drop them.
func (n *Network) Block(socket netip.AddrPort, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocked[socket] = on
}

// BlockPath is Block for the datagrams from one socket to another only.
func (n *Network) BlockPath(from, to netip.AddrPort, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed[[2]netip.AddrPort{from, to}] = on
}

// SetMerge makes sockets merge datagrams of one size from one sender into elements with a SegmentSize, as the kernel
// does with UDP_GRO. It does not lose or reorder datagrams.
func (n *Network) SetMerge(on bool) { n.merge.Store(on) }

// Stats returns the counters.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// send carries one datagram from one socket to the address to, or loses it.
func (n *Network) send(from, to netip.AddrPort, tos uint8, buf []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Sent++
	if n.blocked[from] || n.blocked[to] || n.closed[[2]netip.AddrPort{from, to}] {
		n.stats.Blocked++
		return
	}
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
		n.stats.NoSocket++
	default:
		n.deliver(c, from, tos, buf, link)
		if n.chance(link.Duplicate) {
			n.deliver(c, from, tos, buf, link)
		}
	}
}

// translate returns the addresses of a datagram as its receiver sees them; to is not valid if no socket receives it.
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

// deliver puts one datagram into c's buffer, with the time at which it is due.
func (n *Network) deliver(c *Conn, from netip.AddrPort, tos uint8, buf []byte, link Link) {
	wait := link.Latency
	if link.Jitter > 0 {
		wait += time.Duration(n.rand.Int64N(int64(link.Jitter)))
	}
	if n.chance(link.Reorder) {
		wait += link.Delay
	}
	n.seq++
	if c.push(time.Now().Add(wait), n.seq, from, tos, buf) {
		n.stats.Delivered++
	} else {
		n.stats.Overflowed++
	}
}

// chance is true with the probability p. It uses a random number only if p is neither 0 nor 1.
func (n *Network) chance(p float64) bool { return p > 0 && n.rand.Float64() < p }

// forget releases the address of a closed socket.
func (n *Network) forget(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns[c.addr] == c {
		delete(n.conns, c.addr)
	}
}

// overhead is the length of the IP and UDP headers of a datagram to addr.
func overhead(addr netip.Addr) int {
	if addr.Is4() {
		return 20 + 8
	}
	return 40 + 8
}
