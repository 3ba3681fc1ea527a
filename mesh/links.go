package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"weft/internal/bytesreader"
	"weft/internal/peer"
	"weft/mesh/topology"
)

// channelLinks is the channel on which nodes publish the exceptions among their links.
const channelLinks ChannelID = 2

// Bounds of a node's record of its links: it must fit a broadcast.
const (
	maxBroken = 80
	maxOpen   = 32
	// maxRecords bounds for how many nodes records are kept. maxStamp bounds the numbers in them, so that no record can
	// use up the numbers.
	maxRecords = maxMembers
	maxStamp   = 1 << 62
	// maxAhead is how far ahead of this node's clock the start of a node's run may be, 80 years: clocks that begin in 1970 and clocks
	// that are decades ahead are no obstacle. The bound grows with the clock, so a node can always exceed a record that others have
	// made up for it.
	maxAhead = 80 * 365 * 24 * time.Hour
	// maxHeld bounds the records of nodes that are not alive.
	maxHeld = 1024
	// emptyRecordTTL is how long a record without any exception stays part of full states.
	emptyRecordTTL = 10 * time.Minute
)

// errLinks is wrapped by the errors about records that cannot be read.
var errLinks = errors.New("mesh: not a record of links")

// linkRecord is what one node publishes about its links. Of two records of one node the later one counts: the one of the
// later run of the node, or of two of one run the one with the higher number.
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
	at              time.Time // when this node received or made it, by its own clock
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

// parseLinks reads a run of records. The error wraps errLinks: one bad record makes the whole message unusable.
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

// linkStates holds the links that all nodes have published. It is the Channel that replicates them. Anyone that can send
// gossip can make up records of any node: those of nodes that are not alive members are held. They have a bound of their own, make room
// for others, and are passed on only when the node is alive.
type linkStates struct {
	// constant
	self peer.ID
	run  uint64 // when this run of the node began: Unix time in nanoseconds
	// changed is called after a record has changed, then broadcast with each record to send. mu is not held.
	changed   func()
	broadcast func(msg []byte)
	alive     func(id peer.ID) bool // reports whether a node is an alive member; mu is not held

	mu      sync.Mutex
	records map[peer.ID]*linkRecord // guarded by mu; a record is never modified
	held    map[peer.ID]struct{}    // guarded by mu: the nodes with a record that is held
}

var _ Channel = (*linkStates)(nil)

func newLinkStates(
	self peer.ID, started time.Time, changed func(), broadcast func([]byte), alive func(peer.ID) bool,
) *linkStates {
	return &linkStates{
		self: self, run: uint64(started.UnixNano()), changed: changed, broadcast: broadcast, alive: alive,
		records: make(map[peer.ID]*linkRecord), held: make(map[peer.ID]struct{}),
	}
}

// setOwn sets this node's links, cut to maxBroken and maxOpen, and returns the broadcast that publishes them; nil when
// nothing has changed.
func (s *linkStates) setOwn(l topology.Links) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.Broken, l.Open = l.Broken[:min(len(l.Broken), maxBroken)], l.Open[:min(len(l.Open), maxOpen)]
	own, published := s.records[s.self]
	if !published && l.IsZero() || published && equalLinks(own.links, l) {
		return nil
	}
	return s.replaceOwn(l, own).append(nil)
}

func equalLinks(a, b topology.Links) bool {
	return a.DialOut == b.DialOut && slices.Equal(a.Broken, b.Broken) && slices.Equal(a.Open, b.Open)
}

// replaceOwn makes l this node's record, later than before; mu is held. before is the latest record of this node, nil if
// there is none.
func (s *linkStates) replaceOwn(l topology.Links, before *linkRecord) *linkRecord {
	next := &linkRecord{node: s.self, started: s.run, number: 1, links: l, at: time.Now()}
	switch {
	case before == nil || next.after(before):
	case before.number < maxStamp:
		next.started, next.number = before.started, before.number+1
	default:
		next.started = before.started + 1
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
	for id, r := range s.records {
		if _, held := s.held[id]; held {
			continue
		}
		if !r.links.IsZero() || now.Sub(r.at) < emptyRecordTTL {
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
	strange := make([]bool, len(records))
	for i, r := range records {
		strange[i] = r.node != s.self && !s.alive(r.node)
	}
	var toSend [][]byte
	changed := false
	latest := uint64(max(time.Now().Add(maxAhead).UnixNano(), 0))
	s.mu.Lock()
	for i, r := range records {
		old := s.records[r.node]
		switch {
		case r.started > latest:
			err = fmt.Errorf("%w: a start that is decades ahead", errLinks)
			continue
		case old != nil && !r.after(old), old == nil && !s.makeRoom(strange[i]):
			continue
		case r.node == s.self: // of an earlier run with a clock that was ahead, or forged
			r = s.replaceOwn(s.own(), r)
		default:
			r.at = time.Now()
			s.records[r.node] = r
		}
		changed = true
		if strange[i] {
			s.held[r.node] = struct{}{}
		} else {
			delete(s.held, r.node)
			toSend = append(toSend, r.append(nil))
		}
	}
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	for _, msg := range toSend {
		s.broadcast(msg)
	}
	return err
}

// makeRoom makes room for the record of a node that has none, and reports whether there is any; mu is held. One that is held
// makes room for one that is not.
func (s *linkStates) makeRoom(strange bool) bool {
	if strange {
		return len(s.held) < maxHeld && len(s.records) < maxRecords
	}
	if len(s.records) >= maxRecords {
		for id := range s.held {
			delete(s.held, id)
			delete(s.records, id)
			break
		}
	}
	return len(s.records) < maxRecords
}

// own returns the links that this node publishes; mu is held.
func (s *linkStates) own() topology.Links {
	if r := s.records[s.self]; r != nil {
		return r.links
	}
	return topology.Links{}
}

// Message implements Channel; the channel has no unicasts.
func (s *linkStates) Message(peer.ID, []byte) error { return errLinks }

// published returns the links of all nodes that have published an exception. The slices in it are never modified.
func (s *linkStates) published() map[peer.ID]topology.Links {
	s.mu.Lock()
	defer s.mu.Unlock()
	links := make(map[peer.ID]topology.Links, len(s.records))
	for id, r := range s.records {
		if !r.links.IsZero() {
			links[id] = r.links
		}
	}
	return links
}

// dialOut reports whether a node has published that it can only dial out.
func (s *linkStates) dialOut(id peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[id]
	return r != nil && r.links.DialOut
}

// expire drops the records of nodes that are no alive members any more, emptyRecordTTL after they were received. It sends those
// that were held until their node was alive.
func (s *linkStates) expire(members []Member) {
	alive := make(map[peer.ID]bool, len(members))
	for _, m := range members {
		alive[m.ID] = m.State == StateAlive
	}
	for _, msg := range s.expireAt(time.Now(), alive) {
		s.broadcast(msg)
	}
}

func (s *linkStates) expireAt(now time.Time, alive map[peer.ID]bool) (toSend [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.records {
		_, held := s.held[id]
		switch {
		case held && alive[id]:
			delete(s.held, id)
			toSend = append(toSend, r.append(nil))
		case !alive[id] && now.Sub(r.at) >= emptyRecordTTL:
			delete(s.held, id)
			delete(s.records, id)
		}
	}
	return toSend
}

// SetLinks publishes the exceptions among this node's links. It does not block.
func (m *Mesh) SetLinks(l topology.Links) {
	msg := m.links.setOwn(l)
	if msg == nil {
		return
	}
	m.broadcastLinks(msg)
	m.roster.change.Set()
}

// broadcastLinks sends link records to all members.
func (m *Mesh) broadcastLinks(msg []byte) {
	if err := m.Sender(channelLinks).Broadcast(msg); err != nil {
		m.log.Error("link records not sent", "err", err)
	}
}

// Broken returns the pairs of nodes between which the direct link is broken, as one of the two has published.
func (m *Mesh) Broken() (pairs [][2]peer.ID) {
	for id, l := range m.links.published() {
		for _, other := range l.Broken {
			pairs = append(pairs, [2]peer.ID{id, other})
		}
	}
	return pairs
}
