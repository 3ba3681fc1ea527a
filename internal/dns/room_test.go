package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"weft/internal/peer"
)

// madeUp reports whether a node of these tests is made up: gossip has its entries, and it is no member.
func madeUp(id peer.ID) bool { return id[0] == 0xbb }

// flood returns entries of n made-up nodes, as many as a node may have of each.
func flood(n int) (messages [][]byte) {
	for i := range n {
		entries := entriesOf(peer.ID{0xbb, byte(i >> 8), byte(i)}, maxNodeEntries)
		messages = append(messages, encode(entries, 0, epoch)[0])
	}
	return messages
}

// TestMadeUpNodesDisplaceNoName: entries of nodes that are no members take a small part of the table, are not passed on, and
// expire; those of members find room, also when members came after them.
func TestMadeUpNodesDisplaceNoName(t *testing.T) {
	n := newNode(t, 1, nil)
	n.outside = madeUp
	before := heap()
	for _, msg := range flood(16) {
		_ = n.Merge(msg)
	}
	if grown := heap() - before; n.table.total != maxNonMember || grown > 16<<20 {
		t.Errorf("%d entries of non-members, %d KiB, want %d and at most 16 MiB", n.table.total, grown>>10, maxNonMember)
	}
	if sent := n.takeSent(); len(sent) > 0 || len(n.State()) != 1 {
		t.Errorf("%d broadcasts and a state of %d bytes with entries of non-members", len(sent), len(n.State()))
	}
	for i := range maxEntries / maxNodeEntries { // real members fill the rest, and take the places of the non-members
		n.receive(t, encode(entriesOf(peer.ID{2, byte(i)}, maxNodeEntries), 0, epoch)...)
	}
	if n.table.total != maxEntries || n.table.outside != 0 || len(n.table.nonMembers) != 0 {
		t.Errorf("%d entries, %d of %d non-members", n.table.total, n.table.outside, len(n.table.nonMembers))
	}
	if err := n.Merge(flood(1)[0]); !errors.Is(err, ErrFull) || len(n.table.nonMembers) != 0 {
		t.Errorf("a non-member in a full table: %v", err)
	}
	n.receive(t, encode(entriesOf(peer.ID{3}, 1), 0, epoch)...)
}

// TestNonMembersExpire: the entries of a node that does not become a member within nonMemberTTL are dropped; those of one that
// does become one stay, and are passed on from then on.
func TestNonMembersExpire(t *testing.T) {
	n := newNode(t, 1, nil)
	n.outside = madeUp
	for _, msg := range flood(2) {
		_ = n.Merge(msg)
	}
	n.outside = func(id peer.ID) bool { return madeUp(id) && id[2] != 0 }
	n.now = n.now.Add(nonMemberTTL)
	n.receive(t, encode(entriesOf(peer.ID{2}, 1), 0, n.now)...)
	if n.table.total != maxNodeEntries+1 || n.table.outside != 0 {
		t.Errorf("%d entries, %d of non-members, want those of the members", n.table.total, n.table.outside)
	}
	if len(n.State()) < maxNodeEntries*8 {
		t.Errorf("a state of %d bytes, without the new member", len(n.State()))
	}
}

// TestManyNonMembersWithoutRoom: refused entries leave nothing behind, however many nodes are made up for them.
func TestManyNonMembersWithoutRoom(t *testing.T) {
	n := newNode(t, 1, nil)
	n.outside = madeUp
	for _, msg := range flood(2) {
		_ = n.Merge(msg)
	}
	before := heap()
	for i := range 100_000 {
		id := peer.ID{0xbb, 0xff}
		binary.BigEndian.PutUint32(id[2:], uint32(i))
		e := Entry{Node: id, Name: fmt.Sprint("n", i), Addr: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Version: 1, At: epoch}
		if err := n.Merge(encode([]Entry{e}, 0, epoch)[0]); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > 1<<20 || len(n.table.nonMembers) > 2 {
		t.Errorf("%d KiB for refused entries, %d non-members", grown>>10, len(n.table.nonMembers))
	}
}

// TestFullTablesSettle: two nodes with full tables and different entries have nothing to send each other after a few exchanges.
func TestFullTablesSettle(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	for i := range maxEntries/maxNodeEntries + 4 {
		for _, to := range []*node{a, b} {
			if to == a || i%3 > 0 {
				_ = to.Merge(encode(entriesOf(peer.ID{3, byte(i)}, maxNodeEntries), 0, epoch)[0])
			}
		}
	}
	for round := range 10 {
		a.takeSent()
		b.takeSent()
		_, _ = a.Merge(b.State()), b.Merge(a.State())
		if len(a.takeSent())+len(b.takeSent()) == 0 {
			return
		}
		if round == 9 {
			t.Error("they still send each other entries")
		}
	}
}

// heap returns the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
