package flows

import (
	"cmp"
	"slices"
)

// Traffic is a number of frames and of their bytes, from the destination address on. A superframe counts as its segments.
type Traffic struct{ Frames, Bytes uint64 }

func (t *Traffic) add(o Traffic) {
	t.Frames += o.Frames
	t.Bytes += o.Bytes
}

// trafficOf returns the traffic of a frame of length bytes. If segment is not 0, it is a superframe: headers of header bytes, and
// payload of segment bytes for each of its segments.
func trafficOf(length, header, segment int) Traffic {
	payload := length - header
	if segment <= 0 || payload <= segment {
		return Traffic{Frames: 1, Bytes: uint64(length)}
	}
	segments := (payload + segment - 1) / segment
	return Traffic{Frames: uint64(segments), Bytes: uint64(payload + segments*header)}
}

// Flow is a flow with its traffic.
type Flow struct {
	Key
	Traffic
}

// table counts the traffic of the largest flows in bounded memory: the algorithm Space-Saving (Metwally, Agrawal and El Abbadi,
// "Efficient computation of frequent and top-k elements in data streams", 2005). A new flow takes the place of the smallest one,
// and its rank starts at the bytes of that one. So a flow with more than 1/size of all bytes is always in the table.
type table struct {
	size  int
	index map[Key]*entry
	heap  []*entry // a binary heap by rank, the smallest first
}

type entry struct {
	Flow        // counted while the flow has been in the table
	rank uint64 // the most bytes that the flow can have had
	at   int    // in heap
}

func newTable(size int) *table { return &table{size: size, index: make(map[Key]*entry, size)} }

// add counts traffic of a flow.
func (t *table) add(k Key, n Traffic) {
	e := t.index[k]
	switch {
	case e != nil:
	case len(t.heap) < t.size:
		e = &entry{Flow: Flow{Key: k}, at: len(t.heap)}
		t.heap = append(t.heap, e)
		t.index[k] = e
		t.up(e)
	default:
		e = t.heap[0]
		delete(t.index, e.Key)
		e.Flow = Flow{Key: k}
		t.index[k] = e
	}
	e.add(n)
	e.rank += n.Bytes
	t.down(e)
}

// up moves an entry towards the root until none above it is larger.
func (t *table) up(e *entry) {
	for e.at > 0 {
		above := t.heap[(e.at-1)/2]
		if above.rank <= e.rank {
			return
		}
		t.swap(e, above)
	}
}

// down moves an entry away from the root until none below it is smaller.
func (t *table) down(e *entry) {
	for {
		child := 2*e.at + 1
		if child >= len(t.heap) {
			return
		}
		if right := child + 1; right < len(t.heap) && t.heap[right].rank < t.heap[child].rank {
			child = right
		}
		below := t.heap[child]
		if e.rank <= below.rank {
			return
		}
		t.swap(e, below)
	}
}

func (t *table) swap(a, b *entry) {
	t.heap[a.at], t.heap[b.at] = b, a
	a.at, b.at = b.at, a.at
}

// take empties the table and returns its flows, the largest first.
func (t *table) take() []Flow {
	list := make([]Flow, len(t.heap))
	for i, e := range t.heap {
		list[i] = e.Flow
	}
	slices.SortFunc(list, func(a, b Flow) int { return cmp.Compare(b.Bytes, a.Bytes) })
	t.heap = t.heap[:0]
	clear(t.index)
	return list
}
