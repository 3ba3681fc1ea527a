package router

import (
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/counters"
	"weft/router/drop"
	"weft/router/session"
)

// Stats is what an Engine has counted since New. It is a copy, read counter by counter: sums may be off by the frames
// that pass meanwhile.
type Stats struct {
	// Peers are the peers of the last SetPeers, sorted by ID.
	Peers []PeerStats
	// Total has the sums over them and all peers that have left.
	Total PeerTotals
	// Drops counts by reason, with and without a peer, including peers that have left. Reasons at 0 are left out.
	Drops map[drop.Reason]uint64
	// FDBEntries is the number of known addresses, FDBRefused how often one was not learned or had to go because the table was full,
	// FDBMoves how often one was learned behind another node than before.
	FDBEntries           int
	FDBRefused, FDBMoves uint64
	// Probes counts the received probes of paths, and answers to them.
	Probes uint64
	// Neighbors counts address queries, Relayed the datagrams that were relayed between other nodes.
	Neighbors NeighborStats
	Relayed   uint64
	// Floods counts the frames that were sent to all peers.
	Floods uint64
	// ToTAP and FromTAP count the frames written to and read from the TAP.
	ToTAP, FromTAP FrameStats
	// Transmit counts the batches of frames read from the TAP, Receive the batches of datagrams read from sockets.
	Transmit, Receive BatchStats
}

// PeerStats is the part of Stats for one peer. Bytes are those of inner frames, from the destination address on.
type PeerStats struct {
	ID                peer.ID
	Addr              netip.AddrPort
	TxFrames, TxBytes uint64
	RxFrames, RxBytes uint64
	Drops             map[drop.Reason]uint64
	Foreign           ForeignSources
	// MTU is the largest inner packet in bytes that the path to the peer takes, RTT its round-trip time, 0 if unknown.
	MTU int
	RTT time.Duration
	// Cipher seals datagrams to the peer; 0 if there is no session. Plain: frames are not sealed.
	Cipher session.Cipher
	Plain  bool
	// Session is the age of the session, 0 if there is none. Sessions counts handshakes and sessions.
	Session  time.Duration
	Sessions session.Counts
	// EntropyPorts is the number of ports besides the data port from which frames leave.
	EntropyPorts int
	// Relayed: frames are sent over another node.
	Relayed bool
	// Handshakes is how many were begun in a row without an answer. Err is why one that had an answer failed.
	Handshakes int
	Err        error
}

// PeerTotals are sums over peers.
type PeerTotals struct {
	TxFrames, TxBytes uint64
	RxFrames, RxBytes uint64
	Foreign           uint64 // sealed frames with a source address that another node gives out
	Sessions          session.Counts
}

// add adds what was counted for one peer.
func (t *PeerTotals) add(v *peerView, s session.Counts) {
	t.TxFrames += v.transmit.Frames.Load()
	t.TxBytes += v.transmit.Bytes.Load()
	t.RxFrames += v.receive.Frames.Load()
	t.RxBytes += v.receive.Bytes.Load()
	t.Foreign += v.foreign.stats().Frames
	t.Sessions.Initiations += s.Initiations
	t.Sessions.Sessions += s.Sessions
	t.Sessions.Rekeys += s.Rekeys
}

// BatchStats is that of package counters.
type BatchStats = counters.BatchStats

// FrameStats is that of package counters.
type FrameStats = counters.FrameStats

// Stats returns what has been counted.
func (e *Engine) Stats() Stats {
	s := Stats{
		Drops:      e.drops.Nonzero(),
		FDBEntries: e.fdb.Len(),
		FDBRefused: e.fdb.Refused(),
		FDBMoves:   e.moves.Load(),
		Probes:     e.probes.Load(),
		Neighbors:  e.neighbors.stats(),
		Relayed:    e.relayed.datagrams.Load(),
		Floods:     e.floods.Load(),
		ToTAP:      e.toTAP.Stats(),
		FromTAP:    e.fromTAP.Stats(),
		Transmit:   e.transmit.Stats(),
		Receive:    e.receive.Stats(),
	}
	e.mu.Lock() // no peer leaves meanwhile, and is counted twice or not at all
	defer e.mu.Unlock()
	s.Total = e.left
	for _, v := range e.peers.Load().sorted {
		out, info := v.egress.Load(), e.handshakes.info(v.ID)
		s.Total.add(v, info.Counts)
		p := PeerStats{
			ID: v.ID, Addr: out.addr, Sessions: info.Counts, Relayed: out.relayed, Plain: out.plain, Handshakes: info.Attempts, Err: info.Err,
			TxFrames: v.transmit.Frames.Load(), TxBytes: v.transmit.Bytes.Load(),
			RxFrames: v.receive.Frames.Load(), RxBytes: v.receive.Bytes.Load(),
			EntropyPorts: v.provenPorts(), Drops: v.drops.Nonzero(), Foreign: v.foreign.stats(),
			MTU: v.maxFrame(out) - ether.HeaderLen, RTT: v.rtt(),
		}
		if out.session != nil {
			p.Cipher, p.Session = out.session.Cipher(), max(e.now().Sub(out.session.Created()), 1)
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}
