package session

import (
	"net/netip"
	"time"

	"weft/router/wire"
)

// Times of a session's life, as in docs/PROTOCOL.md.
const (
	// rekeyAfter is the age of a session in use at which its initiator begins the next one. The responder does so
	// rekeyLater after that, if the initiator did not.
	rekeyAfter = 120 * time.Second
	rekeyLater = 15 * time.Second
	// endAfter is the age at which a session ends.
	endAfter = 240 * time.Second
	// idleAfter is how long a session is kept without a frame.
	idleAfter = 180 * time.Second
	// graceTime is how long a replaced session still opens datagrams, and how long a new one waits for its first
	// datagram.
	graceTime = 10 * time.Second
	// answerAfter is about how long a node that receives frames sends nothing before it sends a keepalive. silenceAfter
	// is how long its peer waits for that before it renews the session.
	answerAfter  = 2 * time.Second
	silenceAfter = 6 * time.Second
	// keepaliveEach is about the longest time between two datagrams of a session that is kept: address translators
	// remove a mapping after 30 seconds at the earliest.
	keepaliveEach = 20 * time.Second
	// requestTime is how long a handshake is tried for one frame.
	requestTime = 10 * time.Second
	// renewSpread is the time over which the renewal of many sessions is spread.
	renewSpread = 2 * time.Second
)

// remote is the state of one peer. A session with it goes through these fields:
//
//	          frame, or time to renew
//	(nothing) -----------------------> attempt ---Response---> current          this node is the initiator
//	(nothing) ----Initiation----> next ---first datagram opened---> current     the peer is the initiator
//	                                                                  |
//	                                                a newer session is current
//	                                                                  v
//	                                                              previous ---graceTime---> (nothing)
type remote struct {
	Peer
	// endpoint is the destination of datagrams: Addr, or where the peer has answered since.
	endpoint netip.AddrPort
	// unproven: Addr has changed, and the peer has not answered there yet. Handshakes try it first, as the peer may have moved.
	unproven bool

	current  *Session // seals, and opens
	next     *Session // opens; the peer has not confirmed it yet
	previous *Session // opens
	attempt  *attempt // a handshake that this node began

	requestedUntil time.Time // until when a frame waits for a session
	newestTime     int64     // the latest time in an accepted initiation
	acceptedAt     time.Time // when the last initiation was accepted
	lateTime       int64     // the time in the last accepted initiation that was not later than newestTime
	lateAt         time.Time // when that one was accepted
	err            error     // see Info.Err

	// cookie is the last cookie from the peer, received at cookieAt.
	cookie   [wire.MACLen]byte
	cookieAt time.Time

	// Times of the current session. The first three have a resolution of one sweep.
	usedAt          time.Time // last frame
	sentAt          time.Time // last datagram sent
	receivedAt      time.Time // last datagram received
	unansweredSince time.Time // first frame sent since the last datagram received; zero for none
	replacedAt      time.Time // when previous was last set
	renewAt         time.Time // when to renew the session whatever its age; zero for never
	endAt           time.Time // when to end the session whatever its age; zero for never
	confirmations   int       // keepalives sent so that the peer can confirm the session

	counts Counts
}

// installSession makes s the session that seals for r.
func (n *Node) installSession(r *remote, s *Session, now time.Time) {
	r.counts.Sessions++
	if r.current != nil { // otherwise previous has only just ended, and datagrams of it may still come
		r.counts.Rekeys++
		n.table.remove(r.previous)
		r.previous = r.current
	}
	r.current = s
	if r.next == s {
		r.next = nil
	}
	r.usedAt, r.sentAt, r.replacedAt = now, now, now
	r.unansweredSince, r.renewAt, r.endAt, r.confirmations, r.err = time.Time{}, time.Time{}, time.Time{}, 0, nil
	n.scheduleSweep(now)
	n.changes = append(n.changes, Change{r.ID, s, r.endpoint})
	n.replaceHandshake(r, now)
	n.sendKeepalive(r, now)
	n.checkTrust(r, now)
}

// dropSessions ends all sessions with r at once, and its handshake.
func (n *Node) dropSessions(r *remote) {
	n.cancelHandshake(r)
	n.table.remove(r.current, r.next, r.previous)
	if r.current != nil {
		n.changes = append(n.changes, Change{r.ID, nil, r.endpoint})
	}
	r.current, r.next, r.previous = nil, nil, nil
}

// endSession ends the current session of r: it seals no more, but opens datagrams for graceTime.
func (n *Node) endSession(r *remote, now time.Time) {
	n.table.remove(r.previous)
	r.previous, r.current, r.replacedAt = r.current, nil, now
	n.changes = append(n.changes, Change{r.ID, nil, r.endpoint})
}

// sendKeepalive sends an empty datagram.
func (n *Node) sendKeepalive(r *remote, now time.Time) {
	counter, ok := r.current.Reserve(1)
	if !ok {
		return
	}
	r.sentAt = now
	n.send(r.endpoint, r.current.Seal(nil, wire.TypeKeepalive, counter, nil))
}

// checkTrust schedules the renewal of the current session if this node would now decide differently whether frames need
// to be sealed.
func (n *Node) checkTrust(r *remote, now time.Time) {
	if r.current != nil && r.renewAt.IsZero() && r.current.trusted != n.cfg.Trusted.Contains(r.endpoint.Addr()) {
		r.renewAt = now.Add(n.randomBelow(renewSpread))
		n.scheduleSweep(now)
	}
}
