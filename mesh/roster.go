package mesh

import (
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
	// leftFor is how long a member that said good-bye stays in the roster.
	leftFor = 10 * time.Minute
)

// errMember is wrapped by the errors with which the roster refuses an alive message.
var errMember = errors.New("mesh: member refused")

// roster keeps what memberlist's callbacks tell of the members. The callbacks come with memberlist's lock held, so
// they only note the event and wake the engine.
type roster struct {
	self   peer.ID       // constant
	change chan struct{} // constant: holds a token while there is news

	mu      sync.Mutex
	members map[peer.ID]Member // guarded by mu
}

var (
	_ memberlist.EventDelegate = (*roster)(nil)
	_ memberlist.AliveDelegate = (*roster)(nil)
	_ memberlist.PingDelegate  = (*roster)(nil)
)

func newRoster(self peer.ID) *roster {
	return &roster{self: self, change: make(chan struct{}, 1), members: make(map[peer.ID]Member)}
}

// snapshot returns the members, ordered by ID, and forgets those that left long before now.
func (r *roster) snapshot(now time.Time) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Member, 0, len(r.members))
	for id, m := range r.members {
		if m.State == StateLeft && now.Sub(m.Since) > leftFor {
			delete(r.members, id)
			continue
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return all
}

// lookup returns the member with the given ID.
func (r *roster) lookup(id peer.ID) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.members[id]
	return m, ok
}

// aliveAt reports whether some other member is alive at the gossip address addr.
func (r *roster) aliveAt(addr netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.State == StateAlive && !m.Self && m.GossipAddr() == addr {
			return true
		}
	}
	return false
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses nodes that are not weft's or not who they claim to be.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	m, err := memberOf(n)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.members[m.ID]; !known && len(r.members) >= maxMembers {
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

// AckPayload implements memberlist.PingDelegate; weft's acks carry nothing.
func (r *roster) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate.
func (r *roster) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	id, err := peer.ParseID(n.Name)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, known := r.members[id]; known {
		m.RTT = rtt
		r.members[id] = m
	}
}

func (r *roster) note(n *memberlist.Node, state State) {
	m, err := memberOf(n)
	if err != nil {
		return // NotifyAlive let nobody in that this can be said of
	}
	m.Self, m.State, m.Since = m.ID == r.self, state, time.Now()
	r.mu.Lock()
	if old, known := r.members[m.ID]; known {
		m.RTT = old.RTT
		if old.State == state {
			m.Since = old.Since
		}
	}
	r.members[m.ID] = m
	r.mu.Unlock()
	r.wake()
}

// forget drops a member that is not alive.
func (r *roster) forget(id peer.ID) {
	r.mu.Lock()
	if m, known := r.members[id]; known && m.State != StateAlive {
		delete(r.members, id)
	}
	r.mu.Unlock()
	r.wake()
}

func (r *roster) wake() {
	select {
	case r.change <- struct{}{}:
	default: // there is a token already
	}
}

// memberOf reads what a memberlist node says of itself, and checks that its name is the ID of its key.
func memberOf(n *memberlist.Node) (Member, error) {
	md, err := parseMeta(n.Meta)
	if err != nil {
		return Member{}, err
	}
	if err := md.compatible(); err != nil {
		return Member{}, err
	}
	id := peer.FromPublicKey(md.public)
	if id.String() != n.Name {
		return Member{}, fmt.Errorf("%w: it calls itself %q, its key says %s", errMember, n.Name, id)
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return Member{}, fmt.Errorf("%w: its address %v is none", errMember, n.Addr)
	}
	return Member{
		ID: id, Name: md.name, Addr: addr.Unmap(), Gossip: n.Port, Data: md.dataPort, Public: md.public,
	}, nil
}
