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
	// Via is the peer that relays to this one, zero where the link is direct. Addr is tried all the same now and then.
	Via peer.ID
	// DialOut: it is reached only over links that it has opened itself, from wherever its datagrams come.
	DialOut bool
	// Kernel: frames for everybody reach this peer by the kernel's path, and are not sent to it here. Those for an
	// address of its own that come out of the TAP all the same are carried: nothing is lost while the bridge learns.
	Kernel bool
}

// equal reports whether nothing has changed that is worth a line in the log.
func (p Peer) equal(q Peer) bool { return p.Addr == q.Addr && p.Via == q.Via && p.Kernel == q.Kernel }

// hop is a peer in a snapshot, constant but for its state, which it shares with the same peer in other snapshots.
type hop struct {
	Peer
	// at is where datagrams for it go until it shows that it is elsewhere: its address, or its detour. Not valid: nowhere.
	at    netip.AddrPort
	state *peerState
}

// direct reports whether datagrams are sent to h itself.
func (h *hop) direct() bool { return h.Via.IsZero() && h.at.IsValid() }

// reached reports whether datagrams for h can be sent at all.
func (h *hop) reached() bool { return h.at.IsValid() }

// place finds out where datagrams for h go.
func (h *hop) place() {
	switch {
	case !h.Via.IsZero():
		h.at = detour(h.ID)
	case h.DialOut && h.state.seen.Load() != nil:
		h.at = *h.state.seen.Load()
	default:
		h.at = h.Addr
	}
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
	e.keys.setPeers(after, e.now())
	e.abandonWaiting(before, after)
	for id := range before.byID {
		if after.byID[id] == nil {
			n := e.fdb.Forget(id)
			e.neighbors.table.ForgetPeer(id)
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
		h.place()
		if old == nil || old.at != h.at {
			e.forgetPath(h)
			h.state.crossing.setLane(func(l lane) lane { return e.laneTo(l.session, h.at) })
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
		case h.reached():
			s.flood = append(s.flood, h)
		}
	}
	slices.SortFunc(s.flood, func(a, b *hop) int { return a.ID.Compare(b.ID) })
	return s
}
