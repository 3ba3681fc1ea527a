package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"weft/internal/bytesreader"
	"weft/internal/peer"
)

// ErrMessage is wrapped by the errors about messages that cannot be read.
var ErrMessage = errors.New("dns: bad message")

// MaxDelta is the length in bytes of the longest message that a Registry passes to Gossip.Broadcast.
const MaxDelta = 1000

// The wire form of a message, which is a delta or a full state. Numbers are unsigned varints (encoding/binary) unless a
// length in bytes is given:
//
//	+---------+----------
//	| version | entries …
//	| 1 byte  |
//	+---------+----------
//
//	+-------+------+---------+-----+--------+------+---------+
//	| flags | node | version | age | length | name | address |
//	| 1     | 8    |         |     | 1      |      | 4 or 16 |
//	+-------+------+---------+-----+--------+------+---------+
//
// Node is present when flag 4 is set; otherwise it is the node of the entry before. Age is present in tombstones: how many
// seconds ago the entry was removed, as far as the sender knows. A tombstone thereby expires on all nodes at about the
// time at which it expires on the node that made it, and is not passed on in circles.
const (
	codecVersion = 1

	flagRemoved = 1
	flagIPv6    = 2
	flagNode    = 4
	flagsKnown  = flagRemoved | flagIPv6 | flagNode
)

// encode returns messages of at most limit bytes that together contain all entries. With a limit of 0 it returns one message
// of any length, also without entries. Messages are shorter when the entries of a node follow one another.
func encode(entries []Entry, limit int, now time.Time) (messages [][]byte) {
	msg := []byte{codecVersion}
	var node peer.ID
	for _, e := range entries {
		longer := appendEntry(msg, e, node, now)
		if limit > 0 && len(longer) > limit && len(msg) > 1 {
			messages = append(messages, msg)
			longer = appendEntry([]byte{codecVersion}, e, peer.ID{}, now)
		}
		msg, node = longer, e.Node
	}
	if len(msg) > 1 || limit == 0 {
		messages = append(messages, msg)
	}
	return messages
}

// appendEntry appends e to b. node is the node of the entry before, zero for the first entry of a message.
func appendEntry(b []byte, e Entry, node peer.ID, now time.Time) []byte {
	var flags byte
	if e.Removed {
		flags |= flagRemoved
	}
	if e.Addr.Is6() {
		flags |= flagIPv6
	}
	if e.Node != node {
		flags |= flagNode
	}
	b = append(b, flags)
	if e.Node != node {
		b = append(b, e.Node[:]...)
	}
	b = binary.AppendUvarint(b, e.Version)
	if e.Removed {
		b = binary.AppendUvarint(b, uint64((max(now.Sub(e.At), 0)+time.Second-1)/time.Second)) // rounded up
	}
	b = append(b, byte(len(e.Name)))
	b = append(b, e.Name...)
	return append(b, e.Addr.AsSlice()...)
}

// decode iterates over the entries of a message, with an error that wraps ErrMessage in place of each invalid entry. It
// stops after an entry of unknown length.
func decode(msg []byte, now time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if len(msg) == 0 || msg[0] != codecVersion {
			yield(Entry{}, fmt.Errorf("%w: its version is not %d", ErrMessage, codecVersion))
			return
		}
		r := bytesreader.Reader{B: msg[1:]}
		var node peer.ID
		for len(r.B) > 0 {
			e, err := decodeEntry(&r, node, now)
			if node = e.Node; !yield(e, err) || r.Short {
				return
			}
		}
	}
}

// decodeEntry reads an entry. When it sets r.Short, the entries after it cannot be read either.
func decodeEntry(r *bytesreader.Reader, node peer.ID, now time.Time) (Entry, error) {
	flags := r.Byte()
	if flags&^flagsKnown != 0 {
		r.Short = true
		return Entry{}, fmt.Errorf("%w: unknown flags %#x, of a newer version", ErrMessage, flags)
	}
	e := Entry{Node: node, Removed: flags&flagRemoved != 0, At: now}
	if flags&flagNode != 0 {
		copy(e.Node[:], r.Bytes(len(e.Node)))
	}
	e.Version = r.Uvarint()
	if e.Removed {
		e.At = now.Add(-time.Duration(min(r.Uvarint(), uint64(tombstoneTTL/time.Second))) * time.Second)
	}
	e.Name = string(r.Bytes(int(r.Byte())))
	size := 4
	if flags&flagIPv6 != 0 {
		size = 16
	}
	e.Addr, _ = netip.AddrFromSlice(r.Bytes(size))
	switch {
	case r.Short:
		return e, fmt.Errorf("%w: cut short", ErrMessage)
	case !e.valid():
		return e, fmt.Errorf("%w: entry of %q at %s, version %d", ErrMessage, e.Name, e.Addr, e.Version)
	}
	return e, nil
}
