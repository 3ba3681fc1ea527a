package router

import (
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/session"
)

// Stats is what an Engine has counted since New. It is a copy, taken counter by counter: sums may be off by what
// passes meanwhile.
type Stats struct {
	// Peers has the peers of the last SetPeers, sorted by ID.
	Peers []PeerStats
	// Drops counts by reason, with and without a peer, also of peers that have left. Only what is not 0 is in it.
	Drops map[Drop]uint64
	// FDBEntries is the number of addresses known; FDBRefused how often one was not learned as the table was full;
	// FDBMoves how often one turned up elsewhere than it was.
	FDBEntries           int
	FDBRefused, FDBMoves uint64
	// Probes counts the probes of paths, and the answers to them, that were received.
	Probes uint64
	// Neighbors counts questions for addresses; Relayed the datagrams that were passed on between other nodes.
	Neighbors NeighborStats
	Relayed   uint64
	// Floods counts the frames that were sent to all peers.
	Floods uint64
	// ToTAP and FromTAP tell how many frames there are in what the TAP takes and gives at once.
	ToTAP, FromTAP FrameStats
	// Transmit tells of the batches of frames read from the TAP, Receive of the batches of datagrams read from sockets.
	Transmit, Receive BatchStats
}

// PeerStats is the part of Stats for one peer. Bytes are those of inner frames, from the destination address on.
type PeerStats struct {
	ID                peer.ID
	Addr              netip.AddrPort
	TxFrames, TxBytes uint64
	RxFrames, RxBytes uint64
	Drops             map[Drop]uint64
	// MTU is the largest inner packet in bytes that the path to the peer takes, RTT its round trip, 0 if not known.
	MTU int
	RTT time.Duration
	// Cipher is what seals datagrams to the peer, 0 where there is no session. Plain: frames are not sealed.
	Cipher session.Cipher
	Plain  bool
	// Session is how old the session is, 0 where there is none; Sessions counts what has come of handshakes.
	Session  time.Duration
	Sessions session.Counts
	// Relayed says that frames go over another node.
	Relayed bool
	// Handshakes is how many were begun in a row without an answer; Err is why one that had an answer came to nothing.
	Handshakes int
	Err        error
}

// BatchStats tells how much work a wake-up finds: batches that grow under load are what makes them pay.
type BatchStats struct {
	// Batches counts them; Items counts what was in all of them.
	Batches, Items uint64
	// Sizes[i] counts the batches of more than 1<<(i-1) and at most 1<<i items, and the last also what is larger.
	Sizes [batchBuckets]uint64
}

// FrameStats tells what offloads save: how many frames, and how many superframes and frames by themselves they came in.
type FrameStats struct{ Frames, Pieces uint64 }

const batchBuckets = 8 // 1, 2, 4, 8, 16, 32, 64, 128 and more

// Stats returns what has been counted.
func (e *Engine) Stats() Stats {
	s := Stats{
		Drops:      e.drops.nonzero(),
		FDBEntries: e.fdb.Len(),
		FDBRefused: e.fdb.Refused(),
		FDBMoves:   e.moves.Load(),
		Probes:     e.probes.Load(),
		Neighbors:  e.neighbors.stats(),
		Relayed:    e.passed.datagrams.Load(),
		Floods:     e.floods.Load(),
		ToTAP:      e.toTAP.stats(),
		FromTAP:    e.fromTAP.stats(),
		Transmit:   e.transmit.stats(),
		Receive:    e.receive.stats(),
	}
	for id, h := range e.peers.Load().byID {
		c, l := h.state, h.state.crossing.lane.Load()
		info := e.keys.info(id)
		p := PeerStats{
			ID: id, Addr: l.addr, Sessions: info.Counts, Relayed: l.detour, Plain: l.plain, Handshakes: info.Attempts, Err: info.Err,
			TxFrames: c.transmit.frames.Load(), TxBytes: c.transmit.bytes.Load(),
			RxFrames: c.receive.frames.Load(), RxBytes: c.receive.bytes.Load(),
			Drops: c.drops.nonzero(), MTU: h.maxFrame(l) - ether.HeaderLen, RTT: c.path.rtt(),
		}
		if l.session != nil {
			p.Cipher, p.Session = l.session.Cipher(), max(e.now().Sub(l.session.Created()), 1)
		}
		s.Peers = append(s.Peers, p)
	}
	slices.SortFunc(s.Peers, func(a, b PeerStats) int { return a.ID.Compare(b.ID) })
	return s
}

// peerState is what changes of a peer. The directions are kept a cache line apart, as different goroutines count them.
type peerState struct {
	transmit traffic
	_        [64]byte
	receive  traffic
	_        [64]byte
	drops    dropCounters
	taken    atomic.Uint64 // frames received at the last Take, and one
	path     path
	crossing crossing

	// seen is where the last datagram of the peer's own came from that was not relayed; nil for nowhere yet.
	seen atomic.Pointer[netip.AddrPort]
}

// sawAt notes that a datagram of the peer's came from addr, and no later one from elsewhere.
func (s *peerState) sawAt(addr netip.AddrPort) {
	if old := s.seen.Load(); old == nil || *old != addr {
		s.seen.Store(&addr)
	}
}

func newPeerState() *peerState {
	s := new(peerState)
	s.crossing.lane.Store(&lane{})
	return s
}

type traffic struct {
	frames, bytes atomic.Uint64
}

// tally adds up a run of frames of one peer, so that a batch costs a few atomic operations and not two a frame.
type tally struct {
	of            *traffic
	frames, bytes uint64
}

func (t *tally) add(of *traffic, frames, bytes int) {
	if t.of != of {
		t.flush()
		t.of = of
	}
	t.frames += uint64(frames)
	t.bytes += uint64(bytes)
}

func (t *tally) flush() {
	if t.of != nil {
		t.of.frames.Add(t.frames)
		t.of.bytes.Add(t.bytes)
	}
	*t = tally{}
}

// frameCounters is the atomic form of FrameStats.
type frameCounters struct{ frames, pieces atomic.Uint64 }

func (c *frameCounters) count(frames, pieces int) {
	c.frames.Add(uint64(frames))
	c.pieces.Add(uint64(pieces))
}

func (c *frameCounters) stats() FrameStats { return FrameStats{c.frames.Load(), c.pieces.Load()} }

// batchCounters is the atomic form of BatchStats.
type batchCounters struct {
	items atomic.Uint64
	sizes [batchBuckets]atomic.Uint64
}

func (c *batchCounters) count(n int) {
	c.items.Add(uint64(n))
	c.sizes[min(bits.Len(uint(max(n, 1)-1)), batchBuckets-1)].Add(1)
}

func (c *batchCounters) stats() BatchStats {
	s := BatchStats{Items: c.items.Load()}
	for i := range c.sizes {
		s.Sizes[i] = c.sizes[i].Load()
		s.Batches += s.Sizes[i]
	}
	return s
}
