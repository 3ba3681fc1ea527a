package mesh

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
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
	s := newLinkStates(a, time.Unix(100, 0), func() { changes++ }, func(msg []byte) { sent = append(sent, msg) },
		func(peer.ID) bool { return true })
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
	const ahead = 1 << 61 // the year 2043
	forged := (&linkRecord{node: a, started: ahead, number: 1, links: topology.Links{Broken: []peer.ID{b}}}).append(nil)
	if err := s.Merge(forged); err != nil || len(sent) != 1 {
		t.Fatalf("%d broadcasts, %v, want this node's own record", len(sent), err)
	}
	r, err := parseLinks(sent[0])
	if err != nil || len(r) != 1 || r[0].started != ahead || r[0].number != 2 || r[0].links.Broken[0] != c {
		t.Errorf("%+v, %v", r, err)
	}
	if n := len(s.State()); n != len(later)+len(sent[0]) {
		t.Errorf("a state of %d bytes", n)
	}
}

// TestMadeUpLinkRecords: records of nodes that are not alive have a bound of their own, make room for others, are not passed on
// before their node is alive, and expire. A flood of them costs little memory.
func TestMadeUpLinkRecords(t *testing.T) {
	alive := func(id peer.ID) bool { return id[0] == 0xaa }
	var sent [][]byte
	s := newLinkStates(peer.ID{1}, time.Unix(100, 0), func() {}, func(msg []byte) { sent = append(sent, msg) }, alive)
	record := func(kind byte, i int) []byte {
		node := peer.ID{kind, byte(i >> 8), byte(i)}
		return (&linkRecord{node: node, started: 5, number: 1, links: topology.Links{Broken: make([]peer.ID, maxBroken)}}).append(nil)
	}
	before := heap()
	for i := range 30000 {
		if err := s.Merge(record(0xbb, i)); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; len(s.records) != maxHeld || grown > 4<<20 {
		t.Errorf("%d records of made-up nodes, %d KiB, want %d and at most 4 MiB", len(s.records), grown>>10, maxHeld)
	}
	if len(sent) > 0 || len(s.State()) > 0 {
		t.Errorf("%d broadcasts and a state of %d bytes with made-up records", len(sent), len(s.State()))
	}
	for i := range maxRecords {
		if err := s.Merge(record(0xaa, i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.records) != maxRecords || len(s.held) != 0 || len(sent) != maxRecords {
		t.Errorf("%d records, %d held, %d passed on, want all of the members", len(s.records), len(s.held), len(sent))
	}
	s.records, sent = map[peer.ID]*linkRecord{}, nil
	if err := s.Merge(append(record(0xbb, 1), record(0xbb, 2)...)); err != nil {
		t.Fatal(err)
	}
	joined := peer.ID{0xbb, 0, 1}
	if got := s.expireAt(time.Now(), map[peer.ID]bool{joined: true}); len(got) != 1 || !bytes.Equal(got[0], record(0xbb, 1)) {
		t.Errorf("%d records passed on when a node is alive, want its own", len(got))
	}
	s.expireAt(time.Now().Add(emptyRecordTTL), map[peer.ID]bool{joined: true})
	if len(s.records) != 1 || len(s.held) != 0 {
		t.Errorf("%d records and %d held after their time", len(s.records), len(s.held))
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

// TestNumbersOfLinkRecordsCannotBeUsedUp: a node can exceed the latest record that others accept in its name, and they accept that.
func TestNumbersOfLinkRecordsCannotBeUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, other := peer.ID{1}, peer.ID{2}
		var sent [][]byte
		node := newLinkStates(id, time.Now(), func() {}, func(msg []byte) { sent = append(sent, msg) }, func(peer.ID) bool { return true })
		rest := newLinkStates(other, time.Now(), func() {}, func([]byte) {}, func(peer.ID) bool { return true })
		node.setOwn(topology.Links{Broken: []peer.ID{other}})
		latest := uint64(time.Now().Add(maxAhead).UnixNano())
		forged := (&linkRecord{node: id, started: latest, number: maxStamp, links: topology.Links{DialOut: true}}).append(nil)
		beyond := (&linkRecord{node: id, started: latest + 1, number: 1, links: topology.Links{DialOut: true}}).append(nil)
		for _, s := range []*linkStates{node, rest} {
			if err := s.Merge(beyond); !errors.Is(err, errLinks) {
				t.Errorf("a record beyond the bound: %v", err)
			}
			if err := s.Merge(forged); err != nil {
				t.Fatal(err)
			}
		}
		if !rest.dialOut(id) || len(sent) != 1 {
			t.Fatalf("%d broadcasts, the forged record is in force: %v", len(sent), rest.dialOut(id))
		}
		time.Sleep(time.Millisecond)
		if err := rest.Merge(sent[0]); err != nil || rest.dialOut(id) {
			t.Errorf("%v, the forged record is in force: %v", err, rest.dialOut(id))
		}
		if err := rest.Merge(node.State()); err != nil || len(rest.published()[id].Broken) != 1 {
			t.Errorf("%v, links %v", err, rest.published()[id])
		}
	})
}
