// Package freshness decides which packets of other processes are fresh: sent lately, and received for the first time.
//
// An instance is one run of a node's process. It numbers its packets, and states its uptime in each. It is admitted by a
// proof of now: the handshake of a stream, or the answer to a challenge. The proof gives the difference between its
// monotonic clock and that of the receiver, so wall clocks never matter. From then on a packet is fresh if
//
//   - its counter is new (package replay),
//   - its uptime is what the receiver expects, to within Slack, and
//   - it was not sent before the floor: HoldAge before the admission, and not before the receiver began to watch, since
//     an earlier run of the receiver may have received it.
//
// Packets of other instances, and those that break the second rule or are far behind in their counter, are held for a
// moment while the instance is challenged. So a host that was suspended, and clocks that drift, cost one challenge.
//
// Everything is pure: the times are arguments, with monotonic readings. Every table has a bound.
package freshness

import (
	"container/list"
	"time"

	"weft/internal/peer"
	"weft/internal/ratelimit"
	"weft/internal/replay"
	"weft/mesh/seal"
)

// Times.
const (
	// Slack is how far an uptime may be from what is expected: packets wait in queues, and clocks drift.
	Slack = 30 * time.Second
	// HoldAge is how long before an instance's admission its packets may have been sent.
	HoldAge = 10 * time.Second
	// HoldTime is how long packets are held, and how long a challenge may be answered.
	HoldTime = 2 * time.Second
	// ChallengePause is the shortest time between two challenges of one instance.
	ChallengePause = 200 * time.Millisecond
	// grain makes up for the whole milliseconds of two uptimes.
	grain = 2 * time.Millisecond
)

// Bounds.
const (
	// PerNode is how many instances of one node are kept: a node has one, and in passing the one before its restart.
	PerNode = 4
	// MaxInstances is how many instances are kept in all. The one that was not seen for the longest time goes first.
	MaxInstances = 10000
	// MaxHeld is how many packets are held in all, HeldPerInstance of one instance. MaxHeld bounds the open challenges too.
	MaxHeld         = 1024
	HeldPerInstance = 8
	// ChallengesPerSecond bounds the challenges of all instances.
	ChallengesPerSecond = 1000
)

// Instance is one run of a node.
type Instance struct {
	Node peer.ID
	Run  uint64
}

// Stamp is what an instance states in a packet, or in a proof about its latest packet.
type Stamp struct {
	Counter uint64
	Uptime  time.Duration
}

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts. The zero Verdict is invalid.
const (
	Fresh    Verdict = iota + 1
	Replayed         // it was received before, or may have been: drop it
	Unproven         // it is held until its sender proves that it is there
)

// Table holds what is known about the other instances, and packets of type P that wait for a proof. It belongs to one
// goroutine at a time.
type Table[P any] struct {
	random func() seal.Nonce // constant

	// watched is since when the table remembers all packets that were received: its start, or the latest time at which it
	// had to forget an instance.
	watched time.Time

	known  map[Instance]*list.Element // of *instance
	recent *list.List                 // the one that was not seen for the longest time is first
	byNode map[peer.ID]int            // how many instances are known

	pending map[Instance]*list.Element // of *pending[P]
	oldest  *list.List                 // the pending challenge that was begun first is first
	held    int
	lost    int // held packets that were dropped

	challenges ratelimit.Bucket
}

// instance is an admitted instance.
type instance struct {
	Instance
	zero   time.Time     // when its uptime was 0, by the receiver's clock
	floor  time.Duration // packets of lower uptimes are refused
	window replay.Window
}

// pending is an instance that is challenged.
type pending[P any] struct {
	Instance
	nonce  seal.Nonce
	since  time.Time
	sentAt time.Time
	held   []heldPacket[P]
}

type heldPacket[P any] struct {
	stamp  Stamp
	packet P
}

// New returns a table that watches from now on. random returns the nonces.
func New[P any](now time.Time, random func() seal.Nonce) *Table[P] {
	return &Table[P]{
		random: random, watched: now,
		known: make(map[Instance]*list.Element), recent: list.New(), byNode: make(map[peer.ID]int),
		pending: make(map[Instance]*list.Element), oldest: list.New(),
		challenges: ratelimit.New(ChallengesPerSecond, ChallengesPerSecond),
	}
}

// Receive judges an authentic packet. If the verdict is Unproven the table keeps the packet, and a challenge with the
// returned nonce is to be sent when challenge is true.
func (t *Table[P]) Receive(from Instance, stamp Stamp, packet P, now time.Time) (v Verdict, nonce seal.Nonce, challenge bool) {
	if e := t.known[from]; e != nil {
		i := e.Value.(*instance)
		switch age := now.Sub(i.zero) - stamp.Uptime; {
		case stamp.Uptime < i.floor:
			return Replayed, seal.Nonce{}, false
		case age.Abs() <= Slack && !i.farBehind(stamp.Counter):
			if !i.window.Accept(stamp.Counter) {
				return Replayed, seal.Nonce{}, false
			}
			t.recent.MoveToBack(e)
			return Fresh, seal.Nonce{}, false
		}
	}
	nonce, challenge = t.hold(from, stamp, packet, now)
	return Unproven, nonce, challenge
}

// farBehind reports whether a counter is too far behind the highest one to be judged by the window.
func (i *instance) farBehind(counter uint64) bool {
	highest, ok := i.window.Highest()
	return ok && highest > counter && highest-counter >= replay.Size
}

// hold keeps a packet until its instance has proven that it is there.
func (t *Table[P]) hold(from Instance, stamp Stamp, packet P, now time.Time) (nonce seal.Nonce, challenge bool) {
	t.expire(now)
	e := t.pending[from]
	if e == nil {
		if len(t.pending) >= MaxHeld {
			t.drop(t.oldest.Front())
		}
		e = t.oldest.PushBack(&pending[P]{Instance: from, nonce: t.random(), since: now})
		t.pending[from] = e
	}
	p := e.Value.(*pending[P])
	if len(p.held) < HeldPerInstance && t.held < MaxHeld {
		p.held = append(p.held, heldPacket[P]{stamp, packet})
		t.held++
	} else {
		t.lost++
	}
	if !p.sentAt.IsZero() && now.Sub(p.sentAt) < ChallengePause || !t.challenges.Allow(now) {
		return p.nonce, false
	}
	p.sentAt = now
	return p.nonce, true
}

// expire drops the challenges that were not answered within HoldTime.
func (t *Table[P]) expire(now time.Time) {
	for e := t.oldest.Front(); e != nil && now.Sub(e.Value.(*pending[P]).since) > HoldTime; e = t.oldest.Front() {
		t.drop(e)
	}
}

// drop ends a challenge and drops its packets.
func (t *Table[P]) drop(e *list.Element) {
	p := t.oldest.Remove(e).(*pending[P])
	delete(t.pending, p.Instance)
	t.held -= len(p.held)
	t.lost += len(p.held)
}

// Answer handles the answer to a challenge, and returns the held packets that are fresh. ok is false if there is no such
// challenge.
func (t *Table[P]) Answer(from Instance, nonce seal.Nonce, stamp Stamp, now time.Time) (fresh []P, ok bool) {
	t.expire(now)
	e := t.pending[from]
	if e == nil || e.Value.(*pending[P]).nonce != nonce {
		return nil, false
	}
	return t.Admit(from, stamp, e.Value.(*pending[P]).since, now), true
}

// Admit records that an instance has proven that it is there, and returns the held packets that are fresh. The instance
// has made the stamp after asked, and it has arrived at now.
func (t *Table[P]) Admit(from Instance, stamp Stamp, asked, now time.Time) (fresh []P) {
	t.measure(from, stamp, asked, now)
	e := t.pending[from]
	if e == nil {
		return nil
	}
	p := t.oldest.Remove(e).(*pending[P])
	delete(t.pending, from)
	t.held -= len(p.held)
	i := t.known[from].Value.(*instance)
	for _, h := range p.held {
		timely := h.stamp.Uptime >= i.floor && stamp.Uptime-h.stamp.Uptime <= HoldAge
		if timely && !i.farBehind(h.stamp.Counter) && i.window.Accept(h.stamp.Counter) {
			fresh = append(fresh, h.packet)
		} else {
			t.lost++
		}
	}
	return fresh
}

// measure enters an instance, or measures the clock of a known one again.
func (t *Table[P]) measure(from Instance, stamp Stamp, asked, now time.Time) {
	if e := t.known[from]; e != nil {
		i := e.Value.(*instance)
		i.zero = now.Add(-stamp.Uptime)
		if i.farBehind(stamp.Counter) { // counters of the future were forged
			i.window, i.floor = replay.Window{}, stamp.Uptime+grain
		}
		t.recent.MoveToBack(e)
		return
	}
	t.makeRoom(from.Node, now)
	i := &instance{Instance: from, zero: now.Add(-stamp.Uptime)}
	i.floor = stamp.Uptime - max(0, min(HoldAge, asked.Sub(t.watched))) + grain
	t.known[from] = t.recent.PushBack(i)
	t.byNode[from.Node]++
}

// makeRoom forgets instances so that there is room for one more of a node.
func (t *Table[P]) makeRoom(node peer.ID, now time.Time) {
	if t.byNode[node] >= PerNode {
		for e := t.recent.Front(); e != nil; e = e.Next() {
			if e.Value.(*instance).Node == node {
				t.forget(e, now)
				break
			}
		}
	}
	if len(t.known) >= MaxInstances {
		t.forget(t.recent.Front(), now)
	}
}

func (t *Table[P]) forget(e *list.Element, now time.Time) {
	i := t.recent.Remove(e).(*instance)
	delete(t.known, i.Instance)
	if t.byNode[i.Node]--; t.byNode[i.Node] == 0 {
		delete(t.byNode, i.Node)
	}
	t.watched = now
}

// Admitted reports whether an instance is admitted.
func (t *Table[P]) Admitted(from Instance) bool { return t.known[from] != nil }

// TakeLost returns how many held packets were dropped since the call before.
func (t *Table[P]) TakeLost() int {
	n := t.lost
	t.lost = 0
	return n
}
