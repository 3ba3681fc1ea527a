package mesh

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/peer"
)

// Bounds of the streams that others open.
const (
	maxStrangers     = 64  // streams that are not authenticated yet
	strangersPerHost = 8   // of them from one IPv4 address, or one IPv6 /64
	maxPeerStreams   = 256 // streams that are authenticated
	streamsPerPeer   = 16  // of them of one node
)

// gate bounds the streams that others open. There is room for every new stream of a stranger: it ends the oldest one of
// its own host, or of the host that has most. So somebody who opens many streams ends those of the own hosts first. Its
// methods may be called concurrently.
type gate struct {
	mu        sync.Mutex
	closed    bool                   // guarded by mu
	strangers []*entrance            // guarded by mu: the oldest first
	peers     map[peer.ID]int        // guarded by mu: streams of each peer
	inside    map[*entrance]struct{} // guarded by mu: the authenticated ones
}

// entrance is one stream that another node has opened.
type entrance struct {
	net.Conn // constant
	gate     *gate
	host     netip.Prefix // constant

	// guarded by gate.mu
	peer   peer.ID
	pushed bool // ended to make room
}

func newGate() *gate {
	return &gate{peers: make(map[peer.ID]int), inside: make(map[*entrance]struct{})}
}

// hostPrefix returns what is taken for one host: an IPv4 address, or the /64 of an IPv6 address.
func hostPrefix(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero prefix for the zero address
	return p
}

// enter lets a stream in that is not authenticated yet. It returns nil, and closes the stream, after close.
func (g *gate) enter(conn net.Conn) *entrance {
	e := &entrance{Conn: conn, gate: g, host: hostPrefix(hostOf(conn.RemoteAddr()))}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		_ = conn.Close()
		return nil
	}
	out := g.makeRoom(e.host)
	g.strangers = append(g.strangers, e)
	g.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close()
	}
	return e
}

// makeRoom removes and returns the stream that has to end before one more of host can enter, nil if none has; mu is held.
func (g *gate) makeRoom(host netip.Prefix) *entrance {
	count := make(map[netip.Prefix]int)
	most := host
	for _, e := range g.strangers {
		if count[e.host]++; count[e.host] > count[most] {
			most = e.host
		}
	}
	switch {
	case count[host] >= strangersPerHost:
		most = host
	case len(g.strangers) < maxStrangers:
		return nil
	}
	i := slices.IndexFunc(g.strangers, func(e *entrance) bool { return e.host == most })
	out := g.strangers[i]
	g.strangers = slices.Delete(g.strangers, i, i+1)
	out.pushed = true
	return out
}

// authenticate records that the stream is one of a node. It reports false if there are too many.
func (e *entrance) authenticate(id peer.ID) bool {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	i := slices.Index(e.gate.strangers, e)
	if i < 0 {
		return false // ended in the meantime
	}
	if e.gate.peers[id] >= streamsPerPeer || len(e.gate.inside) >= maxPeerStreams {
		return false
	}
	e.gate.strangers = slices.Delete(e.gate.strangers, i, i+1)
	e.gate.inside[e] = struct{}{}
	e.gate.peers[id]++
	e.peer = id
	return true
}

// wasPushed reports whether the stream was ended to make room for another one.
func (e *entrance) wasPushed() bool {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	return e.pushed
}

// Close closes the stream and frees its place. It may be called again.
func (e *entrance) Close() error {
	e.gate.mu.Lock()
	if i := slices.Index(e.gate.strangers, e); i >= 0 {
		e.gate.strangers = slices.Delete(e.gate.strangers, i, i+1)
	}
	if _, inside := e.gate.inside[e]; inside {
		delete(e.gate.inside, e)
		if e.gate.peers[e.peer]--; e.gate.peers[e.peer] == 0 {
			delete(e.gate.peers, e.peer)
		}
	}
	e.gate.mu.Unlock()
	return e.Conn.Close()
}

// close ends all streams and lets none in any more.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	all := slices.Clone(g.strangers)
	for e := range g.inside {
		all = append(all, e)
	}
	g.mu.Unlock()
	for _, e := range all {
		_ = e.Close()
	}
}
