package virtio

import (
	"bytes"
	"errors"
)

// MaxPieces is the most elements that More of a Frame from a Coalescer has: one writev accepts 1,024 pieces (IOV_MAX),
// and 64 KiB in segments of 128 bytes are still one frame.
const MaxPieces = 512

// maxCoalescedUDP is the most segments of a UDP superframe that a Coalescer makes: UDP_MAX_SEGMENTS before Linux raised
// it to 128, and the limit of the kernel's own GRO (UDP_GRO_CNT_MAX).
const maxCoalescedUDP = 64

// Errors that only a Coalescer returns, unwrapped.
var (
	// ErrSegment: the metadata of a segment contradicts its headers or its length.
	ErrSegment = errors.New("virtio: segment contradicts its headers")
	// ErrFull: the Coalescer has no room for another frame.
	ErrFull = errors.New("virtio: no room for another frame")
)

// SegmentInfo is the metadata of a datagram that holds one segment of a superframe. Nothing in it is trusted.
type SegmentInfo struct {
	// Super identifies the superframe: it is equal for all its segments, and differs from that of the sender's other
	// superframes in a batch.
	Super uint64
	// Type is GSOTCPv4, GSOTCPv6 or GSOUDPL4, without GSOECN.
	Type GSOType
	// ECN: the superframe had GSOECN.
	ECN bool
	// HeaderLen, CsumStart, CsumOffset and SegmentSize are those of the superframe, in bytes.
	HeaderLen, CsumStart, CsumOffset, SegmentSize int
	// Index is the position of the segment in the superframe, from 0.
	Index int
	// Last: this is the last segment.
	Last bool
}

// Coalescer reassembles the segments of superframes, and merges single frames of a flow into superframes as the
// kernel's GRO does, for one batch at a time. It belongs to one goroutine and allocates only when it is made.
//
// It never copies payload, and reads payload only where it has to check a complete checksum. It rewrites headers in the
// buffers that were passed to it.
type Coalescer struct {
	// Constant after NewCoalescer.
	features Features

	// Of the batch.
	entries []entry
	pieces  []piece
	flows   flows
	current int // index of the entry that the last segment was added to, or -1
	done    bool

	// Result of Frames.
	frames []Frame
	more   [][]byte
}

// entry is one frame of the result: a segment or a frame, or several of one flow merged.
type entry struct {
	data     []byte // headers and the first payload
	first    int32  // more payload: index of the first of pieces and of the last, if count > 1
	last     int32
	count    int // segments held
	payload  int // bytes of all of them
	room     int // how many more segments may be merged into it, 0 if none
	layout   Layout
	segment  SegmentInfo // of a run of segments: the metadata that the next one must have
	source   uint32      // of a run of segments: their sender
	index    int         // of a run of segments: index of the first one
	offload  Header      // of single frames: their own header
	kind     entryKind
	verified bool  // of merged frames: the checksum of the first one was checked
	fixedID  bool  // of merged frames: all have the same IPv4 id
	closing  uint8 // of merged frames: PSH and FIN of the last one
}

// entryKind is how an entry becomes a frame.
type entryKind uint8

const (
	entryOpaque   entryKind = iota // a frame of no known flow
	entryFrame                     // a frame of a flow, with those merged into it
	entrySegments                  // a run of segments of one superframe
)

// piece is the payload of one more segment.
type piece struct {
	data []byte
	next int32
}

// NewCoalescer returns an empty Coalescer for a device with the features f: it does in software what the device does
// not accept. frames bounds the frames that result from one batch, pieces the segments and frames that are merged into
// others.
func NewCoalescer(f Features, frames, pieces int) *Coalescer {
	if !f.Has(FeatureChecksum) {
		f = 0 // no other feature works without it
	}
	c := &Coalescer{
		features: f,
		entries:  make([]entry, 0, frames),
		pieces:   make([]piece, 0, pieces),
		flows:    newFlows(frames),
		frames:   make([]Frame, 0, frames),
		more:     make([][]byte, 0, pieces),
	}
	c.Reset()
	return c
}

// Reset empties the Coalescer. The result of Frames is no longer valid.
func (c *Coalescer) Reset() {
	c.entries, c.pieces, c.frames, c.more = c.entries[:0], c.pieces[:0], c.frames[:0], c.more[:0]
	c.flows.reset()
	c.current = -1
	c.done = false
}

// Full reports whether there may be no room for one more segment or frame: the caller then calls Frames and Reset.
func (c *Coalescer) Full() bool {
	return len(c.entries) == cap(c.entries) || len(c.pieces) == cap(c.pieces) || c.done
}

// AddSegment adds one segment of a superframe: data is the headers of the superframe and the payload of one segment.
// source is a number that identifies the sender. The Coalescer owns data until Reset. The errors are ErrFull,
// ErrSegment and those of Inspect, unwrapped; nothing was added then.
func (c *Coalescer) AddSegment(source uint32, s SegmentInfo, data []byte) error {
	if c.Full() {
		return ErrFull
	}
	if c.current >= 0 {
		if e := &c.entries[c.current]; e.continues(source, &s, data) {
			c.appendPayload(e, data[s.HeaderLen:])
			e.expectNext()
			return nil
		}
	}
	e := c.newEntry(data)
	l := &e.layout
	if err := s.locate(l, data); err != nil {
		c.dropLast()
		return err
	}
	e.kind, e.segment, e.source, e.index = entrySegments, s, source, s.Index
	e.payload = len(data) - l.HeaderLen
	if !c.features.Has(l.feature()) {
		return nil
	}
	slot, latest := c.findFlow(l, data)
	if latest != nil {
		if latest.continues(source, &s, data) {
			c.dropLast()
			c.current = int(slot.entry)
			c.appendPayload(latest, data[s.HeaderLen:])
			latest.expectNext()
			return nil
		}
		latest.room = 0
	}
	e.room = min(l.Segments-s.Index, l.maxMerged()) - 1
	e.expectNext()
	c.current = c.setLatest(slot)
	return nil
}

// locate checks the metadata s against the headers of data, and sets l to the layout of the superframe.
func (s *SegmentInfo) locate(l *Layout, data []byte) error {
	if s.HeaderLen < 0 || s.HeaderLen > len(data) {
		return ErrTruncated
	}
	err := l.inspect(data[:s.HeaderLen], s.Type, s.ECN, s.SegmentSize)
	switch {
	case err != nil:
		return err
	case l.HeaderLen != s.HeaderLen, s.Index < 0, s.Index >= l.Segments, s.Last != (s.Index == l.Segments-1):
		return ErrSegment
	case l.L4 != s.CsumStart, l.CsumOffset != s.CsumOffset:
		return ErrChecksum
	case len(data)-l.HeaderLen != l.segmentLen(s.Index):
		return ErrLength
	}
	return nil
}

// continues reports whether the segment with the metadata s is the next one of e. Equal headers need no second check:
// only the length of the payload and the fields that differ between segments remain.
func (e *entry) continues(source uint32, s *SegmentInfo, data []byte) bool {
	return e.room > 0 && e.kind == entrySegments && e.source == source && e.segment == *s &&
		len(data) == e.layout.HeaderLen+e.layout.segmentLen(s.Index) &&
		bytes.Equal(data[:e.layout.HeaderLen], e.data[:e.layout.HeaderLen])
}

// expectNext makes e expect the segment behind its last one.
func (e *entry) expectNext() {
	e.segment.Index++
	e.segment.Last = e.segment.Index == e.layout.Segments-1
}

// appendPayload adds the payload of one more segment to e.
func (c *Coalescer) appendPayload(e *entry, payload []byte) {
	at := int32(len(c.pieces))
	c.pieces = append(c.pieces, piece{data: payload})
	if e.count == 1 {
		e.first = at
	} else {
		c.pieces[e.last].next = at
	}
	e.last = at
	e.count++
	e.payload += len(payload)
	e.room--
}

// newEntry adds an entry of data alone, into which nothing can be merged. It sets the fields of an entry in place, as
// entries are too large to be copied for every frame. The caller sets layout, segment and source where they are used.
func (c *Coalescer) newEntry(data []byte) *entry {
	n := len(c.entries)
	c.entries = c.entries[:n+1]
	e := &c.entries[n]
	e.data, e.kind, e.offload = data, entryOpaque, Header{}
	e.count, e.payload, e.room, e.index = 1, 0, 0, 0
	e.verified, e.fixedID, e.closing = false, false, 0
	return e
}

// dropLast removes the last entry.
func (c *Coalescer) dropLast() { c.entries = c.entries[:len(c.entries)-1] }

// setLatest makes the last entry the latest one of the flow in slot, and returns its index.
func (c *Coalescer) setLatest(slot *flowSlot) int {
	at := len(c.entries) - 1
	slot.entry = int32(at)
	return at
}

// findFlow returns the slot for the flow of the packet data, and the latest entry of that flow or nil.
func (c *Coalescer) findFlow(l *Layout, data []byte) (*flowSlot, *entry) {
	hash, mask := l.flowHash(data), uint32(len(c.flows.slots)-1)
	for i := range uint32(maxProbes) {
		slot := &c.flows.slots[(hash+i)&mask]
		if slot.generation != c.flows.generation {
			*slot = flowSlot{generation: c.flows.generation, hash: hash}
			return slot, nil
		}
		if e := &c.entries[slot.entry]; slot.hash == hash && l.sameFlow(data, &e.layout, e.data) {
			return slot, e
		}
	}
	slot := &c.flows.slots[hash&mask]
	c.entries[slot.entry].room = 0 // evicted: nothing may be merged into an entry that is not found
	slot.hash = hash
	return slot, nil
}

// forgetFlows forgets all flows, for a frame of an unknown flow.
func (c *Coalescer) forgetFlows() {
	c.flows.reset()
	c.current = -1
}

// feature returns the feature that a device needs for a superframe with the layout l.
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

// maxMerged returns the most segments of one frame.
func (l *Layout) maxMerged() int {
	if l.tcp {
		return MaxPieces + 1
	}
	return maxCoalescedUDP
}

// Frames returns everything added since Reset, merged as far as possible, and in order within each flow. Data and More
// lie in the buffers that were added. The frames are valid until Reset or until the caller uses those buffers again;
// nothing can be added until Reset.
func (c *Coalescer) Frames() []Frame {
	if c.done {
		return c.frames
	}
	c.done = true
	for i := range c.entries {
		e := &c.entries[i]
		start := len(c.more)
		for n, at := 1, e.first; n < e.count; n++ {
			c.more = append(c.more, c.pieces[at].data)
			at = c.pieces[at].next
		}
		f := Frame{Data: e.data, Offload: e.finishHeaders(c.features)}
		if end := len(c.more); end > start {
			f.More = c.more[start:end:end]
		}
		c.frames = append(c.frames, f)
	}
	return c.frames
}

// finishHeaders rewrites the headers of e for all segments in it, and returns the virtio header for the kernel.
func (e *entry) finishHeaders(f Features) Header {
	l := &e.layout
	h := e.offload
	switch {
	case e.kind == entrySegments:
		last := e.index+e.count == l.Segments
		if e.count < l.Segments {
			l.SegmentHeaders(e.data, e.index, e.payload, last)
		}
		h = l.singleHeader()
	case e.count > 1:
		e.widenHeaders()
		h = l.singleHeader()
	}
	if e.count > 1 {
		h.GSOType, h.GSOSize = l.kind(), uint16(l.SegmentSize)
		if l.ECN && e.index == 0 {
			h.GSOType |= GSOECN
		}
	}
	if h.Flags != 0 && !f.Has(FeatureChecksum) {
		CompleteChecksum(h, e.data)
		h = Header{}
	}
	return h
}

// singleHeader returns the virtio header of a single frame with a checksum to complete.
func (l *Layout) singleHeader() Header {
	return Header{
		Flags: FlagNeedsChecksum, HdrLen: uint16(l.HeaderLen), CsumStart: uint16(l.L4), CsumOffset: uint16(l.CsumOffset),
	}
}
