package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A node that moves to another address stays the same node: its ID, its sessions and its state are kept. To memberlist it is
// another member, as its name there contains the address (roster.go), and memberlist cannot change the name of a member. So the
// mesh replaces its memberlist by a new one, over the same sockets, and joins the members that it knows. The others find the
// address of the later time in its metadata, and use that one.
// See docs/adr/0035-follow-the-underlay.md.

// place is an address at which the other nodes find this one.
type place struct {
	addr  netip.AddrPort
	since time.Time // later than that of every earlier place
}

const (
	// confirmTime is how long members that were known before a move may take to appear in the new memberlist. Then they are dead.
	confirmTime = 15 * time.Second
	// moveJoins is how many members are dialed at once after a move.
	moveJoins = 8
)

// SetAdvertise moves this node to another gossip address: from now on that address is published instead of Config.Advertise. It
// does not block, and may be called before Run.
func (m *Mesh) SetAdvertise(addr netip.AddrPort) {
	now := time.Now()
	if last := m.at.Load().since; !now.After(last) { // the clock was set back
		now = last.Add(time.Millisecond)
	}
	m.at.Store(&place{addr, now})
	m.moved.Set()
}

// followAddress publishes new addresses of this node until ctx ends.
func (m *Mesh) followAddress(ctx context.Context) {
	var confirm <-chan time.Time
	var joins sync.WaitGroup
	defer joins.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-confirm:
			m.roster.expireUnconfirmed()
			confirm = nil
		case <-m.moved.C():
			if m.move() {
				joins.Go(func() { m.dialer.joinAgain(ctx) })
				confirm = time.After(confirmTime)
			}
		}
	}
}

// move replaces memberlist by one with the present address. It reports whether it had to.
func (m *Mesh) move() bool {
	at := m.at.Load().addr
	if !m.roster.move(at) {
		return false
	}
	m.log.Info("this node has another address", "addr", at)
	err := m.list.Load().Shutdown()
	if err != nil {
		m.log.Debug("memberlist not stopped cleanly", "err", err)
	}
	list, err := memberlist.Create(m.listConfig())
	if err != nil {
		m.fail(fmt.Errorf("mesh: moving to %s: %w", at, err))
		return false
	}
	m.list.Store(list)
	return true
}

// sharedTransport is the transport for one memberlist among several that follow one another: it stays open.
type sharedTransport struct{ *sealedTransport }

// Shutdown implements memberlist.Transport.
func (sharedTransport) Shutdown() error { return nil }

// listEvents passes the events of one memberlist to the roster, until another one has replaced it.
type listEvents struct {
	roster *roster
	name   string // this node's in that memberlist
}

var (
	_ memberlist.EventDelegate = listEvents{}
	_ memberlist.AliveDelegate = listEvents{}
	_ memberlist.PingDelegate  = listEvents{}
)

func (e listEvents) current() bool { return e.roster.ownName() == e.name }

// NotifyAlive implements memberlist.AliveDelegate.
func (e listEvents) NotifyAlive(n *memberlist.Node) error { return e.roster.NotifyAlive(n) }

// NotifyJoin implements memberlist.EventDelegate.
func (e listEvents) NotifyJoin(n *memberlist.Node) {
	if e.current() {
		e.roster.NotifyJoin(n)
	}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (e listEvents) NotifyUpdate(n *memberlist.Node) {
	if e.current() {
		e.roster.NotifyUpdate(n)
	}
}

// NotifyLeave implements memberlist.EventDelegate.
func (e listEvents) NotifyLeave(n *memberlist.Node) {
	if e.current() {
		e.roster.NotifyLeave(n)
	}
}

// AckPayload implements memberlist.PingDelegate.
func (e listEvents) AckPayload() []byte { return e.roster.AckPayload() }

// NotifyPingComplete implements memberlist.PingDelegate.
func (e listEvents) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, ack []byte) {
	if e.current() {
		e.roster.NotifyPingComplete(n, rtt, ack)
	}
}

// ownName returns this node's name in memberlist.
func (r *roster) ownName() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// move records that this node is at another gossip address, and reports whether it was not before. The members stay as they are,
// and are unconfirmed until the new memberlist reports them.
func (r *roster) move(at netip.AddrPort) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := nodeName(r.self, at)
	if name == r.name {
		return false
	}
	r.name = name
	r.setPlaces(r.self, nil)
	for id, places := range r.records {
		// The new memberlist refuses nodes of other clusters, and reports nothing about them.
		places = slices.DeleteFunc(places, func(rec record) bool { return rec.foreign })
		r.setPlaces(id, places)
		for i := range places {
			places[i].unconfirmed = places[i].State == StateAlive
		}
	}
	return true
}

// expireUnconfirmed records that members which the new memberlist has not reported are dead.
func (r *roster) expireUnconfirmed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, places := range r.records {
		for i := range places {
			if rec := &places[i]; rec.unconfirmed {
				rec.State, rec.Since, rec.unconfirmed = StateDead, time.Now(), false
			}
		}
	}
	r.change.Set()
}

// unconfirmed returns the gossip addresses of the members that are not confirmed.
func (r *roster) unconfirmed() (addrs []netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, places := range r.records {
		if best := bestOf(places); best.unconfirmed {
			addrs = append(addrs, best.GossipAddr())
		}
	}
	return addrs
}

// joinAgain joins the members that are known after a move, and dials all targets at once.
func (d *dialer) joinAgain(ctx context.Context) {
	d.redialAll()
	d.rejoinNow.Set()
	var wg sync.WaitGroup
	limit := make(chan struct{}, moveJoins)
	for _, addr := range d.mesh.roster.unconfirmed() {
		if addr == d.mesh.at.Load().addr { // this node is now where another one was
			continue
		}
		limit <- struct{}{}
		if ctx.Err() != nil || len(d.mesh.roster.unconfirmed()) == 0 { // one exchange may have confirmed all
			break
		}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := d.exchange(ctx, addr); err != nil {
				d.mesh.log.Debug("member not reached after the move", "addr", addr, "err", err)
			}
		})
	}
	wg.Wait()
}

// nextRedial returns the channel that is closed when all targets are to be dialed at once.
func (d *dialer) nextRedial() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.redial
}
