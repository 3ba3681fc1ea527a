package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"weft/internal/peer"
)

// entriesOf returns n entries of a node.
func entriesOf(node peer.ID, n int) (entries []Entry) {
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 32, byte(i >> 8), byte(i)})
		entries = append(entries, Entry{Node: node, Name: fmt.Sprintf("n%d", i), Addr: a, Version: 1, At: epoch})
	}
	return entries
}

func TestBoundOfANode(t *testing.T) {
	n := newNode(t, 1, nil)
	other := peer.ID{2}
	err := n.Merge(encode(entriesOf(other, maxNodeEntries+10), 0, epoch)[0])
	if !errors.Is(err, ErrFull) || n.table.total != maxNodeEntries {
		t.Errorf("%d entries: %v", n.table.total, err)
	}
	if _, refused := n.counts(); refused != 10 {
		t.Errorf("%d refused, want 10", refused)
	}
	all := entriesOf(other, maxNodeEntries+1)
	removed, extra := all[0], all[maxNodeEntries]
	removed.Removed, removed.Version = true, 2
	n.receive(t, encode([]Entry{removed, extra}, 0, epoch)...)
	wantAddrs(t, n.Registry, extra.Name, extra.Addr.String())
	if err := n.Merge(encode([]Entry{removed}, 0, epoch)[0]); !errors.Is(err, ErrFull) {
		t.Errorf("a tombstone beyond the bound: %v", err)
	}
}

func TestBoundOfAll(t *testing.T) {
	n := newNode(t, 1, nil)
	for i := range maxEntries / maxNodeEntries {
		n.receive(t, encode(entriesOf(peer.ID{2, byte(i)}, maxNodeEntries), 0, epoch)...)
	}
	const share = maxEntries / (maxEntries/maxNodeEntries + 1)
	err := n.Merge(encode(entriesOf(peer.ID{3}, maxNodeEntries), 0, epoch)[0])
	if got := len(n.table.nodes[peer.ID{3}]); !errors.Is(err, ErrFull) || n.table.total != maxEntries || got < share-1 || got > share+1 {
		t.Errorf("a further node got %d of %d entries, want its share of %d: %v", got, n.table.total, share, err)
	}
	must(t, n.Add("own", "pod1", addr("10.32.0.1"))) // the entries of other nodes leave room for this node's
	wantAddrs(t, n.Registry, "own", "10.32.0.1")
}

func TestBoundOfOwn(t *testing.T) {
	n := newNode(t, 1, nil)
	var addrs []netip.Addr
	for _, e := range entriesOf(peer.ID{1}, maxNodeEntries) {
		addrs = append(addrs, e.Addr)
	}
	must(t, n.Add("web", "pod1", addrs...))
	for _, msg := range n.takeSent() {
		if len(msg) > MaxDelta {
			t.Errorf("a delta of %d bytes", len(msg))
		}
	}
	if err := n.Add("db", "pod1", addrs[0]); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	must(t, n.Remove("web"))
	must(t, n.Add("db", "pod1", addrs...))
	if n.table.total != maxNodeEntries {
		t.Errorf("%d entries", n.table.total)
	}
	lost := Entry{Node: peer.ID{1}, Name: "lost", Addr: addrs[0], Version: 1}
	if err := n.Merge(encode([]Entry{lost}, 0, epoch)[0]); !errors.Is(err, ErrFull) {
		t.Errorf("no room for a tombstone: %v", err)
	}
}

func TestBelow(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("a.b.c", "pod1", addr("10.32.0.1"), addr("10.32.0.2")))
	for name, want := range map[string]bool{"a.b.c": false, "B.c": true, "c": true, "b": false, "a": false, "": false} {
		if n.hasBelow(name) != want {
			t.Errorf("below %q: %v", name, !want)
		}
	}
	must(t, n.Remove("a.b.c"))
	if n.hasBelow("c") || len(n.table.parents)+len(n.table.byName)+len(n.table.byAddr) > 0 {
		t.Errorf("not empty: %v", n.table)
	}
}
