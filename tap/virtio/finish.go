package virtio

// Frames returns everything added since Reset, joined as far as it goes, and in order within each flow. Data and More
// lie in the buffers that were handed in. The frames are valid until Reset or until the caller uses those buffers again;
// nothing can be added until Reset.
func (j *Coalescer) Frames() []Frame {
	if j.done {
		return j.frames
	}
	j.done = true
	for i := range j.entries {
		e := &j.entries[i]
		start := len(j.more)
		for n, at := 1, e.first; n < e.count; n++ {
			j.more = append(j.more, j.pieces[at].data)
			at = j.pieces[at].next
		}
		f := Frame{Data: e.data, Offload: e.finish(j.features)}
		if end := len(j.more); end > start {
			f.More = j.more[start:end:end]
		}
		j.frames = append(j.frames, f)
	}
	return j.frames
}

// finish rewrites the headers of e for all that it holds, and returns what is left to the kernel.
func (e *entry) finish(f Features) Header {
	l := &e.layout
	h := e.offload
	switch {
	case e.kind == entrySlice:
		last := e.index+e.count == l.Segments
		if e.count < l.Segments {
			l.SegmentHeaders(e.data, e.index, e.payload, last)
		}
		h = l.single()
	case e.count > 1:
		e.widen()
		h = l.single()
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

// single returns the header of a single frame whose checksum is left to write.
func (l *Layout) single() Header {
	return Header{
		Flags: FlagNeedsChecksum, HdrLen: uint16(l.HeaderLen), CsumStart: uint16(l.L4), CsumOffset: uint16(l.CsumOffset),
	}
}
