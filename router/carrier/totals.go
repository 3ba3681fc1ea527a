package carrier

import (
	"sync"

	"weft/internal/peer"
)

// Totals are the sums of what the devices of a carrier have carried from and to each peer, one after the other. The zero value has none.
// Its methods may be called from any goroutine.
type Totals struct {
	mu     sync.Mutex
	source any                  // guarded by mu: of the last counts
	peers  map[peer.ID]*growing // guarded by mu
}

// growing is the sum of counts that begin again when a device or its rules are made again.
type growing struct {
	ended Counts // the sum of those that have begun again
	last  Counts
}

// next takes the counts of now.
func (g *growing) next(counts Counts) {
	for _, c := range []struct{ ended, last, now *uint64 }{
		{&g.ended.RxFrames, &g.last.RxFrames, &counts.RxFrames}, {&g.ended.RxBytes, &g.last.RxBytes, &counts.RxBytes},
		{&g.ended.TxFrames, &g.last.TxFrames, &counts.TxFrames}, {&g.ended.TxBytes, &g.last.TxBytes, &counts.TxBytes},
	} {
		if *c.now < *c.last {
			*c.ended += *c.last
		}
		*c.last = *c.now
	}
}

// Add returns the sum of both.
func (c Counts) Add(o Counts) Counts {
	return Counts{
		RxFrames: c.RxFrames + o.RxFrames, RxBytes: c.RxBytes + o.RxBytes, TxFrames: c.TxFrames + o.TxFrames, TxBytes: c.TxBytes + o.TxBytes,
	}
}

// Update reads the counts of now and returns the sums, also of peers that are not carried at present. The source of counts is comparable,
// and another one after they have begun again; if they fall they have, too. After an error of read, the sums are those of the last time.
func (t *Totals) Update(read func() (source any, counts map[peer.ID]Counts, err error)) (sums map[peer.ID]Counts, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	source, now, err := read()
	if source != t.source {
		for _, g := range t.peers {
			g.ended, g.last = g.ended.Add(g.last), Counts{}
		}
		t.source = source
	}
	for id, counts := range now {
		if t.peers[id] == nil {
			if t.peers == nil {
				t.peers = map[peer.ID]*growing{}
			}
			t.peers[id] = &growing{}
		}
		t.peers[id].next(counts)
	}
	sums = make(map[peer.ID]Counts, len(t.peers))
	for id, g := range t.peers {
		sums[id] = g.ended.Add(g.last)
	}
	return sums, err
}

// KeepOnly forgets all peers but those for which known returns true.
func (t *Totals) KeepOnly(known func(peer.ID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.peers {
		if !known(id) {
			delete(t.peers, id)
		}
	}
}
