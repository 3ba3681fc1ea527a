package router

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"weft/internal/peer"
	"weft/internal/ratelimit"
	"weft/router/counters"
	"weft/router/drop"
	"weft/router/endpoint"
	"weft/router/entropyport"
	"weft/router/liveness"
	"weft/router/pmtu"
	"weft/router/roaming"
	"weft/router/session"
	"weft/router/wire"
)

// Peer describes another node to SetPeers.
type Peer struct {
	ID peer.ID
	// Public is the node's static key, from which ID is derived.
	Public [peer.KeySize]byte
	// Accepts are the fingerprints of the secrets that it accepts; nil while unknown.
	Accepts []uint32
	// Addr is the address of the node's data socket, as the node announces it. Frames go there until the node has answered at
	// another address; a new Addr is used once the node has answered there. Not valid, or none of a host: the node has no
	// address.
	Addr netip.AddrPort
	// Via is the peer that relays to this one, zero where the link is direct. Addr is probed all the same from time to
	// time.
	Via peer.ID
	// DialOut: the node is reached only over links that it has opened itself, at the source of its datagrams.
	DialOut bool
}

// equal reports whether nothing has changed that is worth a log line.
func (p Peer) equal(q Peer) bool { return p.Addr == q.Addr && p.Via == q.Via }

// peerView is a peer as one snapshot describes it. It is immutable; the remotePeer is shared with the views of the same
// peer in other snapshots.
type peerView struct {
	Peer
	*remotePeer
	// home is where the snapshot expects the peer: where it has answered last, else at its address; or its relayed endpoint.
	// Not valid: there is none.
	home netip.AddrPort
}

// direct reports whether datagrams are sent to the peer itself.
func (v *peerView) direct() bool { return v.Via.IsZero() && v.home.IsValid() }

// reachable reports whether datagrams for the peer can be sent at all.
func (v *peerView) reachable() bool { return v.home.IsValid() }

// sameKind reports whether both views reach the peer in the same way: directly, over a relay or not at all.
func (v *peerView) sameKind(o *peerView) bool {
	return v.direct() == o.direct() && v.Via.IsZero() == o.Via.IsZero()
}

// homeOf returns peerView.home.
func (v *peerView) homeOf() netip.AddrPort {
	switch proven := v.proven.Load(); {
	case !v.Via.IsZero():
		return endpoint.Relayed(v.ID)
	case proven != nil:
		return *proven
	default:
		return v.Addr
	}
}

// remotePeer is everything that the engine knows about one peer, from the SetPeers that adds the peer to the one that
// removes it. For the order of mu among the other locks see the table at Engine.
type remotePeer struct {
	// Atomic. The two directions are a cache line apart, as different goroutines count them.

	transmit counters.Traffic
	_        [64]byte
	receive  counters.Traffic
	_        [64]byte
	drops    drop.Counters
	// released is the number of frames received at the last ReleaseMACs, plus one.
	released atomic.Uint64
	// egress is the present egress, never nil. It is stored only while mu is held.
	egress atomic.Pointer[egress]
	// requested: the peer is in Engine.sessionRequests.
	requested atomic.Bool
	// plainAgreed: the ends of the last session have agreed that frames need not be sealed.
	plainAgreed atomic.Bool
	// kernel: the kernel path carries frames for the peer. It is stored only while Engine.mu is held.
	kernel atomic.Bool
	// observed is the source of a late datagram of the peer that was not relayed; nil: there was none. It is no proof that the
	// peer is reached there.
	observed atomic.Pointer[netip.AddrPort]
	// proven is the address at which the peer has answered last, other than over a relay; nil: there is none.
	proven atomic.Pointer[netip.AddrPort]
	// proposed is when a datagram last made the engine look for the peer at its source, in nanoseconds of Unix time.
	proposed atomic.Int64
	// relayedBy is the ID of the peer over which the last relayed datagram of this one arrived, as a number; 0: there was none.
	relayedBy atomic.Uint64
	// datagram is the length in bytes of the longest datagram that the path takes.
	datagram atomic.Int64

	// heard is when the last datagram arrived that only the peer can have sent, in nanoseconds of Unix time; 0: never.
	heard atomic.Int64
	// doubted is since when the peer is to prove that userspace reaches it, in the same unit; a later heard is the proof.
	doubted atomic.Int64
	// foreign counts sealed frames with a source address that another node gives out.
	foreign foreignSources
	// ports are the paths from the entropy ports of this node. Next and Answered are called while mu is held.
	ports []entropyport.Path

	// Guarded by mu. No I/O and no callback happens while mu is held.

	mu sync.Mutex
	// staged are frames that wait for a session, the oldest first.
	staged []stagedFrame
	// draining: the last of the staged frames are being sent, and installed is signaled when the egress is stored.
	draining  bool
	installed sync.Cond
	// left: the peer was removed. No frame may be staged any more.
	left bool
	// prober measures the path; nil until it is first probed.
	prober *pmtu.Prober
	// probedFrames is the number of frames sent at the last round of probing.
	probedFrames uint64
	link         *liveness.Link
	endpoints    roaming.Validator
	// replies bounds the answers to probes of the peer.
	replies ratelimit.Bucket
}

// newRemotePeer returns a peer for an engine with a number of entropy ports.
func newRemotePeer(ports int) *remotePeer {
	p := &remotePeer{ports: make([]entropyport.Path, ports), link: liveness.New(), replies: ratelimit.New(replyRate, replyRate)}
	p.installed.L = &p.mu
	p.egress.Store(&egress{})
	return p
}

// observe notes that a datagram of the peer arrived from addr directly.
func (p *remotePeer) observe(addr netip.AddrPort) {
	if old := p.observed.Load(); old == nil || *old != addr {
		p.observed.Store(&addr)
	}
}

// updateEgress replaces the egress by the result of f.
func (p *remotePeer) updateEgress(f func(egress) egress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := f(*p.egress.Load())
	p.egress.Store(&next)
}

// egress describes how frames are sent to a peer: by which session, to which endpoint, sealed or plain. It is immutable
// and replaced as a whole, so a frame that is sealed, or left plain, for one endpoint is never sent to another one.
type egress struct {
	session *session.Session // nil: there is none, and frames are staged
	addr    netip.AddrPort
	plain   bool // frames need not be sealed
	relayed bool // addr is a relayed endpoint
}

// overhead returns the bytes of a datagram in addition to the frame.
func (out *egress) overhead() int {
	if out.plain {
		return wire.Headroom
	}
	return wire.Headroom + wire.TagLen
}

// egressTo returns the egress by session s to addr.
func (e *Engine) egressTo(s *session.Session, addr netip.AddrPort) egress {
	return egress{session: s, addr: addr, plain: s != nil && s.Plain() && e.trusts(addr.Addr()), relayed: endpoint.IsRelayed(addr)}
}

// snapshot is the set of peers. Apart from the list of flooded it is immutable: a goroutine may use the one it has
// loaded until the end of its batch.
type snapshot struct {
	byID   map[peer.ID]*peerView
	byAddr map[netip.AddrPort]*peerView // by Peer.Addr, for hints without authentication; of several peers the lowest ID
	sorted []*peerView                  // all, by ID
	// flooded is replaced as a whole, with Engine.mu held, when a peer moves to or from the kernel path.
	flooded atomic.Pointer[floodList]
}

// floodList is the destinations of a frame for all peers.
type floodList struct {
	peers  []*peerView // reachable, and not carried by the kernel; sorted by ID
	kernel int         // number of peers that the kernel path carries frames to
}

func newSnapshot(size int) *snapshot {
	s := &snapshot{byID: make(map[peer.ID]*peerView, size), byAddr: make(map[netip.AddrPort]*peerView, size)}
	s.flooded.Store(&floodList{})
	return s
}

// updateFlooded computes flooded anew. Engine.mu is held, or the snapshot is not in use yet.
func (s *snapshot) updateFlooded() {
	var list floodList
	for _, v := range s.sorted {
		switch {
		case v.kernel.Load():
			list.kernel++
		case v.reachable():
			list.peers = append(list.peers, v)
		}
	}
	s.flooded.Store(&list)
}

// SetPeers replaces the set of peers. It does not keep the slice. Of two peers with one ID the later one counts; this
// node itself is ignored. For a removed peer, its session, counters and learned addresses are dropped; those of a peer
// that stays are kept, and so is what SetKernel has set.
func (e *Engine) SetPeers(peers []Peer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.peers.Load()
	after := e.buildSnapshot(before, peers)
	for id, v := range before.byID {
		if after.byID[id] == nil {
			e.left.add(v, e.handshakes.info(id).Counts)
		}
	}
	e.peers.Store(after)
	for id, v := range after.byID { // after Store, so that installSession finds the new home, or is corrected here
		was := before.byID[id]
		if was == nil || was.home == v.home && was.sameKind(v) {
			continue
		}
		v.updateEgress(func(out egress) egress {
			if out.session != nil && was.sameKind(v) {
				return out // a peer with a session moves when it has answered elsewhere
			}
			return e.egressTo(out.session, v.home)
		})
	}
	e.handshakes.setPeers(after, e.now())
	for id, v := range after.byID {
		was := before.byID[id]
		if was != nil && (was.Addr != v.Addr || !was.direct()) && v.looksFor(v.egress.Load().addr) {
			e.proposeEndpoint(v, roaming.Announced, v.Addr)
		}
	}
	for id, v := range before.byID {
		if after.byID[id] == nil {
			e.abandonStaged(v)
			n := e.fdb.Forget(id)
			e.neighbors.table.ForgetPeer(id)
			e.log.Info("peer left the datapath", "peer", id, "addresses", n)
		}
	}
	for id, v := range after.byID {
		if was := before.byID[id]; was == nil || !was.equal(v.Peer) {
			e.log.Info("peer in the datapath", "peer", id, "addr", v.Addr, "via", v.Via)
		}
	}
}

// buildSnapshot returns the snapshot of peers, with the remotePeers of before.
func (e *Engine) buildSnapshot(before *snapshot, peers []Peer) *snapshot {
	s := newSnapshot(len(peers))
	for _, p := range peers {
		if p.ID.IsZero() || p.ID == e.self {
			continue
		}
		if p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port()); !endpoint.Usable(p.Addr) {
			p.Addr = netip.AddrPort{}
		}
		old := before.byID[p.ID]
		if old == nil {
			old = s.byID[p.ID]
		}
		v := &peerView{Peer: p}
		if old != nil {
			v.remotePeer = old.remotePeer
		} else {
			v.remotePeer = newRemotePeer(len(e.ports))
			v.kernel.Store(e.onKernel[p.ID])
		}
		sessionless := v.egress.Load().session == nil
		if old != nil && old.Addr != v.Addr && sessionless {
			v.proven.Store(nil) // it is looked for where it says it is
		}
		v.home = v.homeOf()
		if old == nil || old.Via != v.Via || old.Addr != v.Addr && sessionless {
			e.resetPath(v)
		}
		if before.byID[p.ID] == nil { // SetPeers moves the others
			v.updateEgress(func(out egress) egress { return e.egressTo(out.session, v.home) })
		}
		s.byID[p.ID] = v
	}
	for _, v := range s.byID {
		s.sorted = append(s.sorted, v)
	}
	slices.SortFunc(s.sorted, func(a, b *peerView) int { return a.ID.Compare(b.ID) })
	for _, v := range slices.Backward(s.sorted) {
		if v.Addr.IsValid() {
			s.byAddr[v.Addr] = v
		}
	}
	s.updateFlooded()
	return s
}

// SetKernel sets whether the kernel path carries frames to a peer. While it does, frames for all peers are not sent to that peer here,
// since the kernel floods them. Frames for an address of the peer that come out of the TAP are still sent, so nothing is lost while the
// bridge learns. The value belongs to the ID: it is kept while the ID is no peer, and false until SetKernel is called.
func (e *Engine) SetKernel(id peer.ID, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if on {
		e.onKernel[id] = true
	} else {
		delete(e.onKernel, id)
	}
	s := e.peers.Load()
	if v := s.byID[id]; v != nil && v.kernel.Swap(on) != on {
		s.updateFlooded()
	}
}
