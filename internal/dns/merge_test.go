package dns

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"weft/internal/peer"
)

func TestRestart(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	a.now = epoch.Add(time.Hour)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Add("gone", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("gone"))
	b.hears(t, a.State())

	a = newNode(t, 1, a.saved) // with its clock an hour back
	wantAddrs(t, a.Registry, "web", "10.32.0.1")
	wantAddrs(t, a.Registry, "gone")
	a.Release("pod1", netip.Addr{})
	b.hears(t, a.takeTold()...)
	wantAddrs(t, b.Registry, "web")

	for _, bad := range []string{"{", `{"names":[{"name":"we_b","addr":"10.0.0.1","version":1}]}`, `{"names":[{"name":"web"}]}`} {
		if _, err := NewRegistry(RegistryConfig{Self: peer.ID{1}, Initial: []byte(bad)}); err == nil {
			t.Errorf("started with %s", bad)
		}
	}
	if _, err := NewRegistry(RegistryConfig{}); err == nil {
		t.Error("started without an ID")
	}
}

func TestStateLost(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	a.now = epoch.Add(time.Hour)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Add("kept", "pod1", addr("10.32.0.1")))
	must(t, a.Add("removed", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("removed"))
	b.hears(t, a.State())

	a = newNode(t, 1, nil) // all is lost, and the clock an hour back
	must(t, a.Add("kept", "pod2", addr("10.32.0.1")))
	must(t, a.Add("removed", "pod2", addr("10.32.0.1")))
	b.hears(t, a.hears(t, b.State())...)
	for _, r := range []*Registry{a.Registry, b.Registry} {
		wantAddrs(t, r, "web")
		wantAddrs(t, r, "kept", "10.32.0.1")
		wantAddrs(t, r, "removed", "10.32.0.1")
	}
	if news := a.hears(t, b.State()); len(news) > 0 {
		t.Error("the two do not agree yet")
	}
	must(t, a.Remove("kept"))
	b.hears(t, a.takeTold()...)
	wantAddrs(t, b.Registry, "kept")
}

func TestTombstonesEnd(t *testing.T) {
	a, b, c := newNode(t, 1, nil), newNode(t, 2, nil), newNode(t, 3, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	c.hears(t, a.State()) // and then it is away
	must(t, a.Remove("web"))
	b.hears(t, a.State())
	all := func(now time.Time) {
		a.now, b.now, c.now = now, now, now
	}

	all(epoch.Add(takeRemoved))
	late := newNode(t, 4, nil)
	late.now = a.now
	if late.hears(t, b.State()); late.table.total != 0 {
		t.Error("an old tombstone was taken by who knows nothing of the name")
	}
	onTime := newNode(t, 5, nil)
	onTime.hears(t, a.State())

	all(epoch.Add(keepRemoved))
	if n := len(a.State()); n != 1 {
		t.Errorf("state of %d bytes, want no entries", n)
	}
	if a.table.total != 0 {
		t.Error("the tombstone is still there")
	}
	onTime.now = a.now.Add(-time.Second) // a little late
	if b.hears(t, onTime.State()); b.table.total > 1 {
		t.Error("the tombstone goes in circles")
	}

	b.hears(t, c.State()) // with the name that b has dropped the tombstone of
	answer := a.hears(t, c.State())
	b.hears(t, answer...)
	c.hears(t, answer...)
	wantAddrs(t, b.Registry, "web")
	wantAddrs(t, c.Registry, "web")
}

func TestTombstoneAge(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, a.Remove("web"))
	a.now = epoch.Add(20 * time.Minute)
	b.now = a.now
	b.hears(t, a.State())
	e, _ := b.table.find(peer.ID{1}, key{"web", addr("10.32.0.1")})
	if age := b.now.Sub(e.At); age != 20*time.Minute {
		t.Errorf("a tombstone of 20 minutes is heard as %v old", age)
	}
}

// TestMergeBroadcastsOnce: what is new is broadcast once, with nothing locked, and what is known is not broadcast.
func TestMergeBroadcastsOnce(t *testing.T) {
	var sent [][]byte
	var r *Registry
	r, err := NewRegistry(RegistryConfig{
		Self: peer.ID{1}, Now: func() time.Time { return epoch },
		Broadcast: func(msg []byte) {
			sent = append(sent, msg)
			r.List() // would wait for the lock
		},
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
