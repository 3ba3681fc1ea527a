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

// ErrMessage is wrapped by the errors about bytes that are not a message of a registry.
var ErrMessage = errors.New("dns: bad message")

// MaxDelta is the longest message in bytes that is passed to RegistryConfig.Broadcast or returned by Registry.Merge.
const MaxDelta = 1000

// A message, delta or whole state; numbers are unsigned varints (encoding/binary) where not said otherwise:
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
// Node is there where flag 4 is set, and else that of the entry before. Age is there in tombstones: how many seconds ago
// the entry was removed, as far as the sender knows, so that they end everywhere about when they end on the node that made
// them, and none is told in circles.
const (
	codecVersion = 1

	flagRemoved = 1
	flagIPv6    = 2
	flagNode    = 4
	flagsKnown  = flagRemoved | flagIPv6 | flagNode
)

// encode returns messages of at most limit bytes that together hold all entries; one of any length where limit is 0, even
// of no entries. Entries of a node should stand together.
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

// appendEntry appends e to b, where node is that of the entry before, zero for the first.
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
		b = binary.AppendUvarint(b, uint64((max(now.Sub(e.At), 0)+time.Second-1)/time.Second)) // never younger than it is
	}
	b = append(b, byte(len(e.Name)))
	b = append(b, e.Name...)
	return append(b, e.Addr.AsSlice()...)
}

// decode goes through the entries of a message, with an error, that wraps ErrMessage, in the place of each that is not
// valid. It ends behind bytes of which it cannot be said where they end.
func decode(msg []byte, now time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if len(msg) == 0 || msg[0] != codecVersion {
			yield(Entry{}, fmt.Errorf("%w: not of version %d", ErrMessage, codecVersion))
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

// decodeEntry reads an entry. Where the reader is short, nothing behind it can be read either.
func decodeEntry(r *bytesreader.Reader, node peer.ID, now time.Time) (Entry, error) {
	flags := r.Byte()
	if flags&^flagsKnown != 0 {
		r.Short = true
		return Entry{}, fmt.Errorf("%w: flags %#x, of a newer weft", ErrMessage, flags)
	}
	e := Entry{Node: node, Removed: flags&flagRemoved != 0, At: now}
	if flags&flagNode != 0 {
		copy(e.Node[:], r.Bytes(len(e.Node)))
	}
	e.Version = r.Uvarint()
	if e.Removed {
		e.At = now.Add(-time.Duration(min(r.Uvarint(), uint64(keepRemoved/time.Second))) * time.Second)
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
