package mesh

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"weft/internal/bytesreader"
	"weft/internal/peer"
	"weft/mesh/topology"
)

// channelLinks is the channel on which nodes tell what is out of the ordinary with their links.
const channelLinks ChannelID = 2

// Bounds of what a node tells of its links: a record must fit a broadcast.
const (
	maxBroken = 80
	maxOpen   = 32
	// maxRecords bounds how many nodes' records are kept, maxStamp their counters, so that none can be pushed to its end.
	maxRecords = maxMembers
	maxStamp   = 1 << 62
	// tellFor is how long a record that has nothing more to tell is passed on with whole states.
	tellFor = 10 * time.Minute
)

// errLinks is wrapped by the errors about records that cannot be read.
var errLinks = errors.New("mesh: not a record of links")

// linkRecord is what one node tells of its links. Of two records of one node the later one counts: of the later run of
// the node, or of that with the higher number.
//
//	+---------+---------+---------+--------+-------+--------+------+-------------------------------+
//	| node    | started | number  | flags  | broken| open   | IDs  |  a message is a run of these  |
//	| 8       | 8       | 8       | 1      | 1     | 1      | 8 …  |
//	+---------+---------+---------+--------+-------+--------+------+-------------------------------+
//
// Numbers are big endian; broken and open count the IDs. Flag 1 is Links.DialOut.
type linkRecord struct {
	node            peer.ID
	started, number uint64
	links           topology.Links
	at              time.Time // when it was taken over, by this node's clock
}

const (
	linkFixed       = 8 + 8 + 8 + 3
	linkFlagDialOut = 1
)

// after reports whether r is later than other.
func (r *linkRecord) after(other *linkRecord) bool {
	if r.started != other.started {
		return r.started > other.started
	}
	return r.number > other.number
}

func (r *linkRecord) append(b []byte) []byte {
	b = append(b, r.node[:]...)
	b = binary.BigEndian.AppendUint64(b, r.started)
	b = binary.BigEndian.AppendUint64(b, r.number)
	var flags byte
	if r.links.DialOut {
		flags |= linkFlagDialOut
	}
	b = append(b, flags, byte(len(r.links.Broken)), byte(len(r.links.Open)))
	for _, id := range slices.Concat(r.links.Broken, r.links.Open) {
		b = append(b, id[:]...)
	}
	return b
}

// parseLinks reads a run of records.
func parseLinks(b []byte) (records []*linkRecord, err error) {
	c := bytesreader.Reader{B: b}
	for len(c.B) > 0 {
		head := c.Bytes(linkFixed)
		if len(head) < linkFixed {
			return nil, errLinks
		}
		r := &linkRecord{
			node: peer.ID(head), started: binary.BigEndian.Uint64(head[8:]), number: binary.BigEndian.Uint64(head[16:]),
			links: topology.Links{DialOut: head[24]&linkFlagDialOut != 0},
		}
		broken, open := int(head[25]), int(head[26])
		if ids := c.Bytes(peerIDLen * (broken + open)); broken > maxBroken || open > maxOpen || c.Short || r.node.IsZero() ||
			r.started > maxStamp || r.number > maxStamp {
			return nil, errLinks
		} else if len(ids) > 0 {
			r.links.Broken, r.links.Open = parseIDs(ids[:peerIDLen*broken]), parseIDs(ids[peerIDLen*broken:])
		}
		records = append(records, r)
	}
	return records, nil
}

const peerIDLen = len(peer.ID{})

func parseIDs(b []byte) (ids []peer.ID) {
	for ; len(b) >= peerIDLen; b = b[peerIDLen:] {
		ids = append(ids, peer.ID(b))
	}
	return ids
}

// linkStates is what all nodes tell of their links, and a Channel.
type linkStates struct {
	self peer.ID
	run  uint64 // when this run of the node began
	// change is called after a record has changed, broadcast with each record that others need; mu is not held.
	change    func()
	broadcast func(msg []byte)

	mu      sync.Mutex
	records map[peer.ID]*linkRecord // guarded by mu; records are never changed
}

var _ Channel = (*linkStates)(nil)

func newLinkStates(self peer.ID, started time.Time, change func(), broadcast func([]byte)) *linkStates {
	return &linkStates{
		self: self, run: uint64(started.UnixNano()), change: change, broadcast: broadcast,
		records: make(map[peer.ID]*linkRecord),
	}
}

// set notes what this node tells and returns the message for the others; nil where nothing has changed.
func (s *linkStates) set(l topology.Links) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.Broken, l.Open = l.Broken[:min(len(l.Broken), maxBroken)], l.Open[:min(len(l.Open), maxOpen)]
	own, told := s.records[s.self]
	if !told && l.IsZero() || told && own.links.DialOut == l.DialOut && slices.Equal(own.links.Broken, l.Broken) && slices.Equal(own.links.Open, l.Open) {
		return nil
	}
	return s.tell(l, own).append(nil)
}

// tell makes l this node's record, later than all others of it; mu is held.
func (s *linkStates) tell(l topology.Links, before *linkRecord) *linkRecord {
	next := &linkRecord{node: s.self, started: s.run, number: 1, links: l, at: time.Now()}
	if before != nil && !next.after(before) {
		next.started, next.number = before.started, before.number+1
	}
	s.records[s.self] = next
	return next
}

// State implements Channel.
func (s *linkStates) State() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	now := time.Now()
	for _, r := range s.records {
		if !r.links.IsZero() || now.Sub(r.at) < tellFor {
			b = r.append(b)
		}
	}
	return b
}

// Merge implements Channel.
func (s *linkStates) Merge(msg []byte) error {
	records, err := parseLinks(msg)
	if err != nil {
		return err
	}
	var changed [][]byte
	s.mu.Lock()
	for _, r := range records {
		old := s.records[r.node]
		switch {
		case old != nil && !r.after(old), old == nil && len(s.records) >= maxRecords:
			continue
		case r.node == s.self: // of an earlier run whose clock was ahead, or somebody else's doing
			r = s.tell(s.own(), r)
		default:
			r.at = time.Now()
			s.records[r.node] = r
		}
		changed = append(changed, r.append(nil))
	}
	s.mu.Unlock()
	if len(changed) > 0 {
		s.change()
	}
	for _, r := range changed {
		s.broadcast(r)
	}
	return nil
}

// own returns what this node tells; mu is held.
func (s *linkStates) own() topology.Links {
	if r := s.records[s.self]; r != nil {
		return r.links
	}
	return topology.Links{}
}

// Message implements Channel; there are none.
func (s *linkStates) Message(peer.ID, []byte) error { return errLinks }

// told returns what is told of all links, by node.
func (s *linkStates) told() map[peer.ID]topology.Links {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := make(map[peer.ID]topology.Links, len(s.records))
	for id, r := range s.records {
		if !r.links.IsZero() {
			told[id] = r.links
		}
	}
	return told
}

// dialOut reports whether a node says that it can only dial out.
func (s *linkStates) dialOut(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[id]
	return r != nil && r.links.DialOut
}

// forget drops what nodes have told that are no members any more.
func (s *linkStates) forget(members []Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	present := make(map[peer.ID]bool, len(members))
	for _, m := range members {
		present[m.ID] = m.State == StateAlive
	}
	now := time.Now()
	for id, r := range s.records {
		if !present[id] && now.Sub(r.at) >= tellFor {
			delete(s.records, id)
		}
	}
}

// SetLinks tells the others what is out of the ordinary with this node's links.
func (m *Mesh) SetLinks(l topology.Links) {
	msg := m.links.set(l)
	if msg == nil {
		return
	}
	m.broadcastLinks(msg)
	m.roster.wake()
}

// broadcastLinks sends link records to all members.
func (m *Mesh) broadcastLinks(msg []byte) {
	if err := m.Sender(channelLinks).Broadcast(msg); err != nil {
		m.log.Error("link records not sent", "err", err)
	}
}

// Broken returns the pairs of nodes of which one says that they do not reach each other themselves.
func (m *Mesh) Broken() (pairs [][2]peer.ID) {
	for id, l := range m.links.told() {
		for _, other := range l.Broken {
			pairs = append(pairs, [2]peer.ID{id, other})
		}
	}
	return pairs
}

// route computes the ways to all members alive.
func (m *Mesh) route(members []Member) {
	var nodes []topology.Node
	for _, member := range members {
		if member.State == StateAlive {
			nodes = append(nodes, topology.Node{ID: member.ID, RTT: member.RTT})
		}
	}
	routes := topology.Routes(m.cfg.Identity.ID, nodes, m.links.told())
	m.routes.Store(&routes)
}

// annotate notes in members how they are reached.
func (m *Mesh) annotate(members []Member) []Member {
	routes := m.routes.Load()
	for i := range members {
		members[i].DialOut = m.links.dialOut(members[i].ID)
		if routes != nil {
			members[i].Route = (*routes)[members[i].ID]
		}
	}
	return members
}
