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

	"weft/internal/identity"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh/keyring"
	"weft/mesh/metadata"
)

// leftTTL is how long the roster keeps a member that has left, and the old address of one that has moved.
const leftTTL = 10 * time.Minute

// errMember is wrapped by the errors with which the roster refuses a node.
var errMember = errors.New("mesh: member refused")

// nodeName returns a node's name in memberlist: its ID and its address. A node that comes back at another address is
// another node to memberlist, which would otherwise keep the old address for as long as anything answers there.
func nodeName(id peer.ID, addr netip.AddrPort) string { return id.String() + "@" + addr.String() }

// admitter decides about nodes that gossip announces. Its methods are called with memberlist's lock held, from several
// goroutines: they must not block, and must not call memberlist.
type admitter interface {
	// admit returns why a node is refused, nil if it is not.
	admit(n *memberlist.Node) error
	// inClusters returns this node's cluster IDs.
	inClusters() []metadata.ClusterID
	// checkClusters reports whether a member with the given cluster IDs is of another cluster.
	checkClusters(member Member, theirs []metadata.ClusterID) (foreign bool)
	// known reports whether a node is known from elsewhere than gossip. There are places for it that others do not get.
	known(id peer.ID) bool
	// identify returns the certificate that admits a member at now, zero if it needs none. The error is about a member that is not
	// admitted.
	identify(md metadata.Node, at netip.Addr, now time.Time) (identity.Certificate, *identity.Error)
	// revoked reports whether a node is revoked.
	revoked(id peer.ID) bool
	// reportInvalid receives the error about a node that cannot be a member of any network of this version.
	reportInvalid(err error)
	// reportOwnKey is called when gossip has this node's ID at another address.
	reportOwnKey(at netip.AddrPort)
}

// roster keeps the members that memberlist's callbacks report. The callbacks come with memberlist's lock held, so they
// only record the event and set change.
type roster struct {
	// constant
	self      peer.ID
	instance  uint64 // of this process: gossip may have it at its earlier addresses
	admission admitter
	change    signal.Chan // set when members have changed

	mu      sync.Mutex
	name    string               // guarded by mu: this node's, in memberlist
	records map[peer.ID][]record // guarded by mu: the places of each node, at least one and at most maxPlaces
	order   []peer.ID            // guarded by mu: the nodes in records, sorted
	count   int                  // guarded by mu: of all places
	expired time.Time            // guarded by mu: when expireSilent last searched

	expected map[netip.AddrPort]struct{} // guarded by mu: the addresses of the operator's targets
}

// record is a member as memberlist reports it: one node at one gossip address.
type record struct {
	Member
	started     time.Time     // when it began to run, or moved here, by the member's clock
	instance    uint64        // of its process
	unconfirmed bool          // known from before this node has moved; see roster.move
	answered    bool          // it has answered a ping of this node
	foreign     bool          // its answer to a ping has shown that it is of another cluster
	meta        metadata.Node // as it was published
	reported    State         // by memberlist; State is StateDead instead while the member is not admitted
}

var (
	_ memberlist.EventDelegate = (*roster)(nil)
	_ memberlist.AliveDelegate = (*roster)(nil)
	_ memberlist.PingDelegate  = (*roster)(nil)
)

func newRoster(self peer.ID, at netip.AddrPort, instance uint64, a admitter) *roster {
	return &roster{
		self: self, name: nodeName(self, at), instance: instance, admission: a,
		change: signal.New(), records: make(map[peer.ID][]record), expected: make(map[netip.AddrPort]struct{}),
	}
}

// snapshot returns the members, one a node, ordered by ID. It removes the records that have expired at now.
func (r *roster) snapshot(now time.Time) []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Member, 0, len(r.order))
	var outdated []peer.ID // nodes with places that have expired
	for _, id := range r.order {
		places := r.records[id]
		best := bestOf(places)
		if !best.foreign && (best.State != StateLeft || now.Sub(best.Since) <= leftTTL) {
			all = append(all, best.Member)
		}
		for i := range places {
			if places[i].hasExpired(best, now) {
				outdated = append(outdated, id)
				break
			}
		}
	}
	for _, id := range outdated {
		places := r.records[id]
		best := *bestOf(places) // the places move
		r.setPlaces(id, slices.DeleteFunc(places, func(rec record) bool { return rec.hasExpired(&best, now) }))
	}
	return all
}

// hasExpired reports whether the place of a node is not kept any more at now. best is the place where the node is.
func (rec *record) hasExpired(best *record, now time.Time) bool {
	superseded := rec.GossipAddr() != best.GossipAddr()
	return rec.State != StateAlive && (rec.State != StateDead || superseded) && now.Sub(rec.Since) > leftTTL
}

// others returns the other members that are alive, as the keyring sees them.
func (r *roster) others() []keyring.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	others := make([]keyring.Member, 0, len(r.order))
	for _, id := range r.order {
		if m := bestOf(r.records[id]); m.State == StateAlive && !m.Self && !m.foreign {
			others = append(others, keyring.Member{ID: m.ID, Accepts: m.Accepts})
		}
	}
	return others
}

// bestOf returns the record of the address at which a node is, of all its records: at least one.
func bestOf(places []record) *record {
	best := &places[0]
	for i := range places[1:] {
		if rec := &places[1+i]; rec.beats(best) {
			best = rec
		}
	}
	return best
}

// beats reports whether a node is at the address of rec rather than at that of other: this process itself comes first,
// then an address that is alive, then the one of the later start.
func (rec *record) beats(other *record) bool {
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
	if len(places) == 0 {
		return Member{}, false
	}
	return bestOf(places).Member, true
}

// state returns the state of a member.
func (r *roster) state(id peer.ID) (state State, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if places := r.records[id]; len(places) > 0 {
		return bestOf(places).State, true
	}
	return state, false
}

// isAlive reports whether a node is a member that is alive.
func (r *roster) isAlive(id peer.ID) bool {
	state, known := r.state(id)
	return known && state == StateAlive
}

// markLeft marks a dead node as one that has left. It reports false, and changes nothing, when the node is alive.
func (r *roster) markLeft(id peer.ID) bool {
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

// memberAt returns the ID of another member that is alive at the gossip address addr.
func (r *roster) memberAt(addr netip.AddrPort) (id peer.ID, alive bool) {
	return r.findAlive(func(rec *record) bool { return rec.GossipAddr() == addr })
}

// aliveAtHost reports whether another member is alive at addr, on any port.
func (r *roster) aliveAtHost(addr netip.Addr) bool {
	_, alive := r.findAlive(func(rec *record) bool { return rec.Addr == addr })
	return alive
}

// findAlive returns another member that is alive and matches.
func (r *roster) findAlive(matches func(*record) bool) (id peer.ID, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, places := range r.records {
		for i := range places {
			if rec := &places[i]; rec.State == StateAlive && !rec.Self && !rec.unconfirmed && matches(rec) {
				return id, true
			}
		}
	}
	return peer.ID{}, false
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses nodes that are not weft's, nodes of another cluster, nodes
// that claim an ID which does not belong to their key, and nodes for which there is no room.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	rec, err := recordOf(n)
	if err != nil {
		err = fmt.Errorf("node %q at %s: %w", n.Name, n.Addr, err)
		r.admission.reportInvalid(err)
		return err
	}
	if n.Name == r.ownName() {
		return nil // memberlist fails without its own node
	}
	if rec.ID == r.self && rec.instance != r.instance {
		r.admission.reportOwnKey(rec.GossipAddr())
	}
	if err := r.admission.admit(n); err != nil {
		return err
	}
	now := time.Now()
	if _, err := r.admission.identify(rec.meta, rec.Addr, now); err != nil {
		return err
	}
	return r.makeRoom(rec, now)
}

// NotifyJoin implements memberlist.EventDelegate.
func (r *roster) NotifyJoin(n *memberlist.Node) { r.update(n, StateAlive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (r *roster) NotifyUpdate(n *memberlist.Node) { r.update(n, StateAlive) }

// NotifyLeave implements memberlist.EventDelegate.
func (r *roster) NotifyLeave(n *memberlist.Node) {
	if md, err := metadata.Parse(n.Meta); err == nil && md.Leaving {
		r.update(n, StateLeft)
		return
	}
	r.update(n, StateDead)
}

// AckPayload implements memberlist.PingDelegate: an ack carries this node's clock, as Unix time in nanoseconds, and its cluster IDs.
func (r *roster) AckPayload() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	return metadata.AppendClusterIDs(b, r.admission.inClusters())
}

// NotifyPingComplete implements memberlist.PingDelegate. An answer may show that a member is of another cluster: two clusters may meet
// while the range of one is still being divided, and metadata that shows it comes late, is refused, or may be made up by a third node.
// Such a member is none any more. It stays in memberlist, as does this node there, until one of the two ends.
func (r *roster) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, ack []byte) {
	now := time.Now()
	id, _ := idOf(n.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.place(id, gossipAddr(n))
	if rec == nil {
		return
	}
	rec.RTT, rec.answered = rtt, true
	if len(ack) < 8 {
		return // an older node
	}
	rec.Skew = time.Unix(0, int64(binary.BigEndian.Uint64(ack))).Sub(now.Add(-rtt / 2))
	if foreign := r.admission.checkClusters(rec.Member, metadata.ClusterIDsOf(ack[8:])); foreign != rec.foreign {
		rec.foreign = foreign
		r.judge(rec, now)
		rec.Since = now
		r.change.Set()
	}
}

// foreign returns the nodes that have turned out to be of another cluster.
func (r *roster) foreign() []peer.ID {
	return r.matching(func(rec *record) bool { return rec.foreign })
}

// matching returns the nodes of which the best place matches, in order.
func (r *roster) matching(matches func(best *record) bool) (ids []peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.order {
		if matches(bestOf(r.records[id])) {
			ids = append(ids, id)
		}
	}
	return ids
}

// update records that a node is in the given state.
func (r *roster) update(n *memberlist.Node, state State) {
	rec, err := recordOf(n)
	if err != nil {
		return // unreachable: NotifyAlive refuses such nodes
	}
	now := time.Now()
	r.mu.Lock()
	rec.Self, rec.reported, rec.Since = n.Name == r.name, state, now
	r.judge(&rec, now)
	if old := r.place(rec.ID, rec.GossipAddr()); old != nil && old.foreign && state != StateAlive {
		r.setPlaces(rec.ID, slices.DeleteFunc(r.records[rec.ID], func(p record) bool { return p.GossipAddr() == rec.GossipAddr() }))
	} else if old != nil {
		rec.RTT, rec.Skew, rec.answered = old.RTT, old.Skew, old.answered
		if old.State == rec.State {
			rec.Since = old.Since
		}
		*old = rec
	} else if state == StateAlive { // others have expired already
		r.setPlaces(rec.ID, append(r.records[rec.ID], rec))
	}
	r.mu.Unlock()
	r.change.Set()
}

// judge sets the state of a member: dead if it is not admitted at now, else as memberlist has reported it; mu is held.
func (r *roster) judge(rec *record, now time.Time) {
	rec.State, rec.Refused, rec.Certificate = rec.reported, 0, identity.Certificate{}
	if rec.Self || rec.reported != StateAlive {
		if rec.reported == StateDead && r.admission.revoked(rec.ID) { // its daemon is stopped, or it is not heard any more
			rec.Refused = identity.Revoked
		}
		return
	}
	if rec.foreign {
		rec.State = StateLeft // this network, if it ever was in it
		return
	}
	cert, err := r.admission.identify(rec.meta, rec.Addr, now)
	if err != nil {
		rec.State, rec.Refused = StateDead, err.Refusal
		return
	}
	rec.Certificate = cert
}

// recheck judges all members again at now. It returns when the latest certificate has expired, of the members that are not admitted
// any more because of that; zero if there is none.
func (r *roster) recheck(now time.Time) (expired time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, places := range r.records {
		for i := range places {
			rec := &places[i]
			before := rec.Member
			r.judge(rec, now)
			if rec.State == before.State && rec.Refused == before.Refused && rec.Certificate.IsZero() == before.Certificate.IsZero() {
				continue
			}
			if rec.State != before.State {
				rec.Since = now
			}
			if end := before.Certificate.NotAfter; rec.Refused == identity.Expired && end.After(expired) {
				expired = end
			}
			r.change.Set()
		}
	}
	return expired
}

// isCertified reports whether another member is alive and was admitted by a certificate.
func (r *roster) isCertified(id peer.ID) bool {
	m, _ := r.lookup(id)
	return m.State == StateAlive && !m.Certificate.IsZero()
}

// certified returns the other members that are alive and were admitted by a certificate.
func (r *roster) certified() []peer.ID {
	return r.matching(func(rec *record) bool { return rec.State == StateAlive && !rec.Self && !rec.Certificate.IsZero() })
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

// recordOf reads the metadata of a memberlist node, and checks that its name begins with the ID of its key.
func recordOf(n *memberlist.Node) (record, error) {
	md, err := metadata.Parse(n.Meta)
	if err != nil {
		return record{}, err
	}
	if err := md.CheckCompatible(); err != nil {
		return record{}, err
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return record{}, fmt.Errorf("%w: invalid address %v", errMember, n.Addr)
	}
	m := Member{
		ID: peer.FromPublicKey(md.Public), Name: md.Name, Addr: addr.Unmap(), Gossip: n.Port, Data: md.DataPort, Public: md.Public,
		Capabilities: md.Capabilities, Accepts: md.Accepts, VNI: md.VNI, Direct: md.Direct, Gateway: md.Gateway,
		Ranges: md.Ranges, Version: md.Version, DNSDomain: md.DNSDomain,
	}
	if name := nodeName(m.ID, m.GossipAddr()); name != n.Name {
		return record{}, fmt.Errorf("%w: its name is %q, but by its key and address it would be %q", errMember, n.Name, name)
	}
	return record{Member: m, started: md.Started, instance: md.Instance, meta: md}, nil
}

// admit implements admitter.
func (m *Mesh) admit(n *memberlist.Node) error { return m.clusterIDs.check(n) }

// reportInvalid implements admitter.
func (m *Mesh) reportInvalid(err error) { m.rejected.record(&m.drops.refused, peer.ID{}, err) }
