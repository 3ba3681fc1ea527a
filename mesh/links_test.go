package mesh

import (
	"bytes"
	"testing"
	"time"

	"weft/internal/peer"
	"weft/mesh/topology"
)

// TestLinkRecords: the later record of a node counts, in whatever order they arrive; a record of this node's own that it
// has not made is replaced.
func TestLinkRecords(t *testing.T) {
	a, b, c := peer.ID{1}, peer.ID{2}, peer.ID{3}
	changes := 0
	var sent [][]byte
	s := newLinkStates(a, time.Unix(100, 0), func() { changes++ }, func(msg []byte) { sent = append(sent, msg) })
	older := (&linkRecord{node: b, started: 5, number: 9, links: topology.Links{Broken: []peer.ID{c}}}).append(nil)
	later := (&linkRecord{node: b, started: 6, number: 1, links: topology.Links{DialOut: true, Open: []peer.ID{a}}}).append(nil)
	for _, msg := range [][]byte{older, later, older} {
		if err := s.Merge(msg); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 2 || !bytes.Equal(sent[0], older) || !bytes.Equal(sent[1], later) {
		t.Errorf("%d broadcasts, want each of the two records once", len(sent))
	}
	sent = nil
	if l := s.published()[b]; !l.DialOut || len(l.Broken) > 0 || changes != 2 {
		t.Errorf("%+v after %d changes, want that of the later run after 2", l, changes)
	}
	own := s.setOwn(topology.Links{Broken: []peer.ID{c}})
	if own == nil || s.setOwn(topology.Links{Broken: []peer.ID{c}}) != nil {
		t.Error("a record is published not at all, or twice")
	}
	forged := (&linkRecord{node: a, started: 1 << 62, number: 1, links: topology.Links{Broken: []peer.ID{b}}}).append(nil)
	if err := s.Merge(forged); err != nil || len(sent) != 1 {
		t.Fatalf("%d broadcasts, %v, want this node's own record", len(sent), err)
	}
	r, err := parseLinks(sent[0])
	if err != nil || len(r) != 1 || r[0].started != 1<<62 || r[0].number != 2 || r[0].links.Broken[0] != c {
		t.Errorf("%+v, %v", r, err)
	}
	if n := len(s.State()); n != len(later)+len(sent[0]) {
		t.Errorf("a state of %d bytes", n)
	}
}

func FuzzParseLinks(f *testing.F) {
	f.Add((&linkRecord{node: peer.ID{1}, started: 1, number: 2, links: topology.Links{DialOut: true, Open: []peer.ID{{2}}}}).append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseLinks(b)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range records {
			again = r.append(again)
		}
		if len(again) != len(b) {
			t.Errorf("%d bytes were encoded as %d", len(b), len(again))
		}
		second, err := parseLinks(again)
		if err != nil || len(second) != len(records) || !bytes.Equal(again[:min(len(again), 24)], b[:min(len(b), 24)]) {
			t.Errorf("%v", err)
		}
	})
}
