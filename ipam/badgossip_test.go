package ipam

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"weft/ipam/paxos"
	"weft/ipam/ring"
)

// ringSection is a section with a ring of one token that need not be one.
func ringSection(a *Allocator, count, start, length uint64, owner int, version, free uint64) []byte {
	nothing := a.pools[0].ring.Select(func(ring.Token) bool { return false }).Append(nil)
	b := binary.AppendUvarint(nothing[:len(nothing)-1], count) // in place of a count of 0
	b = binary.AppendUvarint(binary.AppendUvarint(b, start), length)
	id := nodeID(owner)
	b = append(b, id[:]...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, version), free)
	return appendSection(nil, sectionRing, b)
}

// TestBadGossip: what members of a newer weft send, or those that mean ill, is refused by name; what else the message
// held is taken, nothing of this node's own is lost, and nothing is written that is not true.
func TestBadGossip(t *testing.T) {
	good := func(a *Allocator) []byte { return appendSection(nil, 77, []byte("of a later time")) }
	for _, tt := range []struct {
		name string
		msg  func(a *Allocator) []byte
		want error
	}{
		{"a section of a newer weft", good, ErrMessage},
		{"a section cut short", func(*Allocator) []byte { return []byte{sectionRing, 200, 1} }, ErrMessage},
		{"a ring of 2^40 tokens", func(a *Allocator) []byte { return ringSection(a, 1<<40, 0, 1, 1, 1, 0) }, ring.ErrEncoding},
		{"a ring of 65,537 tokens", func(a *Allocator) []byte { return ringSection(a, ring.MaxTokens+1, 0, 1, 1, 1, 0) }, ring.ErrEncoding},
		{"a token outside the range", func(a *Allocator) []byte { return ringSection(a, 1, 200, 100, 1, 1, 0) }, ring.ErrEncoding},
		{"a token that wraps around", func(a *Allocator) []byte { return ringSection(a, 1, 200, 1<<63, 1, 1, 0) }, ring.ErrEncoding},
		{"a version at its end", func(a *Allocator) []byte { return ringSection(a, 1, 0, 16, 1, 1<<63, 0) }, ring.ErrEncoding},
		{"more free than there is", func(a *Allocator) []byte { return ringSection(a, 1, 0, 16, 1, 1, 99) }, ring.ErrEncoding},
		{"votes of 2^40 nodes", func(a *Allocator) []byte {
			return appendSection(nil, sectionStates, binary.AppendUvarint(appendPrefix(nil, a.pools[0].prefix), 1<<40))
		}, paxos.ErrEncoding},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, disk := lone(t, 0, "10.32.0.0/24")
			lease, err := a.Allocate(t.Context(), "pod", whole)
			if err != nil {
				t.Fatal(err)
			}
			before, updates := a.State(), disk.Updates()
			err = a.Merge(append([]byte{messageVersion}, tt.msg(a)...))
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if !bytes.Equal(a.State(), before) || disk.Updates() != updates {
				t.Error("it has changed something")
			}
			if got := a.Lookup("pod"); len(got) != 1 || got[0] != lease {
				t.Errorf("leases %+v", got)
			}
			// The rest of a message counts: here a token that another node has got.
			rest := a.pools[0].ring.Clone()
			if _, err := rest.Grant(nodeID(0), nodeID(1), ring.Span{Start: 128, End: 256}, func(s ring.Span) uint64 { return s.Len() }); err != nil {
				t.Fatal(err)
			}
			msg := append([]byte{messageVersion}, good(a)...)
			deltas, err := merge(a, append(msg, appendSection(nil, sectionRing, rest.Append(nil))...))
			if !errors.Is(err, ErrMessage) || len(deltas) == 0 {
				t.Errorf("with something good behind it: %d deltas, %v", len(deltas), err)
			}
			if err := a.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestALiar: a member says that it owns what this node does, and has leased. The lease stays, the truth is told, and the
// status says who claims it.
func TestALiar(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	lease, err := a.Allocate(t.Context(), "pod", whole)
	if err != nil {
		t.Fatal(err)
	}
	deltas, err := merge(a, append([]byte{messageVersion}, ringSection(a, 1, 0, 256, 1, 1000, 254)...))
	if err != nil || len(deltas) == 0 {
		t.Errorf("%d deltas, %v; want this node's own word, with a higher version", len(deltas), err)
	}
	if got := a.Lookup("pod"); len(got) != 1 || got[0] != lease {
		t.Errorf("leases %+v", got)
	}
	if said := strings.Join(a.Status().Warnings, "\n"); !strings.Contains(said, nodeID(1).String()) || !strings.Contains(said, "ipam.db") {
		t.Errorf("it says %q", said)
	}
	if err := a.check(); err != nil {
		t.Error(err)
	}
}
