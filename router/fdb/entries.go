package fdb

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Entry is one line of the table for status documents.
type Entry struct {
	MAC ether.Addr `json:"mac"`
	// Peer is the peer behind which MAC was last seen, the zero ID for the host itself.
	Peer peer.ID `json:"peer"`
	// Age is the time since then, in whole seconds.
	Age time.Duration `json:"age"`
}

// Entries returns a copy of the entries that Lookup would find at now, sorted by address. It may or may not include
// concurrent changes.
func (t *Table) Entries(now time.Time) []Entry {
	sec := t.seconds(now)
	entries := make([]Entry, 0, t.Len())
	for i := range t.buckets {
		for e := t.buckets[i].Load(); e != nil; e = e.next.Load() {
			if t.expired(e, sec) {
				continue
			}
			entry := Entry{MAC: e.addr(), Age: time.Duration(max(sec-e.seen.Load(), 0)) * time.Second}
			binary.BigEndian.PutUint64(entry.Peer[:], e.where.Load())
			entries = append(entries, entry)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return entries
}

// addr returns the address of e.
func (e *entry) addr() ether.Addr {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], e.mac)
	return ether.Addr(b[2:])
}
