package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/peer"
)

// channel is a copy of mesh.Channel: this package must not import mesh.
type channel interface {
	State() []byte
	Merge(msg []byte) error
	Message(from peer.ID, msg []byte) error
}

var _ channel = (*Registry)(nil)

// failer has the methods of testing.TB and rapid.T that are needed here.
type failer interface {
	Helper()
	Fatal(args ...any)
}

// node is a registry under test, with its Store, Gossip, Membership and Clock.
type node struct {
	*Registry
	now  time.Time
	dead map[peer.ID]bool
	// outside reports nodes that are no members.
	outside func(peer.ID) bool
	saved   []byte
	sent    [][]byte
	fail    error // the result of Save
}

func (n *node) Save(state []byte) error {
	if n.fail == nil {
		n.saved = state
	}
	return n.fail
}

func (n *node) Broadcast(delta []byte) { n.sent = append(n.sent, delta) }

func (n *node) Alive(id peer.ID) bool { return !n.dead[id] }

func (n *node) Known(id peer.ID) bool { return n.outside == nil || !n.outside(id) }

func (n *node) Now() time.Time { return n.now }

// storeFunc is a Store of one function, gossipFunc a Gossip.
type (
	storeFunc  func(state []byte) error
	gossipFunc func(delta []byte)
)

func (f storeFunc) Save(state []byte) error { return f(state) }

func (f gossipFunc) Broadcast(delta []byte) { f(delta) }

// fixedClock is a Clock that stands at epoch.
type fixedClock struct{}

func (fixedClock) Now() time.Time { return epoch }

func newNode(t failer, id byte, initial []byte) *node {
	t.Helper()
	n := &node{now: epoch, dead: make(map[peer.ID]bool), saved: initial}
	r, err := NewRegistry(RegistryConfig{
		Self: peer.ID{id}, Domain: testDomain, Initial: initial, Store: n, Gossip: n, Membership: n, Clock: n,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Registry = r
	return n
}

// receive merges messages, and returns what the registry has broadcast because of them.
func (n *node) receive(t failer, messages ...[]byte) (sent [][]byte) {
	t.Helper()
	for _, msg := range messages {
		before := len(n.sent)
		if err := n.Merge(msg); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, n.sent[before:]...)
		n.sent = n.sent[:before]
	}
	return sent
}

// takeSent returns the broadcasts since its last call.
func (n *node) takeSent() [][]byte {
	sent := n.sent
	n.sent = nil
	return sent
}

func must(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantAddrs checks the addresses of a name, in any order.
func wantAddrs(t testing.TB, r *Registry, name string, want ...string) {
	t.Helper()
	var got []string
	for _, a := range r.Lookup(name) {
		got = append(got, a.String())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s is at %v, want %v", name, got, want)
	}
}

func TestAddAndRemove(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("Web", "pod1", addr("10.32.0.1"), addr("::ffff:10.32.0.2"), addr("fd00::1")))
	must(t, n.Add("db", "pod1", addr("10.32.0.1")))
	wantAddrs(t, n.Registry, "wEb", "10.32.0.1", "10.32.0.2", "fd00::1")
	if diff := cmp.Diff([]string{"db", "web"}, n.Reverse(addr("10.32.0.1"))); diff != "" {
		t.Error(diff)
	}
	n.takeSent()

	must(t, n.Add("web", "pod1", addr("10.32.0.1"), addr("10.32.0.1")))
	if sent := n.takeSent(); len(sent) > 0 {
		t.Error("a broadcast although nothing has changed")
	}

	must(t, n.Remove("web", addr("10.32.0.2")))
	wantAddrs(t, n.Registry, "web", "10.32.0.1", "fd00::1")
	must(t, n.Remove("web.weft.local"))
	wantAddrs(t, n.Registry, "web")
	wantAddrs(t, n.Registry, "db", "10.32.0.1")
	if err := n.Remove("web"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	for _, err := range []error{n.Add("we_b", "o", addr("10.32.0.1")), n.Remove("")} {
		if !errors.Is(err, ErrName) {
			t.Errorf("bad name: %v", err)
		}
	}
	for _, addrs := range [][]netip.Addr{nil, {{}}, {addr("fe80::1%eth0")}, {addr("0.0.0.0")}} {
		if n.Add("x", "o", addrs...) == nil {
			t.Errorf("added with %v", addrs)
		}
	}
}

func TestRelease(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("a", "pod1", addr("10.32.0.1"), addr("fd00::1")))
	must(t, n.Add("b", "pod1", addr("10.32.0.1")))
	must(t, n.Add("c", "pod2", addr("10.32.0.1")))
	n.Release("pod1", addr("10.32.0.1"))
	wantAddrs(t, n.Registry, "a", "fd00::1")
	wantAddrs(t, n.Registry, "b")
	wantAddrs(t, n.Registry, "c", "10.32.0.1")
	n.Release("pod1", netip.Addr{})
	n.Release("unknown", netip.Addr{})
	wantAddrs(t, n.Registry, "a")
	wantAddrs(t, n.Registry, "c", "10.32.0.1")
}

func TestOtherNodesLearnNames(t *testing.T) {
	a, b, c := newNode(t, 1, nil), newNode(t, 2, nil), newNode(t, 3, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	must(t, b.Add("web", "pod2", addr("10.32.0.2")))
	added := a.takeSent()
	if sent := b.receive(t, added...); len(sent) != 1 {
		t.Errorf("%d broadcasts, want 1", len(sent))
	}
	if sent := b.receive(t, added...); len(sent) != 0 {
		t.Errorf("received again: %d broadcasts", len(sent))
	}
	c.receive(t, b.State())
	wantAddrs(t, c.Registry, "web", "10.32.0.1", "10.32.0.2")
	for _, e := range c.List() {
		if e.Holder != "" {
			t.Errorf("the holder was sent: %+v", e)
		}
	}

	must(t, a.Remove("web"))
	removed := a.takeSent()
	c.receive(t, removed...)
	c.receive(t, added...) // late
	wantAddrs(t, c.Registry, "web", "10.32.0.2")
	if err := b.Remove("web", addr("10.32.0.1")); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed another node's: %v", err)
	}
	if err := b.Message(peer.ID{1}, removed[0]); !errors.Is(err, ErrMessage) {
		t.Errorf("a unicast: %v", err)
	}
}

func TestDeadNodesAreHidden(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	b.receive(t, a.State())
	b.dead[peer.ID{1}], b.dead[peer.ID{2}] = true, true
	must(t, b.Add("own", "pod1", addr("10.32.0.2")))
	wantAddrs(t, b.Registry, "web")
	wantAddrs(t, b.Registry, "own", "10.32.0.2")
	if names := b.Reverse(addr("10.32.0.1")); len(names) > 0 || len(b.List()) != 2 {
		t.Errorf("reverse %v, list %v", names, b.List())
	}
	delete(b.dead, peer.ID{1})
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
}

func TestForget(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	b.receive(t, a.State())
	b.dead[peer.ID{1}] = true
	b.Forget(peer.ID{1})
	b.Forget(peer.ID{2})
	b.receive(t, a.State()) // of a node that has not forgotten it
	if len(b.List()) != 0 {
		t.Errorf("forgotten, and accepted again: %v", b.List())
	}
	b.dead[peer.ID{1}] = false // it is back
	b.receive(t, a.State())
	wantAddrs(t, b.Registry, "web", "10.32.0.1")

	b.Forget(peer.ID{1})
	b.now = epoch.Add(tombstoneTTL)
	b.receive(t, b.State())
	if len(b.forgotten) != 0 {
		t.Errorf("still in the list of forgotten nodes: %v", b.forgotten)
	}
}

func TestEqualVersions(t *testing.T) {
	live := Entry{Node: peer.ID{9}, Name: "web", Addr: addr("10.32.0.1"), Version: 5, At: epoch}
	dead := live
	dead.Removed = true
	for _, order := range [][]Entry{{live, dead}, {dead, live}} {
		n := newNode(t, 1, nil)
		for _, e := range order {
			n.receive(t, encode([]Entry{e}, 0, epoch)...)
		}
		wantAddrs(t, n.Registry, "web")
	}
}

func TestSaveFails(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("web", "pod1", addr("10.32.0.1")))
	n.takeSent()
	n.fail = errors.New("disk full")
	if err := n.Add("db", "pod1", addr("10.32.0.1")); !errors.Is(err, n.fail) {
		t.Errorf("Add: %v", err)
	}
	wantAddrs(t, n.Registry, "db")
	if len(n.takeSent()) > 0 {
		t.Error("a broadcast of a name that was not saved")
	}
	if err := n.Remove("web"); !errors.Is(err, n.fail) {
		t.Errorf("Remove: %v", err)
	}
	wantAddrs(t, n.Registry, "web")

	n.fail = nil
	must(t, n.Add("web", "pod1", addr("10.32.0.1")))
	n.fail = errors.New("disk full")
	n.Release("pod1", netip.Addr{})
	wantAddrs(t, n.Registry, "web")
}

func TestReceiveWhileSaving(t *testing.T) {
	b := newNode(t, 2, nil)
	lost := Entry{Node: peer.ID{1}, Name: "web", Addr: addr("10.32.0.1"), Version: uint64(epoch.Add(time.Hour).UnixNano())}
	var a *Registry
	a, err := NewRegistry(RegistryConfig{
		Domain: testDomain,
		Self:   peer.ID{1}, Clock: fixedClock{},
		Store: storeFunc(func([]byte) error {
			return a.Merge(encode([]Entry{lost}, 0, epoch)[0]) // makes a tombstone
		}),
	})
	must(t, err)
	must(t, a.Add("web", "pod1", addr("10.32.0.1")))
	b.receive(t, a.State())
	wantAddrs(t, a, "web", "10.32.0.1")
	wantAddrs(t, b.Registry, "web", "10.32.0.1")
}

func TestSavedForm(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("web", "pod1", addr("10.32.0.1")))
	var got map[string]any
	must(t, json.Unmarshal(n.saved, &got))
	version := float64(epoch.UnixNano())
	want := map[string]any{"last": version, "names": []any{
		map[string]any{"name": "web", "addr": "10.32.0.1", "owner": "pod1", "version": version},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
}

func TestLookupShuffles(t *testing.T) {
	n := newNode(t, 1, nil)
	must(t, n.Add("web", "pod1", addr("10.32.0.1"), addr("10.32.0.2"), addr("10.32.0.3")))
	seen := make(map[string]bool)
	for range 1000 {
		seen[strings.Trim(fmt.Sprint(n.Lookup("web")), "[]")] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d orders of three addresses, want 6", len(seen))
	}
}
