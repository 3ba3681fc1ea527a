package router

import (
	"net/netip"
	"slices"

	"weft/internal/peer"
)

// Peer is what the engine must know of a node.
type Peer struct {
	ID peer.ID
	// Public is the node's static key, of which ID is made.
	Public [peer.KeySize]byte
	// Accepts are the fingerprints of the secrets that it takes; nil where that is not known.
	Accepts []uint32
	// Addr is where the node's data socket is reached, until authenticated datagrams of its own come from elsewhere. Not
	// valid: it has none.
	Addr netip.AddrPort
	// Via is the peer that relays to this one, zero where the link is direct. Frames are not carried over relays: those
	// for such a peer are dropped as DropNoRoute.
	Via peer.ID
	// Kernel: frames for everybody reach this peer by the kernel's path, and are not sent to it here. Those for an
	// address of its own that come out of the TAP all the same are carried: nothing is lost while the bridge learns.
	Kernel bool
}

// direct reports whether datagrams can be sent to p itself.
func (p Peer) direct() bool { return p.Via.IsZero() && p.Addr.IsValid() }

// equal reports whether nothing has changed that is worth a line in the log.
func (p Peer) equal(q Peer) bool { return p.Addr == q.Addr && p.Via == q.Via && p.Kernel == q.Kernel }

// hop is a peer in a snapshot, constant but for its state, which it shares with the same peer in other snapshots.
type hop struct {
	Peer
	state *peerState
}

// snapshot is all that is known of the peers at a time. It is never changed: who reads it may keep what it says until
// the end of a batch.
type snapshot struct {
	byID   map[peer.ID]*hop
	byAddr map[netip.AddrPort]*hop // by Peer.Addr, for hints that nobody authenticates
	// flood are those that a frame for everybody goes to.
	flood []*hop
	// kernel is how many are reached by the kernel's path.
	kernel int
}

// SetPeers replaces all that the engine knows of other nodes by peers, which it does not keep. Where two of them have
// one ID, the later counts. This node itself may be among them: nothing is sent to it. The addresses learned from a peer
// that is no longer there are forgotten, its session and its counters; those of a peer that stays go on.
func (e *Engine) SetPeers(peers []Peer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.peers.Load()
	after := e.build(before, peers)
	e.peers.Store(after)
	e.keys.setPeers(peers, e.now())
	e.abandonWaiting(before, after)
	for id := range before.byID {
		if after.byID[id] == nil {
			n := e.fdb.Forget(id)
			e.log.Info("peer left the datapath", "peer", id, "addresses", n)
		}
	}
	for id, h := range after.byID {
		if was := before.byID[id]; was == nil || !was.equal(h.Peer) {
			e.log.Info("peer in the datapath", "peer", id, "addr", h.Addr, "via", h.Via)
		}
	}
}

// build returns the snapshot of peers, with the state of before.
func (e *Engine) build(before *snapshot, peers []Peer) *snapshot {
	s := &snapshot{byID: make(map[peer.ID]*hop, len(peers)), byAddr: make(map[netip.AddrPort]*hop, len(peers))}
	for _, p := range peers {
		if p.ID.IsZero() || p.ID == e.self {
			continue
		}
		p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
		h := &hop{Peer: p}
		old := before.byID[p.ID]
		if old == nil {
			old = s.byID[p.ID]
		}
		if old != nil {
			h.state = old.state
		} else {
			h.state = newPeerState()
		}
		if old == nil || old.Addr != p.Addr {
			e.forgetPath(h)
			h.state.crossing.setLane(func(l lane) lane { return e.laneTo(l.session, p.Addr) })
		}
		s.byID[p.ID] = h
	}
	for _, h := range s.byID {
		if h.Addr.IsValid() {
			s.byAddr[h.Addr] = h
		}
	}
	for _, h := range s.byID {
		switch {
		case h.Kernel:
			s.kernel++
		case h.direct():
			s.flood = append(s.flood, h)
		}
	}
	slices.SortFunc(s.flood, func(a, b *hop) int { return a.ID.Compare(b.ID) })
	return s
}
