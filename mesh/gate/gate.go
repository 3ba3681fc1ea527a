// Package gate bounds the streams that other nodes open: how many are not authenticated, and how many each node has.
//
// The package starts no goroutine and reads no clock.
package gate

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/peer"
)

// Bounds of the streams that others open.
const (
	MaxUnknown     = 64  // streams that are not authenticated yet
	UnknownPerHost = 8   // of them from one IPv4 address, or one IPv6 /64
	MaxKnown       = 256 // streams that are authenticated
	KnownPerNode   = 16  // of them of one node
)

// Gate bounds the streams that others open. There is room for every new stream: it ends the oldest one of its own host
// that is not authenticated, or of the host that has most of those. So a host that opens many streams ends its own ones
// first. Authenticated streams have bounds of their own, and of those too the host that has most loses one: any holder of the
// secret can be many nodes. Its methods may be called concurrently.
type Gate struct {
	mu      sync.Mutex
	closed  bool            // guarded by mu
	unknown []*Stream       // guarded by mu: the oldest first
	peers   map[peer.ID]int // guarded by mu: streams of each peer
	inside  []*Stream       // guarded by mu: the authenticated ones, the oldest first
}

// Stream is one stream that another node has opened. Its Close frees its place.
type Stream struct {
	net.Conn // constant
	gate     *Gate
	host     netip.Prefix // constant

	// guarded by gate.mu
	peer    peer.ID
	evicted bool // ended to make room
}

// New returns an open gate.
func New() *Gate {
	return &Gate{peers: make(map[peer.ID]int)}
}

// PrefixOf returns what is taken for one host: the IPv4 address of an address, or the /64 of its IPv6 address. It is the zero
// prefix if there is none.
func PrefixOf(at net.Addr) netip.Prefix {
	addr := HostOf(at).WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// Enter lets a stream in that is not authenticated yet. It returns nil, and closes the stream, after Close.
func (g *Gate) Enter(conn net.Conn) *Stream {
	e := &Stream{Conn: conn, gate: g, host: PrefixOf(conn.RemoteAddr())}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		_ = conn.Close()
		return nil
	}
	out := g.makeRoom(e.host)
	g.unknown = append(g.unknown, e)
	g.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close()
	}
	return e
}

// makeRoom removes and returns the stream that has to end before one more of host can enter, nil if none has; mu is held.
func (g *Gate) makeRoom(host netip.Prefix) *Stream {
	most, count := crowded(g.unknown, host)
	switch {
	case count[host] >= UnknownPerHost:
		most = host
	case len(g.unknown) < MaxUnknown:
		return nil
	}
	i := slices.IndexFunc(g.unknown, func(e *Stream) bool { return e.host == most })
	out := g.unknown[i]
	g.unknown = slices.Delete(g.unknown, i, i+1)
	out.evicted = true
	return out
}

// crowded returns the host that has most of the streams, host itself if no other one has more, and how many each has.
func crowded(streams []*Stream, host netip.Prefix) (most netip.Prefix, count map[netip.Prefix]int) {
	count = make(map[netip.Prefix]int)
	most = host
	for _, e := range streams {
		if count[e.host]++; count[e.host] > count[most] {
			most = e.host
		}
	}
	return most, count
}

// Authenticate records that the stream is one of a node. It reports false if there are too many of that node, or of its host.
func (e *Stream) Authenticate(id peer.ID) bool {
	out, ok := e.authenticate(id)
	if out != nil {
		_ = out.Close()
	}
	return ok
}

// authenticate is Authenticate, and returns the stream that has to end to make room.
func (e *Stream) authenticate(id peer.ID) (out *Stream, ok bool) {
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.unknown, e)
	if i < 0 || g.peers[id] >= KnownPerNode { // the first: ended in the meantime
		return nil, false
	}
	if len(g.inside) >= MaxKnown {
		most, count := crowded(g.inside, e.host)
		if count[most] <= count[e.host]+1 {
			return nil, false // no host has much more than this one
		}
		out = g.inside[slices.IndexFunc(g.inside, func(e *Stream) bool { return e.host == most })]
		out.evicted = true
		out.leave()
	}
	g.unknown = slices.Delete(g.unknown, i, i+1)
	g.inside = append(g.inside, e)
	g.peers[id]++
	e.peer = id
	return out, true
}

// leave frees the place of an authenticated stream, if e is one; gate.mu is held.
func (e *Stream) leave() {
	i := slices.Index(e.gate.inside, e)
	if i < 0 {
		return
	}
	e.gate.inside = slices.Delete(e.gate.inside, i, i+1)
	if e.gate.peers[e.peer]--; e.gate.peers[e.peer] == 0 {
		delete(e.gate.peers, e.peer)
	}
}

// WasEvicted reports whether the stream was ended to make room for another one.
func (e *Stream) WasEvicted() bool {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	return e.evicted
}

// Close closes the stream and frees its place. It may be called again.
func (e *Stream) Close() error {
	e.gate.mu.Lock()
	if i := slices.Index(e.gate.unknown, e); i >= 0 {
		e.gate.unknown = slices.Delete(e.gate.unknown, i, i+1)
	}
	e.leave()
	e.gate.mu.Unlock()
	return e.Conn.Close()
}

// Close ends all streams and lets none in any more.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	all := slices.Concat(g.unknown, g.inside)
	g.mu.Unlock()
	for _, e := range all {
		_ = e.Close()
	}
}

// HostOf returns the host of an address, the zero address if it has none.
func HostOf(addr net.Addr) netip.Addr {
	at, _ := netip.ParseAddrPort(addr.String())
	return at.Addr().Unmap()
}
