package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weft/internal/peer"
)

// wantWithdrawn fails unless the names that a registry has withdrawn are want, each "NAME HOLDER".
func wantWithdrawn(t *testing.T, n *node, want ...string) {
	t.Helper()
	var got []string
	for _, e := range n.Own() {
		if e.Withdrawn {
			got = append(got, e.Name+" "+e.Holder)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("withdrawn: %v, want %v", got, want)
	}
}

// TestWithdraw: no node answers names that are withdrawn. They come back with their holder, after a restart too, and end as other names.
func TestWithdraw(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	for _, name := range []string{"web", "db", "old"} {
		must(t, a.Add(name, "pod1", addr("10.32.0.1")))
	}
	must(t, a.Add("web", "pod2", addr("10.32.0.2")))
	a.Withdraw("pod1")
	a.Withdraw("unknown")
	must(t, a.Restore("unknown"))
	b.receive(t, a.takeSent()...)
	for _, n := range []*node{a, b} {
		wantAddrs(t, n.Registry, "web", "10.32.0.2")
		wantAddrs(t, n.Registry, "db")
	}
	if len(a.List()) != 1 || len(a.Own()) != 4 || len(a.Reverse(addr("10.32.0.1"))) != 0 {
		t.Errorf("listed: %v", a.List())
	}
	wantWithdrawn(t, a, "db pod1", "old pod1", "web pod1")
	wantWithdrawn(t, b)

	must(t, a.Remove("old")) // as names that are answered
	if err := a.Remove("old"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	a = newNode(t, 1, a.saved)
	a.now = epoch.Add(time.Hour)
	wantWithdrawn(t, a, "db pod1", "web pod1")
	must(t, a.Restore("pod1"))
	wantWithdrawn(t, a)
	b.now = a.now
	b.receive(t, a.takeSent()...)
	wantAddrs(t, b.Registry, "web", "10.32.0.1", "10.32.0.2")

	a.Withdraw("pod1")
	must(t, a.Add("db", "pod3", addr("10.32.0.1"))) // another holder has it now
	a.Release("pod1", netip.Addr{})
	must(t, a.Restore("pod1"))
	wantAddrs(t, a.Registry, "db", "10.32.0.1")
	wantAddrs(t, a.Registry, "web", "10.32.0.2")
	wantWithdrawn(t, newNode(t, 1, a.saved))
}

// TestWithdrawnNamesOutlastTombstones: a name can come back however long ago it was withdrawn, and does not come back without its holder,
// as from a node that was away.
func TestWithdrawnNamesOutlastTombstones(t *testing.T) {
	a, b, away := newNode(t, 1, nil), newNode(t, 2, nil), newNode(t, 3, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	away.receive(t, a.State())
	a.Withdraw("pod1")
	b.receive(t, a.State())
	for _, n := range []*node{a, b, away} {
		n.now = epoch.Add(tombstoneTTL + expirePause)
	}
	if n := len(a.State()) + len(b.State()); n != 2 {
		t.Errorf("states of %d bytes, want no entries", n)
	}
	b.receive(t, away.State())
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
	correction := a.receive(t, away.State())
	b.receive(t, correction...)
	away.receive(t, correction...)
	wantAddrs(t, b.Registry, "web")
	wantAddrs(t, away.Registry, "web")
	if sent := a.receive(t, away.State()); len(sent) > 0 {
		t.Error("the nodes do not agree yet")
	}
	wantWithdrawn(t, a, "web pod1")
	a.takeSent()
	must(t, a.Restore("pod1"))
	b.receive(t, a.takeSent()...)
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
}

// TestWithdrawIsBounded: names that are withdrawn have their room kept, and tombstones of others are dropped before them.
func TestWithdrawIsBounded(t *testing.T) {
	a := newNode(t, 1, nil)
	var addrs []netip.Addr
	for i := range maxNodeEntries {
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, 33, byte(i >> 8), byte(i)}))
	}
	must(t, a.Add("web", "pod1", addrs...))
	a.Withdraw("pod1")
	if err := a.Add("db", "pod2", addr("10.32.0.1")); !errors.Is(err, ErrFull) {
		t.Errorf("added beyond the bound: %v", err)
	}
	must(t, a.Remove("web", addrs[0]))
	must(t, a.Add("db", "pod2", addr("10.32.0.1"))) // in place of the tombstone
	must(t, a.Restore("pod1"))
	if n := len(a.List()); n != maxNodeEntries || a.table.total != maxNodeEntries {
		t.Errorf("%d names and %d entries, want %d", n, a.table.total, maxNodeEntries)
	}
	if _, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Domain: testDomain, Initial: a.saved}); err != nil {
		t.Error(err)
	}
}

// TestWithdrawIsNotSaved: a name is withdrawn although it cannot be saved, as its holder is gone. It comes back only once that is saved.
func TestWithdrawIsNotSaved(t *testing.T) {
	a := newNode(t, 1, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	a.fail = errors.New("disk full")
	a.Withdraw("pod1")
	wantAddrs(t, a.Registry, "web")
	if err := a.Restore("pod1"); !errors.Is(err, a.fail) {
		t.Errorf("Restore: %v", err)
	}
	wantAddrs(t, a.Registry, "web")
	a.fail = nil
	must(t, a.Restore("pod1"))
	wantAddrs(t, a.Registry, "web", "10.32.0.1")
}
