package dns

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/peer"
)

func TestRestart(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	a.now = epoch.Add(time.Hour)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Add("removed", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("removed"))
	b.receive(t, a.State())

	a = newNode(t, 1, a.saved) // with its clock set back by an hour
	wantAddrs(t, a.Registry, "web", "10.32.0.1")
	wantAddrs(t, a.Registry, "removed")
	a.Release("pod1", netip.Addr{})
	b.receive(t, a.takeSent()...)
	wantAddrs(t, b.Registry, "web")

	for _, bad := range []string{"{", `{"names":[{"name":"we_b","addr":"10.0.0.1","version":1}]}`, `{"names":[{"name":"web"}]}`} {
		if _, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Domain: testDomain, Initial: []byte(bad)}); err == nil {
			t.Errorf("started with %s", bad)
		}
	}
	for _, bad := range []RegistryConfig{
		{Domain: testDomain}, {Self: peer.ID{1}}, {Self: peer.ID{1}, Domain: "weft.local."}, {Self: peer.ID{1}, Domain: "a..b"},
		{Self: peer.ID{1}, Domain: strings.Repeat("a.", 26) + "a"},
	} {
		if _, err := NewRegistry(bad); err == nil {
			t.Errorf("started with the ID %s and the domain %q", bad.Self, bad.Domain)
		}
	}
	if _, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Domain: strings.Repeat("a.", 25) + "ab"}); err != nil {
		t.Errorf("a domain of %d bytes: %v", MaxDomain, err)
	}
}

func TestStateLost(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	a.now = epoch.Add(time.Hour)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Add("kept", "pod1", addr("10.32.0.1")))
	must(t, a.Add("removed", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("removed"))
	b.receive(t, a.State())

	a = newNode(t, 1, nil) // its state is lost, and its clock set back by an hour
	must(t, a.Add("kept", "pod2", addr("10.32.0.1")))
	must(t, a.Add("removed", "pod2", addr("10.32.0.1")))
	b.receive(t, a.receive(t, b.State())...)
	for _, r := range []*Registry{a.Registry, b.Registry} {
		wantAddrs(t, r, "web")
		wantAddrs(t, r, "kept", "10.32.0.1")
		wantAddrs(t, r, "removed", "10.32.0.1")
	}
	if sent := a.receive(t, b.State()); len(sent) > 0 {
		t.Error("the two do not agree yet")
	}
	must(t, a.Remove("kept"))
	b.receive(t, a.takeSent()...)
	wantAddrs(t, b.Registry, "kept")
}

func TestTombstonesExpire(t *testing.T) {
	a, b, c := newNode(t, 1, nil), newNode(t, 2, nil), newNode(t, 3, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	c.receive(t, a.State()) // from here on c is offline
	must(t, a.Remove("web"))
	b.receive(t, a.State())
	all := func(now time.Time) {
		a.now, b.now, c.now = now, now, now
	}

	all(epoch.Add(tombstoneAcceptAge))
	late := newNode(t, 4, nil)
	late.now = a.now
	if late.receive(t, b.State()); late.table.total != 0 {
		t.Error("a node that does not know the name accepted an old tombstone")
	}
	onTime := newNode(t, 5, nil)
	onTime.receive(t, a.State())

	all(epoch.Add(tombstoneTTL))
	if n := len(a.State()); n != 1 {
		t.Errorf("state of %d bytes, want no entries", n)
	}
	if a.table.total != 0 {
		t.Error("the tombstone has not expired")
	}
	onTime.now = a.now.Add(-time.Second) // its clock is a little late
	if b.receive(t, onTime.State()); b.table.total > 1 {
		t.Error("the tombstone is passed on in circles")
	}

	b.receive(t, c.State()) // with the name of which b has dropped the tombstone
	correction := a.receive(t, c.State())
	b.receive(t, correction...)
	c.receive(t, correction...)
	wantAddrs(t, b.Registry, "web")
	wantAddrs(t, c.Registry, "web")
}

func TestTombstoneAge(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("web"))
	a.now = epoch.Add(20 * time.Minute)
	b.now = a.now
	b.receive(t, a.State())
	e, _ := b.table.find(peer.ID{1}, key{"web", addr("10.32.0.1")})
	if age := b.now.Sub(e.At); age != 20*time.Minute {
		t.Errorf("a tombstone of 20 minutes has arrived with an age of %v", age)
	}
}

// TestMergeBroadcastsOnce: a new entry is broadcast once, with nothing locked, and a known one is not broadcast.
func TestMergeBroadcastsOnce(t *testing.T) {
	var sent [][]byte
	var r *Registry
	r, err := NewRegistry(RegistryConfig{
		Domain: testDomain,
		Self:   peer.ID{1}, Clock: fixedClock{},
		Gossip: gossipFunc(func(msg []byte) {
			sent = append(sent, msg)
			r.List() // would wait for the lock
		}),
	})
	must(t, err)
	msg := encode(entriesOf(peer.ID{2}, 3), 0, epoch)[0]
	for range 2 {
		must(t, r.Merge(msg))
	}
	if len(sent) != 1 || !bytes.Equal(sent[0], msg) {
		t.Errorf("broadcasts %x, want %x once", sent, msg)
	}
}

// TestVersionsCannotBeUsedUp: a node can change its names after a member has made up the highest version that others accept.
func TestVersionsCannotBeUsedUp(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	b.receive(t, a.State())
	highest := uint64(epoch.Add(maxAhead).UnixNano())
	forged := Entry{Node: peer.ID{1}, Name: "web", Addr: addr("10.32.0.1"), Version: highest, Removed: true, At: epoch}
	beyond := forged
	beyond.Version++
	for _, n := range []*node{a, b} {
		if err := n.Merge(encode([]Entry{beyond}, 0, epoch)[0]); !errors.Is(err, ErrMessage) {
			t.Errorf("a version beyond the bound: %v", err)
		}
		n.receive(t, encode([]Entry{forged}, 0, epoch)[0])
	}
	wantAddrs(t, b.Registry, "web")
	a.now, b.now = epoch.Add(time.Second), epoch.Add(time.Second)
	b.receive(t, a.State())
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
	must(t, a.Remove("web"))
	b.receive(t, a.State())
	wantAddrs(t, b.Registry, "web")
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	b.receive(t, a.State())
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
}
