package epoch

import (
	"encoding/binary"
	"io"
	"slices"
	"time"

	"weft/internal/peer"
)

const (
	// fanout is how many nodes a node sends a new epoch to. With four, nearly all nodes get it so, and the others request it.
	fanout = 4
	// rankDelay is how much longer a node waits than the one with the next lower ID before it makes an epoch, up to longestDelay.
	rankDelay    = 50 * time.Millisecond
	longestDelay = 1500 * time.Millisecond
	// rotateAfter is the age at which an epoch is replaced although no node was shut out: gossip that was recorded before cannot be
	// opened with what a node has in memory.
	rotateAfter = 24 * time.Hour
	// rotateRank is how much longer a node waits with that than the one with the next lower ID.
	rotateRank = time.Minute
	// askPause is the shortest time between two requests to one node, askGap between two to any node.
	askPause = time.Second
	askGap   = 50 * time.Millisecond
	// maxAsks bounds the nodes that are remembered for askPause.
	maxAsks = 64
)

// asks are the requests that a node has sent lately.
type asks struct {
	last time.Time
	to   map[peer.ID]time.Time
}

// allows reports whether a request to a node may be sent at now, and records it.
func (a *asks) allows(id peer.ID, now time.Time) bool {
	if now.Sub(a.last) < askGap || now.Sub(a.to[id]) < askPause {
		return false
	}
	if a.to == nil || len(a.to) >= maxAsks {
		a.to = map[peer.ID]time.Time{}
	}
	a.last, a.to[id] = now, now
	return true
}

// State returns what each node may know: the lists, and which epoch this node has.
func (k *Keeper) State() []byte {
	return appendRecord(appendTrusted(nil, k.trust), recordAnnounce, k.announcement().encode())
}

func (k *Keeper) announcement() announcement {
	return announcement{k.self, k.ring.present.Name(), k.ring.present.Number, k.ring.present.Lists}
}

// spread sends the epoch with all lists to some members, and announces it to all.
func (k *Keeper) spread() {
	for _, id := range k.sample(fanout) {
		k.handOver(id)
	}
	k.Announce()
}

// Announce broadcasts which epoch this node has, with the lists if there is room.
func (k *Keeper) Announce() {
	msg := k.State()
	if len(msg) > k.cfg.MaxBroadcast {
		msg = appendRecord(nil, recordAnnounce, k.announcement().encode())
	}
	k.out.Broadcasts = append(k.out.Broadcasts, msg)
}

// handOver sends the lists and the epoch to a node, if it may have them. A stale epoch is not sent: the next one follows.
func (k *Keeper) handOver(to peer.ID) {
	if !k.admits(to) {
		return
	}
	msg := appendTrusted(nil, k.trust)
	if !k.ring.isStale() {
		msg = appendRecord(msg, recordEpoch, k.ring.present.encode())
	}
	if len(msg) > 0 {
		k.out.Unicasts = append(k.out.Unicasts, Unicast{to, msg})
	}
}

// members returns the other nodes that may know the epoch.
func (k *Keeper) members() []peer.ID {
	return slices.DeleteFunc(k.cfg.Members.Certified(), k.isRevoked)
}

// admits reports whether a node may know the epoch.
func (k *Keeper) admits(id peer.ID) bool { return slices.Contains(k.members(), id) }

// heard handles the announcement of another node: the one of the two with the older epoch gets the other's.
func (k *Keeper) heard(a announcement, now time.Time) {
	if a.name == k.ring.present.Name() {
		return
	}
	switch k.ring.compare(a.number, a.name, a.lists) {
	case newer, ahead:
		k.request(a.holder, now)
	default: // stale, older, beyond
		k.outdo(a.number, a.lists, now)
		if k.ask.allows(a.holder, now) {
			k.handOver(a.holder)
		}
	}
}

// Unopened handles a packet of a node that none of the keys of Opening opens.
func (k *Keeper) Unopened(from peer.ID, now time.Time) { k.request(from, now) }

// request sends a request for lists and epoch to a node.
func (k *Keeper) request(to peer.ID, now time.Time) {
	if k.admits(to) && k.ask.allows(to, now) {
		k.out.Unicasts = append(k.out.Unicasts, Unicast{to, appendRecord(nil, recordRequest, nil)})
	}
}

// Next returns when Tick has to be called next, seen at now.
func (k *Keeper) Next(now time.Time) time.Time {
	at := k.rotateAt()
	for _, other := range []time.Time{k.makeAt, k.ring.closesAt(now)} {
		if !other.IsZero() && other.Before(at) {
			at = other
		}
	}
	return at
}

// Tick makes an epoch if one is due at now.
func (k *Keeper) Tick(now time.Time) {
	if !k.makeAt.IsZero() && !now.Before(k.makeAt) || !now.Before(k.rotateAt()) {
		k.makeEpoch(now)
	}
}

func (k *Keeper) rotateAt() time.Time {
	return k.ring.since.Add(rotateAfter + time.Duration(k.rank())*rotateRank)
}

// scheduleMake makes an epoch after a delay, unless the present one counts or one is due before.
func (k *Keeper) scheduleMake(delay time.Duration, now time.Time) {
	due := now.Add(delay)
	if (k.ring.isStale() || k.ring.challenged) && (k.makeAt.IsZero() || due.Before(k.makeAt)) {
		k.makeAt = due
	}
}

// makeEpoch makes the next epoch and spreads it.
func (k *Keeper) makeEpoch(now time.Time) {
	k.ring.adopt(k.newEpoch(now), now)
	k.makeAt, k.out.Keys = time.Time{}, true
	k.spread()
}

func (k *Keeper) newEpoch(now time.Time) Epoch {
	var key [KeySize]byte
	_, _ = io.ReadFull(k.cfg.Random, key[:])
	return k.ring.next(k.self, key, now)
}

// makeDelay returns how long this node waits before it makes an epoch: the longer, the more members have a lower ID.
func (k *Keeper) makeDelay() time.Duration {
	return min(time.Duration(k.rank())*rankDelay, longestDelay) + time.Duration(k.random(uint64(rankDelay)))
}

// rank returns how many members have a lower ID than this node.
func (k *Keeper) rank() int {
	n := 0
	for _, id := range k.members() {
		if id.Compare(k.self) < 0 {
			n++
		}
	}
	return n
}

// random returns a random number below n.
func (k *Keeper) random(n uint64) uint64 {
	var b [8]byte
	_, _ = io.ReadFull(k.cfg.Random, b[:])
	return binary.BigEndian.Uint64(b[:]) % n
}

// sample returns at most n random members.
func (k *Keeper) sample(n int) []peer.ID {
	all := k.members()
	for i := range min(n, len(all)) {
		j := i + int(k.random(uint64(len(all)-i)))
		all[i], all[j] = all[j], all[i]
	}
	return all[:min(n, len(all))]
}
