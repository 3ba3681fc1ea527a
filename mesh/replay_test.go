package mesh

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/mesh/freshness"
	"weft/mesh/seal"
)

func withKeys(names string) func(*Config) {
	return func(c *Config) { c.Keys = testKeys(names) }
}

// awaitAt waits until n sees the node at its present address.
func awaitAt(t *testing.T, n, other *node) {
	t.Helper()
	eventually(t, "the node is known at its address", func() bool { return n.seesAt(other) })
}

// TestReplayedStreamsEndNothing is the attack on a node that has moved: all streams and packets of its life, also those to its
// former address, are recorded by a host that has no secret, and sent again after a restart. No node ends, and none learns a thing.
func TestReplayedStreamsEndNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		id := nodeIdentity(t)
		nw.record()
		z := startWith(t, &nw, "z", nodeIdentity(t), withKeys("a"))
		first := startWith(t, &nw, "x", id, withKeys("a"), z)
		eventually(t, "they met", func() bool { return z.sees(first, StateAlive) })
		first.stop()
		tap := nw.transport(t) // takes the packets to the old address, and answers no stream
		nw.mu.Lock()
		nw.nodes[first.transport.addr.String()] = tap
		delete(nw.cut, first.transport.addr.String())
		nw.mu.Unlock()
		second := startWith(t, &nw, "x", id, withKeys("a"), z) // at another address
		awaitAt(t, z, second)
		if err := z.Sender(ChannelIPAM).Unicast(id.ID, []byte("once")); err != nil {
			t.Fatal(err)
		}
		if err := z.Sender(ChannelIPAM).Broadcast([]byte("old news")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both arrive", func() bool { return second.knows("old news") && second.unicasts() == 1 })
		time.Sleep(10 * time.Second)
		packets, streams := nw.recordings()
		second.stop()
		if err := tap.Shutdown(); err != nil {
			t.Fatal(err)
		}
		third := startWith(t, &nw, "x", id, withKeys("a"), z)
		awaitAt(t, z, third)
		time.Sleep(time.Minute)
		for _, n := range []*node{third, z} {
			n.mu.Lock()
			clear(n.heard)
			n.messages = nil
			n.mu.Unlock()
		}
		t.Logf("%d packets, %d directions of streams", len(packets), len(streams))
		if len(packets) < 20 || len(streams) < 8 {
			t.Fatal("too little was recorded")
		}
		for _, n := range []*node{third, z} {
			for _, s := range streams {
				replay(n, s)
			}
			for _, p := range packets {
				n.transport.inject(p)
				synctest.Wait()
			}
		}
		time.Sleep(10 * time.Second)
		for _, n := range []*node{third, z} {
			select {
			case <-n.done:
				t.Fatalf("%s has ended: %v", n.cfg.Name, n.err)
			default:
			}
		}
		for _, n := range []*node{third, z} {
			if n.knows("old news") || n.unicasts() > 0 {
				t.Errorf("a recorded message was delivered to %s", n.cfg.Name)
			}
		}
		if !z.seesAt(third) || !third.sees(z, StateAlive) || len(z.Members()) != 2 {
			t.Errorf("members %v and %v", z.Members(), third.Members())
		}
		stopAll(z, third)
	})
}

func (n *node) unicasts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.messages)
}

// replay sends recorded bytes to a node on a new stream, and reads what it answers.
func replay(n *node, b []byte) {
	c := n.transport.dialAs()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_, _ = c.Write(b)
	_ = c.Close()
	synctest.Wait()
}

// TestRestartedReceiverRefusesOldPackets: the window of a node that was restarted is empty. Packets of a living instance that
// its earlier run has received are refused nevertheless, also at once after the restart.
func TestRestartedReceiverRefusesOldPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		id := nodeIdentity(t)
		z := startWith(t, &nw, "z", nodeIdentity(t), withKeys("a"))
		first := startWith(t, &nw, "x", id, withKeys("a"), z)
		eventually(t, "they met", func() bool { return z.sees(first, StateAlive) && first.sees(z, StateAlive) })
		nw.record()
		if err := z.Sender(ChannelIPAM).Broadcast([]byte("old news")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it arrives", func() bool { return first.knows("old news") })
		time.Sleep(time.Second)
		packets, _ := nw.recordings()
		addr := first.transport.addr
		first.stop()
		z.mu.Lock()
		clear(z.heard) // the state of the channel is not to bring it back
		z.mu.Unlock()
		again := startWith(t, &nw, "x", id, withKeys("a"), z)
		nw.rename(again.transport.addr, addr)
		for range 30 {
			for _, p := range packets {
				again.transport.inject(p)
			}
			time.Sleep(200 * time.Millisecond)
		}
		awaitAt(t, z, again)
		if again.knows("old news") {
			t.Error("a packet that the run before had received is delivered again")
		}
		if again.drops.replayed.Load() == 0 {
			t.Error("nothing is counted as replayed")
		}
		stopAll(z, again)
	})
}

// TestClocksMayDiffer: wall clocks that differ by hours, and jump, neither cut a node off nor open it to recordings.
func TestClocksMayDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		var all []*node
		for i, skew := range []time.Duration{0, -7 * time.Hour, 26 * time.Hour} {
			m := startSkewed(t, &nw, string(rune('a'+i)), skew, all...)
			all = append(all, m)
		}
		awaitFullMesh(t, all)
		staysFullMesh(t, all, 2*time.Minute)
		if err := all[1].Sender(ChannelIPAM).Broadcast([]byte("news")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it arrives", func() bool { return all[0].knows("news") && all[2].knows("news") })
		for _, n := range all {
			if n.drops.unproven.Load() > 4 {
				t.Errorf("%s has lost %d packets", n.cfg.Name, n.drops.unproven.Load())
			}
		}
		stopAll(all...)
	})
}

// startSkewed starts a node with a wall clock that is wrong by skew.
func startSkewed(t *testing.T, nw *network, name string, skew time.Duration, peers ...*node) *node {
	t.Helper()
	return startChanged(t, nw, name, nodeIdentity(t), withKeys("a"), func(m *Mesh) {
		m.started = m.started.Round(0).Add(skew)
		m.at.Store(&place{m.at.Load().addr, m.started})
	}, peers...)
}

// TestMemberEndsNoOther: a node that has the secret and another key ends no other one: neither by messages of earlier versions, nor
// by a stream, and it can neither send in the name of another node nor over packets.
func TestMemberEndsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		victim := startWith(t, &nw, "victim", nodeIdentity(t), withKeys("a"))
		evil := startWith(t, &nw, "evil", nodeIdentity(t), withKeys("a"), victim)
		eventually(t, "they met", func() bool { return evil.sees(victim, StateAlive) && victim.sees(evil, StateAlive) })
		id := victim.cfg.Identity.ID
		instance := append([]byte{3}, id[:]...) // an instance message of 2026: started 1970
		instance = binary.BigEndian.AppendUint64(instance, 1)
		instance = append(binary.BigEndian.AppendUint64(instance, 42), 1, 0, 1, 192, 0, 2, 1)
		forged := append([]byte{byte(kindUnicast), byte(ChannelIPAM)}, id[:]...) // from the victim itself
		forged = append(append(forged, id[:]...), "forged"...)
		own := append([]byte{byte(kindUnicast), byte(ChannelIPAM)}, evil.cfg.Identity.ID[:]...)
		own = append(append(own, id[:]...), "by packet"...)
		for _, msg := range [][]byte{instance, forged} {
			if err := evil.enqueue(outgoing{id: id, to: victim.transport.addr, msg: msg}); err != nil {
				t.Fatal(err)
			}
		}
		for _, msg := range [][]byte{instance, forged, own} { // memberlist's type of user messages is 8
			if _, err := evil.Mesh.transport.sendPacket(seal.Packet, append([]byte{8}, msg...), id, victim.transport.addr.String()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		select {
		case <-victim.done:
			t.Fatalf("it has ended: %v", victim.err)
		default:
		}
		if victim.unicasts() > 0 {
			t.Errorf("delivered: %v", victim.messages)
		}
		if d := &victim.drops; d.misdirected.Load() < 3 || d.unknownKind.Load() < 2 {
			t.Errorf("%d misdirected, %d unknown", d.misdirected.Load(), d.unknownKind.Load())
		}
		stopAll(victim, evil)
	})
}

// TestNoSecretHolderPanics: what memberlist cannot take is dropped before it: packets and streams without content, and what
// made memberlist panic under its own seal.
func TestNoSecretHolderPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		n := startWith(t, &nw, "x", nodeIdentity(t), withKeys("a"))
		evil := startWith(t, &nw, "evil", nodeIdentity(t), withKeys("a"), n)
		eventually(t, "they met", func() bool { return n.sees(evil, StateAlive) })
		plain := make([]byte, 16)
		plain[15] = 255 // more padding than the message has
		for _, body := range [][]byte{{}, plain, {10, 0, 0, 0, 0}, {7}, {9}} {
			if _, err := evil.Mesh.transport.sendPacket(seal.Packet, body, n.cfg.Identity.ID, n.transport.addr.String()); err != nil {
				t.Fatal(err)
			}
			s, err := evil.Mesh.transport.openStream(n.transport.addr.String(), n.cfg.Identity.ID, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_ = s.session.WriteMessage(s.Conn, seal.Memberlist, body)
			time.Sleep(time.Second)
			_ = s.Close()
		}
		if n.drops.malformed.Load() < 2 {
			t.Errorf("%d messages counted as malformed", n.drops.malformed.Load())
		}
		if !n.sees(evil, StateAlive) {
			t.Error("it lives no more")
		}
		stopAll(n, evil)
	})
}

// TestCredentials: a node with the secret that shows the wrong credentials is refused by both ends, and the reason is
// reported.
func TestCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		show := func(what, want string) func(*Config) {
			return func(c *Config) { c.Keys, c.Credentials = testKeys("a"), password{what, want} }
		}
		a := startWith(t, &nw, "a", nodeIdentity(t), show("x", "x"))
		b := startWith(t, &nw, "b", nodeIdentity(t), show("x", "x"), a)
		other := startWith(t, &nw, "other", nodeIdentity(t), show("y", "x"), a) // refused by the others
		wary := startWith(t, &nw, "wary", nodeIdentity(t), show("x", "y"), a)   // refuses the others
		eventually(t, "two nodes meet", func() bool { return a.sees(b, StateAlive) && b.sees(a, StateAlive) })
		time.Sleep(time.Minute)
		for _, n := range []*node{other, wary} {
			if len(n.Members()) != 1 || n.TargetStatus()[0].Err == nil {
				t.Errorf("%s has members %v, target %v", n.cfg.Name, n.Members(), n.TargetStatus()[0].Err)
			}
		}
		if e, ok := errors.AsType[*RefusedError](other.TargetStatus()[0].Err); !ok || e.Reason != seal.RefusedMember {
			t.Errorf("the refused node has the error %v", other.TargetStatus()[0].Err)
		}
		if len(a.Members()) != 2 || a.drops.notAdmitted.Load() == 0 || wary.drops.notAdmitted.Load() == 0 {
			t.Errorf("members %v, %d refused", a.Members(), a.drops.notAdmitted.Load())
		}
		stopAll(a, b, other, wary)
	})
}

// password are Credentials for tests.
type password struct{ show, want string }

var errPassword = errors.New("wrong password")

func (p password) Show() []byte { return []byte(p.show) }

func (p password) Check(public [peer.KeySize]byte, shown []byte, fingerprint uint32) error {
	if string(shown) != p.want || fingerprint != 'a' || public == [peer.KeySize]byte{} {
		return errPassword
	}
	return nil
}

// TestOldRunIsNotAdmitted: a challenge of an instance is answered by that process only, not by the next run of the node.
func TestOldRunIsNotAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		id := nodeIdentity(t)
		z := startWith(t, &nw, "z", nodeIdentity(t), withKeys("a"))
		first := startWith(t, &nw, "x", id, withKeys("a"), z)
		eventually(t, "they met", func() bool { return z.sees(first, StateAlive) })
		nw.record()
		time.Sleep(5 * time.Second)
		packets, _ := nw.recordings()
		old := freshness.Instance{Node: id.ID, Run: first.instance}
		first.stop()
		time.Sleep(time.Minute)
		late := startWith(t, &nw, "late", nodeIdentity(t), withKeys("a"), z)
		again := startWith(t, &nw, "x", id, withKeys("a"), z)
		awaitAt(t, late, again)
		for _, p := range packets {
			late.transport.inject(p)
			time.Sleep(100 * time.Millisecond)
		}
		late.Mesh.transport.freshMu.Lock()
		admitted := late.Mesh.transport.fresh.Admitted(old)
		late.Mesh.transport.freshMu.Unlock()
		if admitted || late.drops.unproven.Load()+late.drops.misdirected.Load() == 0 {
			t.Errorf("the old run is admitted: %v", admitted)
		}
		if slices.ContainsFunc(late.Members(), func(m Member) bool { return m.ID == id.ID && m.State != StateAlive }) {
			t.Error("the node is not alive")
		}
		stopAll(z, late, again)
	})
}

// TestStateOfAnotherNetworkIsRefused: a network was wiped, and another one has its secret. Recorded states of the first one
// have no effect in the second one.
func TestStateOfAnotherNetworkIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nw network
		nw.record()
		a := startWith(t, &nw, "a", nodeIdentity(t), withKeys("a"))
		b := startWith(t, &nw, "b", nodeIdentity(t), withKeys("a"), a)
		eventually(t, "they met", func() bool { return a.sees(b, StateAlive) && b.sees(a, StateAlive) })
		if err := a.Merge([]byte("old ring")); err != nil {
			t.Fatal(err)
		}
		c := startWith(t, &nw, "c", nodeIdentity(t), withKeys("a"), a)
		eventually(t, "the state is sent", func() bool { return c.knows("old ring") })
		packets, streams := nw.recordings()
		stopAll(a, b, c)
		n := startWith(t, &nw, "n", nodeIdentity(t), withKeys("a"))
		for _, s := range streams {
			replay(n, s)
		}
		for _, p := range packets {
			n.transport.inject(p)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		if n.knows("old ring") || len(n.Members()) != 1 {
			t.Errorf("members %v, old ring %v", n.Members(), n.knows("old ring"))
		}
		stopAll(n)
	})
}
