package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/internal/target"
	"weft/mesh/addressbook"
	"weft/mesh/metadata"
)

// node is a mesh under test, with what its channel has received.
type node struct {
	*Mesh
	transport *transport
	stop      context.CancelFunc
	done      chan struct{}
	err       error // valid once done is closed

	mu       sync.Mutex
	heard    map[string]bool // guarded by mu: from broadcasts and states
	messages []string        // guarded by mu: unicasts
}

func (n *node) State() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for s := range n.heard {
		all = append(all, s)
	}
	return []byte(strings.Join(all, ","))
}

func (n *node) Merge(msg []byte) error {
	if string(msg) == "bad" {
		return errors.New("bad message")
	}
	var errs []error
	for s := range strings.SplitSeq(string(msg), ",") {
		n.mu.Lock()
		isNew := s != "" && !n.heard[s]
		if isNew {
			n.heard[s] = true
		}
		n.mu.Unlock()
		if isNew {
			errs = append(errs, n.Sender(ChannelIPAM).Broadcast([]byte(s)))
		}
	}
	return errors.Join(errs...)
}

func (n *node) Message(from peer.ID, msg []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, fmt.Sprintf("%s: %s", from, msg))
	return nil
}

func (n *node) knows(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard[s]
}

// start runs a node until the test ends or stop is called.
func start(t *testing.T, net *network, name string, id Identity, peers ...*node) *node {
	t.Helper()
	return startWith(t, net, name, id, func(*Config) {}, peers...)
}

// startWith is start with a configuration that change modifies.
func startWith(t *testing.T, net *network, name string, id Identity, change func(*Config), peers ...*node) *node {
	t.Helper()
	return startChanged(t, net, name, id, change, func(*Mesh) {}, peers...)
}

// startChanged is startWith with a mesh that changeMesh modifies before it runs.
func startChanged(
	t *testing.T, net *network, name string, id Identity, change func(*Config), changeMesh func(*Mesh), peers ...*node,
) *node {
	t.Helper()
	targets, err := addressbook.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{transport: net.transport(t), done: make(chan struct{}), heard: make(map[string]bool)}
	cfg := Config{
		Identity: id, Name: name, Transport: n.transport, Advertise: n.transport.addr, DataPort: 6784,
		Targets: targets, Discovery: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", name),
	}
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, target.Target{Host: p.transport.addr.Addr().String(), Port: p.transport.addr.Port()})
	}
	change(&cfg)
	if n.Mesh, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	changeMesh(n.Mesh)
	n.Register(ChannelIPAM, n)
	ctx, cancel := context.WithCancel(t.Context())
	n.stop = func() {
		net.setCut(n.transport.addr, true)
		cancel()
		<-n.done
	}
	go func() {
		defer close(n.done)
		n.err = n.Run(ctx)
	}()
	t.Cleanup(n.stop)
	return n
}

func nodeIdentity(t *testing.T) Identity {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// eventually waits up to a minute of the bubble's time until holds returns true.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 600 {
		if holds() {
			return
		}
		time.Sleep(100 * time.Millisecond) // of the bubble's clock: it takes no time
		synctest.Wait()
	}
	t.Fatalf("not within a minute: %s", what)
}

// sees reports whether n knows other in the given state.
func (n *node) sees(other *node, state State) bool {
	return slices.ContainsFunc(n.Members(), func(m Member) bool {
		return m.ID == other.cfg.Identity.ID && m.State == state && m.Name == other.cfg.Name
	})
}

func TestThreeNodesJoinAndGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		c := start(t, &net, "c", nodeIdentity(t), a)
		all := []*node{a, b, c}
		eventually(t, "every node knows every node", func() bool {
			for _, x := range all {
				for _, y := range all {
					if !x.sees(y, StateAlive) {
						return false
					}
				}
			}
			return true
		})
		<-b.Joined()

		if err := b.Sender(ChannelIPAM).Broadcast([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the broadcast arrived", func() bool { return a.knows("hello") && c.knows("hello") })

		if err := b.Sender(ChannelIPAM).Unicast(c.cfg.Identity.ID, []byte("psst")); err != nil {
			t.Fatal(err)
		}
		want := b.cfg.Identity.ID.String() + ": psst"
		eventually(t, "the unicast arrived", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return slices.Contains(c.messages, want)
		})

		d := start(t, &net, "d", nodeIdentity(t), c)
		eventually(t, "a late node has the full state", func() bool { return d.knows("hello") })
		stopAll(append(all, d)...)
	})
}

func TestDeadLeftAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		c := start(t, &net, "c", nodeIdentity(t), a)
		eventually(t, "a sees both", func() bool { return a.sees(b, StateAlive) && a.sees(c, StateAlive) })

		net.setCut(b.transport.addr, true)
		eventually(t, "a cut-off node is dead", func() bool { return a.sees(b, StateDead) && c.sees(b, StateDead) })
		time.Sleep(5 * time.Minute) // memberlist has given up by then
		net.setCut(b.transport.addr, false)
		eventually(t, "a cut-off node is found again", func() bool { return a.sees(b, StateAlive) && b.sees(c, StateAlive) })

		if err := c.Leave(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a node that leaves has left for the others", func() bool { return a.sees(c, StateLeft) && b.sees(c, StateLeft) })
		stopAll(a, b, c)
	})
}

// TestLeaveBesideNewMetadata: a node leaves while new metadata is on its way, as that its kernel path has ended. The others know that it
// has left.
func TestLeaveBesideNewMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		eventually(t, "a sees b", func() bool { return a.sees(b, StateAlive) })
		time.Sleep(time.Minute)
		b.SetVNI(77)
		if err := b.Leave(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "b has left", func() bool { return !a.sees(b, StateAlive) })
		if !a.sees(b, StateLeft) {
			t.Error("b is dead for a")
		}
		stopAll(a, b)
	})
}

func TestSecondNodeWithOneKeyGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		id := nodeIdentity(t)
		first := start(t, &net, "first", id)
		other := start(t, &net, "other", nodeIdentity(t), first)
		eventually(t, "the two nodes know each other", func() bool { return other.sees(first, StateAlive) })
		time.Sleep(time.Second)

		clone := start(t, &net, "clone", id, other)
		<-clone.done
		if !errors.Is(clone.err, ErrDuplicateKey) {
			t.Errorf("the clone's Run = %v, want ErrDuplicateKey", clone.err)
		}
		if !strings.Contains(clone.err.Error(), first.transport.addr.Addr().String()) {
			t.Errorf("error %q does not name the address of the first node", clone.err)
		}
		select {
		case <-first.done:
			t.Errorf("the first node stopped as well: %v", first.err)
		default:
		}
		stopAll(first, other)
	})
}

func TestNodeReturnsAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		id := nodeIdentity(t)
		a := start(t, &net, "a", nodeIdentity(t))
		old := start(t, &net, "b", id, a)
		eventually(t, "the two nodes know each other", func() bool { return a.sees(old, StateAlive) })
		old.stop()
		again := start(t, &net, "b", id, a)
		eventually(t, "the new address is known", func() bool {
			m, _ := a.roster.lookup(id.ID)
			return m.State == StateAlive && m.GossipAddr() == again.transport.addr
		})
		stopAll(a, again)
	})
}

// TestNodeAdvertisesAnotherAddress restarts a node with another address while the old one still reaches it: no node may
// keep the old one.
func TestNodeAdvertisesAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		id := nodeIdentity(t)
		a := start(t, &net, "a", nodeIdentity(t))
		old := start(t, &net, "b", id, a)
		eventually(t, "the two nodes know each other", func() bool { return a.sees(old, StateAlive) })
		old.stop()
		again := start(t, &net, "b", id, a)
		net.alias(old.transport.addr, again.transport.addr)
		eventually(t, "the new address is known", func() bool {
			m, _ := a.roster.lookup(id.ID)
			return m.State == StateAlive && m.GossipAddr() == again.transport.addr
		})
		time.Sleep(time.Minute) // the old address is dead by now
		if !a.sees(again, StateAlive) || len(a.Members()) != 2 || len(again.Members()) != 2 {
			t.Errorf("members %v and %v", a.Members(), again.Members())
		}
		stopAll(a, again)
	})
}

func TestConnectAndDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t))
		to := target.Target{Host: a.transport.addr.Addr().String(), Port: a.transport.addr.Port()}
		time.Sleep(time.Second)
		if err := b.Connect([]target.Target{to}, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "connected", func() bool { return b.sees(a, StateAlive) })
		if got := b.cfg.Targets.List(); !slices.Equal(got, []string{to.String()}) {
			t.Errorf("saved targets %v", got)
		}
		unused := target.Target{Host: "127.0.0.1", Port: 9}
		if err := b.Connect([]target.Target{unused}, true); err != nil {
			t.Fatal(err)
		}
		eventually(t, "only the new target is dialed, without success", func() bool {
			s := b.TargetStatus()
			return len(s) == 1 && s[0].Target == unused && s[0].Err != nil
		})
		if err := b.Disconnect([]target.Target{unused}); err != nil {
			t.Fatal(err)
		}
		if got := b.cfg.Targets.List(); len(got) != 0 {
			t.Errorf("targets %v after Disconnect", got)
		}
		stopAll(a, b)
	})
}

func TestGarbageIsCounted(t *testing.T) {
	m, err := New(Config{Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr})
	if err != nil {
		t.Fatal(err)
	}
	d := delegate{m}
	for _, msg := range [][]byte{nil, {}, {1}, {2}, {2, 1, 2}, {3}, {9, 9}, {1, 77, 1}, make([]byte, 40)} {
		d.NotifyMsg(msg)
		d.MergeRemoteState(msg, true)
	}
	if got := m.drops.malformed.Load() + m.drops.unknownKind.Load(); got < 9 {
		t.Errorf("%d messages counted as garbage", got)
	}
	if r := m.Rejected(); r.Count < 9 || r.Err == nil {
		t.Errorf("%+v", r)
	}
}

// TestNewerNodeIsRefusedByName: a node without a common protocol version is refused, and the error names it.
func TestNewerNodeIsRefusedByName(t *testing.T) {
	m, err := New(Config{Identity: nodeIdentity(t), Transport: (&network{}).transport(t), Advertise: unusedAddr})
	if err != nil {
		t.Fatal(err)
	}
	newer := nodeIdentity(t)
	md := metadata.Node{
		DataPort: 6784, ProtoMin: metadata.ProtocolMax + 1, ProtoMax: metadata.ProtocolMax + 9,
		Started: time.Now(), Public: newer.Public, Name: "newer",
	}
	n := &memberlist.Node{
		Name: nodeName(newer.ID, unusedAddr), Addr: unusedAddr.Addr().AsSlice(), Port: unusedAddr.Port(), Meta: md.Encode(),
	}
	if err := m.roster.NotifyAlive(n); err == nil {
		t.Error("it was admitted")
	}
	r := m.Rejected()
	if r.Count != 1 || !strings.Contains(fmt.Sprint(r.Err), newer.ID.String()) || !strings.Contains(fmt.Sprint(r.Err), "upgrade") {
		t.Errorf("%+v", r)
	}
	if len(m.Members()) > 0 {
		t.Errorf("members %+v", m.Members())
	}
}

// stopAll stops nodes, and waits for the probes that memberlist does not cancel.
func stopAll(nodes ...*node) {
	for _, n := range nodes {
		n.stop()
	}
	time.Sleep(time.Minute) // of the bubble's clock
}

// TestMergeForwardsNothing: the mesh leaves it to the channel to broadcast what was new, so that each message is queued once.
func TestMergeForwardsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		eventually(t, "both know each other", func() bool { return a.sees(b, StateAlive) && b.sees(a, StateAlive) })
		eventually(t, "nothing is queued", func() bool { return a.queue.Len() == 0 })
		for _, msg := range []string{"new", "new", "bad"} {
			a.merge(ChannelIPAM, []byte(msg))
			if n := a.queue.Len(); n != 1 {
				t.Errorf("after %q: %d broadcasts are queued, want 1", msg, n)
			}
		}
		eventually(t, "the broadcast arrived", func() bool { return b.knows("new") })
		stopAll(a, b)
	})
}
