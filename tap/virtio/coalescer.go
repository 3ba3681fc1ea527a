package virtio

import (
	"bytes"
	"errors"
)

// MaxPieces is the most elements that More of a Frame from a Joiner has: one writev takes 1,024 pieces (IOV_MAX), and
// 64 KiB in segments of 128 bytes are still one frame.
const MaxPieces = 512

// maxJoinedUDP is the most segments of a UDP superframe that a Joiner makes: that is what UDP_MAX_SEGMENTS was before
// Linux raised it to 128, and what the kernel's own GRO joins (UDP_GRO_CNT_MAX).
const maxJoinedUDP = 64

// Errors that only a Joiner returns, unwrapped.
var (
	// ErrSlice: the metadata of a slice contradicts its headers or its length.
	ErrSlice = errors.New("virtio: slice contradicts its headers")
	// ErrFull: the Joiner has no room for another frame.
	ErrFull = errors.New("virtio: no room for another frame")
)

// Slice says what a datagram held of a superframe. Nothing in it is trusted.
type SegmentInfo struct {
	// Super names the superframe: equal for all its slices, and for no others of the same sender in a batch.
	Super uint64
	// Type is GSOTCPv4, GSOTCPv6 or GSOUDPL4, without GSOECN.
	Type GSOType
	// ECN: the superframe had GSOECN.
	ECN bool
	// HeaderLen, CsumStart, CsumOffset and SegmentSize are those of the superframe, in bytes.
	HeaderLen, CsumStart, CsumOffset, SegmentSize int
	// Index is the segment's place in the superframe, from 0.
	Index int
	// Last: it is the last one.
	Last bool
}

// Joiner puts the slices of superframes together again, and joins single frames of a flow into superframes as the
// kernel's GRO does, for one batch at a time. It is owned by one goroutine, made once, and allocates nothing after.
//
// Payload is never copied, and of payload nothing is read but where a complete checksum has to be checked. Headers are
// rewritten in the buffers that were handed in.
type Coalescer struct {
	// Constant after NewJoiner.
	features Features

	// Of the batch.
	entries []entry
	pieces  []piece
	flows   flows
	current int // the entry that the last slice was added to, or -1
	done    bool

	// What Frames returned.
	frames []Frame
	more   [][]byte
}

// entry is one frame to be: a slice, a frame, or several of one flow joined.
type entry struct {
	data     []byte // headers and the first payload
	first    int32  // more payload: the first and the last of pieces, if count > 1
	last     int32
	count    int // segments held
	payload  int // bytes of all of them
	room     int // how many more segments may join: none where it is closed
	layout   Layout
	slice    SegmentInfo // of slices: what the next one must say
	source   uint32      // of slices
	index    int         // of slices: of the first one
	offload  Header      // of single frames: what came with them
	kind     entryKind
	verified bool // of joined frames: the checksum of the first is known to be right
	fixedID  bool // of joined frames: their IPv4 id stays the same
	closing  uint8
}

// entryKind says how an entry becomes a frame.
type entryKind uint8

const (
	entryWhole entryKind = iota // a frame that is not looked into
	entryFrame                  // a frame of a flow, which others may join
	entrySlice
)

// piece is the payload of one more segment.
type piece struct {
	data []byte
	next int32
}

// NewJoiner returns an empty Joiner for a device that offers f: what it does not take is done in software. frames
// bounds the frames that come out of one batch, pieces the slices and frames that are joined to others.
func NewCoalescer(f Features, frames, pieces int) *Coalescer {
	if !f.Has(FeatureChecksum) {
		f = 0 // there are no others without it
	}
	j := &Coalescer{
		features: f,
		entries:  make([]entry, 0, frames),
		pieces:   make([]piece, 0, pieces),
		flows:    newFlows(frames),
		frames:   make([]Frame, 0, frames),
		more:     make([][]byte, 0, pieces),
	}
	j.Reset()
	return j
}

// Reset empties the Joiner. What Frames returned is no longer valid.
func (j *Coalescer) Reset() {
	j.entries, j.pieces, j.frames, j.more = j.entries[:0], j.pieces[:0], j.frames[:0], j.more[:0]
	j.flows.reset()
	j.current = -1
	j.done = false
}

// Full reports whether there may be no room for one more slice or frame: take Frames and Reset.
func (j *Coalescer) Full() bool {
	return len(j.entries) == cap(j.entries) || len(j.pieces) == cap(j.pieces) || j.done
}

// AddSlice adds one slice of a superframe: data is the superframe's headers and the payload of one segment. source is
// any number that tells one sender from another. data is the Joiner's until Reset. On an error, which is ErrFull,
// ErrSlice or one of Inspect's, unwrapped, nothing was added.
func (j *Coalescer) AddSegment(source uint32, s SegmentInfo, data []byte) error {
	if j.Full() {
		return ErrFull
	}
	if j.current >= 0 {
		if e := &j.entries[j.current]; e.continues(source, &s, data) {
			j.extend(e, data[s.HeaderLen:])
			e.advance()
			return nil
		}
	}
	e := j.push(data)
	l := &e.layout
	if err := s.locate(l, data); err != nil {
		j.pop()
		return err
	}
	e.kind, e.slice, e.source, e.index = entrySlice, s, source, s.Index
	e.payload = len(data) - l.HeaderLen
	if !j.features.Has(l.feature()) {
		return nil
	}
	slot, latest := j.find(l, data)
	if latest != nil {
		if latest.continues(source, &s, data) {
			j.pop()
			j.current = int(slot.entry)
			j.extend(latest, data[s.HeaderLen:])
			latest.advance()
			return nil
		}
		latest.room = 0
	}
	e.room = min(l.Segments-s.Index, l.maxJoined()) - 1
	e.advance()
	j.current = j.newest(slot)
	return nil
}

// locate checks the slice s against the headers of data and sets l to the layout of the superframe it is of.
func (s *SegmentInfo) locate(l *Layout, data []byte) error {
	if s.HeaderLen < 0 || s.HeaderLen > len(data) {
		return ErrTruncated
	}
	err := l.inspect(data[:s.HeaderLen], s.Type, s.ECN, s.SegmentSize)
	switch {
	case err != nil:
		return err
	case l.HeaderLen != s.HeaderLen, s.Index < 0, s.Index >= l.Segments, s.Last != (s.Index == l.Segments-1):
		return ErrSlice
	case l.L4 != s.CsumStart, l.CsumOffset != s.CsumOffset:
		return ErrChecksum
	case len(data)-l.HeaderLen != l.segmentLen(s.Index):
		return ErrLength
	}
	return nil
}

// continues reports whether the slice s is the next one of e. Equal headers need no second look: all there is left to
// check are the payload's length and what changes from slice to slice.
func (e *entry) continues(source uint32, s *SegmentInfo, data []byte) bool {
	return e.room > 0 && e.kind == entrySlice && e.source == source && e.slice == *s &&
		len(data) == e.layout.HeaderLen+e.layout.segmentLen(s.Index) &&
		bytes.Equal(data[:e.layout.HeaderLen], e.data[:e.layout.HeaderLen])
}

// advance makes e expect the slice after the one it has got.
func (e *entry) advance() {
	e.slice.Index++
	e.slice.Last = e.slice.Index == e.layout.Segments-1
}

// extend adds the payload of one more segment to e.
func (j *Coalescer) extend(e *entry, payload []byte) {
	at := int32(len(j.pieces))
	j.pieces = append(j.pieces, piece{data: payload})
	if e.count == 1 {
		e.first = at
	} else {
		j.pieces[e.last].next = at
	}
	e.last = at
	e.count++
	e.payload += len(payload)
	e.room--
}

// push adds an entry of data alone, which nothing can join. Entries are set field by field where they lie: they are too
// large to be copied for every frame. layout, slice and source are the caller's to set, and what is not is not used.
func (j *Coalescer) push(data []byte) *entry {
	n := len(j.entries)
	j.entries = j.entries[:n+1]
	e := &j.entries[n]
	e.data, e.kind, e.offload = data, entryWhole, Header{}
	e.count, e.payload, e.room, e.index = 1, 0, 0, 0
	e.verified, e.fixedID, e.closing = false, false, 0
	return e
}

// pop takes back the last entry.
func (j *Coalescer) pop() { j.entries = j.entries[:len(j.entries)-1] }

// newest makes the last entry the latest of the flow in slot, and returns its place.
func (j *Coalescer) newest(slot *flowSlot) int {
	at := len(j.entries) - 1
	slot.entry = int32(at)
	return at
}

// find returns the slot for the flow of the packet data, and the latest entry of that flow or nil.
func (j *Coalescer) find(l *Layout, data []byte) (*flowSlot, *entry) {
	hash, mask := l.flowHash(data), uint32(len(j.flows.slots)-1)
	for i := range uint32(maxProbes) {
		slot := &j.flows.slots[(hash+i)&mask]
		if slot.generation != j.flows.generation {
			*slot = flowSlot{generation: j.flows.generation, hash: hash}
			return slot, nil
		}
		if e := &j.entries[slot.entry]; slot.hash == hash && l.sameFlow(data, &e.layout, e.data) {
			return slot, e
		}
	}
	slot := &j.flows.slots[hash&mask]
	j.entries[slot.entry].room = 0 // given up: nothing may join what is not found
	slot.hash = hash
	return slot, nil
}

// forget gives up all flows, for a frame whose flow cannot be told.
func (j *Coalescer) forget() {
	j.flows.reset()
	j.current = -1
}

// feature returns what a device must offer to take a superframe with the layout l.
func (l *Layout) feature() Features {
	switch {
	case !l.tcp:
		return FeatureUSO
	case l.ipv6:
		return FeatureTSO6
	default:
		return FeatureTSO4
	}
}

// maxJoined returns how many segments may become one frame.
func (l *Layout) maxJoined() int {
	if l.tcp {
		return MaxPieces + 1
	}
	return maxJoinedUDP
}
