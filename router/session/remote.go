package session

import (
	"net/netip"
	"time"

	"weft/router/wire"
)

// Times of a session's life, as in docs/PROTOCOL.md.
const (
	// rekeyAfter is how old a session grows, where frames pass, before the node that began it begins the next one;
	// the other end leaves it some time more to do so.
	rekeyAfter = 120 * time.Second
	rekeyLater = 15 * time.Second
	// endAfter is how old a session can grow.
	endAfter = 240 * time.Second
	// idleAfter is how long a session is kept on which no frame passes.
	idleAfter = 180 * time.Second
	// graceTime is how long a session still opens after the next one has taken its place, and how long one waits for
	// its first datagram.
	graceTime = 10 * time.Second
	// answerAfter is about how long a node that gets frames says nothing, and silenceAfter how long its peer waits for that.
	answerAfter  = 2 * time.Second
	silenceAfter = 6 * time.Second
	// keepaliveEach is about the longest that nothing is sent while a session is kept: address translators forget after
	// 30 seconds at the soonest.
	keepaliveEach = 20 * time.Second
	// wantedFor is how long a handshake is tried for one frame.
	wantedFor = 10 * time.Second
	// renewSpread is over how long those are spread that have to be made anew at once.
	renewSpread = 2 * time.Second
)

// remote is what is known of one other node.
//
//	          frame, or time to renew
//	(nothing) -----------------------> attempt ---Response---> current          this node begins
//	(nothing) ----Initiation----> next ---first datagram opened---> current     the other one does
//	                                                                  |
//	                                              the next one is current
//	                                                                  v
//	                                                              previous ---graceTime---> (nothing)
type remote struct {
	Peer
	// endpoint is where datagrams go: Addr, until an authenticated one has come from elsewhere.
	endpoint netip.AddrPort

	current  *Session // seals, and opens
	next     *Session // opens; the peer has not shown yet that it has it
	previous *Session // opens
	attempt  *attempt // a handshake that this node has begun

	wantedUntil time.Time
	newest      int64     // the latest time in an initiation that was taken
	takenAt     time.Time // when the last one was taken
	late        int64     // the time in the last one that was taken though it was not later than newest
	lateAt      time.Time // when that was
	err         error     // see Info.Err

	// cookie is what the peer has given this node, at cookieAt.
	cookie   [wire.MACLen]byte
	cookieAt time.Time

	// When something last happened on the current session, to a second.
	usedAt, spokeAt, heardAt time.Time
	unheardFrom              time.Time // the first that was sent and since when nothing came; zero for none
	switchedAt               time.Time // when previous last became what it is
	renewAt                  time.Time // when the current session is to be made anew whatever its age; zero for never
	endAt                    time.Time // when the current session ends whatever its age; zero for never
	proofs                   int       // keepalives sent so that the peer can confirm the current session

	counts Counts
}

// install makes s the session that seals for r.
func (n *Node) install(r *remote, s *Session, now time.Time) {
	r.counts.Sessions++
	if r.current != nil { // else the previous one has just ended, and what is under way by it still comes
		r.counts.Rekeys++
		n.table.remove(r.previous)
		r.previous = r.current
	}
	r.current = s
	if r.next == s {
		r.next = nil
	}
	r.usedAt, r.spokeAt, r.switchedAt = now, now, now
	r.unheardFrom, r.renewAt, r.endAt, r.proofs, r.err = time.Time{}, time.Time{}, time.Time{}, 0, nil
	n.schedule(now)
	n.changes = append(n.changes, Change{r.ID, s, r.endpoint})
	n.abandon(r)
	n.keepalive(r, now)
	n.checkTrust(r, now)
}

// forget ends all that there is with r.
func (n *Node) forget(r *remote) {
	n.abandon(r)
	n.table.remove(r.current, r.next, r.previous)
	if r.current != nil {
		n.changes = append(n.changes, Change{r.ID, nil, r.endpoint})
	}
	r.current, r.next, r.previous = nil, nil, nil
}

// end takes the current session of r away: what comes for it is still opened for a while.
func (n *Node) end(r *remote, now time.Time) {
	n.table.remove(r.previous)
	r.previous, r.current, r.switchedAt = r.current, nil, now
	n.changes = append(n.changes, Change{r.ID, nil, r.endpoint})
}

// keepalive sends a datagram that says nothing.
func (n *Node) keepalive(r *remote, now time.Time) {
	counter, ok := r.current.Reserve(1)
	if !ok {
		return
	}
	r.spokeAt = now
	n.send(r.endpoint, r.current.Seal(nil, wire.TypeKeepalive, counter, nil))
}

// checkTrust has the current session made anew where what its ends have agreed on would come out otherwise today, as far
// as this node is concerned.
func (n *Node) checkTrust(r *remote, now time.Time) {
	if r.current != nil && r.renewAt.IsZero() && r.current.trusted != n.cfg.Trusts(r.endpoint.Addr()) {
		r.renewAt = now.Add(n.upTo(renewSpread))
		n.schedule(now)
	}
}
