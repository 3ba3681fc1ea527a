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

// ringSection returns a section with a ring of one token, which may be invalid.
func ringSection(a *Allocator, count, start, length uint64, owner int, version, free uint64) []byte {
	nothing := a.pools[0].ring.Select(func(ring.Token) bool { return false }).Append(nil)
	b := binary.AppendUvarint(nothing[:len(nothing)-1], count) // in place of a count of 0
	b = binary.AppendUvarint(binary.AppendUvarint(b, start), length)
	id := nodeID(owner)
	b = append(b, id[:]...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, version), free)
	return appendSection(nil, sectionRing, b)
}

// TestBadGossip: messages of a later weft, and of malicious members, are refused with a named error. The valid rest of
// the message is merged, nothing of this node's own state is lost, and nothing false is written.
func TestBadGossip(t *testing.T) {
	good := func(a *Allocator) []byte { return appendSection(nil, 77, []byte("of a later weft")) }
	for _, tt := range []struct {
		name string
		msg  func(a *Allocator) []byte
		want error
	}{
		{"a section of a later weft", good, ErrMessage},
		{"a section cut short", func(*Allocator) []byte { return []byte{sectionRing, 200, 1} }, ErrMessage},
		{"a ring of 2^40 tokens", func(a *Allocator) []byte { return ringSection(a, 1<<40, 0, 1, 1, 1, 0) }, ring.ErrEncoding},
		{"a ring of 65,537 tokens", func(a *Allocator) []byte { return ringSection(a, ring.MaxTokens+1, 0, 1, 1, 1, 0) }, ring.ErrEncoding},
		{"a token outside the range", func(a *Allocator) []byte { return ringSection(a, 1, 200, 100, 1, 1, 0) }, ring.ErrEncoding},
		{"a token that wraps around", func(a *Allocator) []byte { return ringSection(a, 1, 200, 1<<63, 1, 1, 0) }, ring.ErrEncoding},
		{"a version above the limit", func(a *Allocator) []byte { return ringSection(a, 1, 0, 16, 1, 1<<63, 0) }, ring.ErrEncoding},
		{"more free addresses than there are", func(a *Allocator) []byte { return ringSection(a, 1, 0, 16, 1, 1, 99) }, ring.ErrEncoding},
		{"states of 2^40 nodes", func(a *Allocator) []byte {
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
				t.Error("the message has changed something")
			}
			if got := a.Lookup("pod"); len(got) != 1 || got[0] != lease {
				t.Errorf("leases %+v", got)
			}
			// The valid rest of a message is merged: here a token that was granted to another node.
			rest := a.pools[0].ring.Clone()
			if _, err := rest.Grant(nodeID(0), nodeID(1), ring.Span{Start: 128, End: 256}, func(s ring.Span) uint64 { return s.Len() }); err != nil {
				t.Fatal(err)
			}
			msg := append([]byte{messageVersion}, good(a)...)
			deltas, err := merge(a, append(msg, appendSection(nil, sectionRing, rest.Append(nil))...))
			if !errors.Is(err, ErrMessage) || len(deltas) == 0 {
				t.Errorf("with a valid section behind it: %d deltas, %v", len(deltas), err)
			}
			if err := a.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFalseClaimIsCorrected: a member claims addresses that this node owns and has leased. The lease stays, this node's
// token is broadcast with a higher version, and the status names the member.
func TestFalseClaimIsCorrected(t *testing.T) {
	a, _ := lone(t, 0, "10.32.0.0/24")
	lease, err := a.Allocate(t.Context(), "pod", whole)
	if err != nil {
		t.Fatal(err)
	}
	deltas, err := merge(a, append([]byte{messageVersion}, ringSection(a, 1, 0, 256, 1, 1000, 254)...))
	if err != nil || len(deltas) == 0 {
		t.Errorf("%d deltas, %v; want this node's own token, with a higher version", len(deltas), err)
	}
	if got := a.Lookup("pod"); len(got) != 1 || got[0] != lease {
		t.Errorf("leases %+v", got)
	}
	warnings := strings.Join(sentences(a.Status()), "\n")
	if !strings.Contains(warnings, nodeID(1).String()) || !strings.Contains(warnings, "ipam.db") {
		t.Errorf("warnings %q", warnings)
	}
	if err := a.check(); err != nil {
		t.Error(err)
	}
}
