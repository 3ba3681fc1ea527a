package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
)

const (
	// maxMembers bounds the roster; members over it are refused.
	maxMembers = 10000
	// leftFor is how long a member that said good-bye stays in the roster, and one that is to be found elsewhere now.
	leftFor = 10 * time.Minute
)

// errMember is wrapped by the errors with which the roster refuses an alive message.
var errMember = errors.New("mesh: member refused")

// nodeName is what memberlist knows a node by: its ID and where it is. A node that comes back at another address is
// another one to memberlist, which would otherwise hold on to the old address for as long as anything answers there.
func nodeName(id peer.ID, addr netip.AddrPort) string { return id.String() + "@" + addr.String() }

// roster keeps what memberlist's callbacks tell of the members. The callbacks come with memberlist's lock held, so
// they only note the event and wake the engine.
type roster struct {
	// constant
	self    peer.ID
	name    string                       // this node's
	refuse  func(*memberlist.Node) error // says why a node is not to be let in; nil lets all in
	clashed func(at netip.AddrPort)      // called where somebody elsewhere claims to be this node
	unfit   func(error)                  // called where a node cannot be a member; nil: nobody is
	change  chan struct{}                // holds a token while there is news

	mu      sync.Mutex
	records map[peer.ID][]record // guarded by mu: the places of each node, never none
}

// record is a member as memberlist tells it: one place of one node.
type record struct {
	Member
	started time.Time // by the member's clock
}

var (
	_ memberlist.EventDelegate = (*roster)(nil)
	_ memberlist.AliveDelegate = (*roster)(nil)
	_ memberlist.PingDelegate  = (*roster)(nil)
)

func newRoster(self peer.ID, at netip.AddrPort, clashed func(netip.AddrPort)) *roster {
	return &roster{
		self: self, name: nodeName(self, at), clashed: clashed,
		change: make(chan struct{}, 1), records: make(map[peer.ID][]record),
	}
}

// snapshot returns the members, one a node, ordered by ID, and forgets what is long past at now.
func (r *roster) snapshot(now time.Time) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Member, 0, len(r.records))
	for id, places := range r.records {
		best := bestOf(places)
		places = slices.DeleteFunc(places, func(rec record) bool {
			superseded := rec.GossipAddr() != best.GossipAddr()
			return rec.State != StateAlive && (rec.State != StateDead || superseded) && now.Sub(rec.Since) > leftFor
		})
		if r.records[id] = places; len(places) == 0 {
			delete(r.records, id)
		}
		if best.State != StateLeft || now.Sub(best.Since) <= leftFor {
			all = append(all, best.Member)
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return all
}

// bestOf returns the place where a node is, of those where it was.
func bestOf(places []record) (best record) {
	for i, rec := range places {
		if i == 0 || rec.beats(best) {
			best = rec
		}
	}
	return best
}

// beats reports whether rec is where its node is, rather than other: this process itself, else what is alive, else
// what was started last.
func (rec record) beats(other record) bool {
	switch {
	case rec.Self != other.Self:
		return rec.Self
	case (rec.State == StateAlive) != (other.State == StateAlive):
		return rec.State == StateAlive
	default:
		return rec.started.After(other.started)
	}
}

// lookup returns the member with the given ID.
func (r *roster) lookup(id peer.ID) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	places := r.records[id]
	return bestOf(places).Member, len(places) > 0
}

// forget has a node count as one that has left, and reports whether it could: it cannot where the node is alive.
func (r *roster) forget(id peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.records[id], func(rec record) bool { return rec.State == StateAlive }) {
		return false
	}
	for i := range r.records[id] {
		if rec := &r.records[id][i]; rec.State == StateDead {
			rec.State, rec.Since = StateLeft, time.Now()
		}
	}
	return true
}

// aliveAt reports whether some other member is alive at the gossip address addr.
func (r *roster) aliveAt(addr netip.AddrPort) bool {
	return r.anyAlive(func(rec record) bool { return rec.GossipAddr() == addr })
}

// aliveAtHost reports whether some other member is alive at addr, on whatever port.
func (r *roster) aliveAtHost(addr netip.Addr) bool {
	return r.anyAlive(func(rec record) bool { return rec.Addr == addr })
}

func (r *roster) anyAlive(is func(record) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, places := range r.records {
		if slices.ContainsFunc(places, func(rec record) bool { return rec.State == StateAlive && !rec.Self && is(rec) }) {
			return true
		}
	}
	return false
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses nodes that are not weft's or not who they claim to be.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	rec, err := recordOf(n)
	if err != nil {
		err = fmt.Errorf("node %q at %s: %w", n.Name, n.Addr, err)
		if r.unfit != nil {
			r.unfit(err)
		}
		return err
	}
	if rec.ID == r.self && n.Name != r.name {
		r.clashed(rec.GossipAddr())
	}
	if r.refuse != nil && n.Name != r.name {
		if err := r.refuse(n); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records[rec.ID]) == 0 && len(r.records) >= maxMembers {
		return fmt.Errorf("%w: %d members are known already", errMember, maxMembers)
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (r *roster) NotifyJoin(n *memberlist.Node) { r.note(n, StateAlive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (r *roster) NotifyUpdate(n *memberlist.Node) { r.note(n, StateAlive) }

// NotifyLeave implements memberlist.EventDelegate.
func (r *roster) NotifyLeave(n *memberlist.Node) {
	if md, err := parseMeta(n.Meta); err == nil && md.leaving {
		r.note(n, StateLeft)
		return
	}
	r.note(n, StateDead)
}

// AckPayload implements memberlist.PingDelegate: an ack says what time it is here, Unix time in nanoseconds, 8 bytes, big endian.
func (r *roster) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (r *roster) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, ack []byte) {
	now := time.Now()
	id, _ := idOf(n.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.place(id, gossipAddr(n)); rec != nil {
		rec.RTT = rtt
		if len(ack) >= 8 { // older nodes say nothing
			rec.Skew = time.Unix(0, int64(binary.BigEndian.Uint64(ack))).Sub(now.Add(-rtt / 2))
		}
	}
}

func (r *roster) note(n *memberlist.Node, state State) {
	rec, err := recordOf(n)
	if err != nil {
		return // NotifyAlive let nobody in that this can be said of
	}
	rec.Self, rec.State, rec.Since = n.Name == r.name, state, time.Now()
	r.mu.Lock()
	if old := r.place(rec.ID, rec.GossipAddr()); old != nil {
		rec.RTT, rec.Skew = old.RTT, old.Skew
		if old.State == state {
			rec.Since = old.Since
		}
		*old = rec
	} else {
		r.records[rec.ID] = append(r.records[rec.ID], rec)
	}
	r.mu.Unlock()
	r.wake()
}

// place returns the record of a node at a gossip address, nil if there is none; mu is held.
func (r *roster) place(id peer.ID, at netip.AddrPort) *record {
	for i := range r.records[id] {
		if rec := &r.records[id][i]; rec.GossipAddr() == at {
			return rec
		}
	}
	return nil
}

func gossipAddr(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

func (r *roster) wake() {
	select {
	case r.change <- struct{}{}:
	default: // there is a token already
	}
}

// recordOf reads what a memberlist node says of itself, and checks that its name begins with the ID of its key.
func recordOf(n *memberlist.Node) (record, error) {
	md, err := parseMeta(n.Meta)
	if err != nil {
		return record{}, err
	}
	if err := md.compatible(); err != nil {
		return record{}, err
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return record{}, fmt.Errorf("%w: its address %v is none", errMember, n.Addr)
	}
	m := Member{
		ID: peer.FromPublicKey(md.public), Name: md.name, Addr: addr.Unmap(), Gossip: n.Port, Data: md.dataPort, Public: md.public,
		Capabilities: md.capabilities, Accepts: md.accepts,
	}
	if name := nodeName(m.ID, m.GossipAddr()); name != n.Name {
		return record{}, fmt.Errorf("%w: it calls itself %q, its key and address say %q", errMember, n.Name, name)
	}
	return record{Member: m, started: md.started}, nil
}
