package mesh

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// moveTo moves a node to another address of the network.
func (n *node) moveTo(net *network, to netip.AddrPort) {
	net.rename(n.at.Load().addr, to)
	n.SetAdvertise(to)
}

// seesAt reports whether n knows other as alive at its present address.
func (n *node) seesAt(other *node) bool {
	m, _ := n.roster.lookup(other.cfg.Identity.ID)
	return m.State == StateAlive && m.GossipAddr() == other.at.Load().addr
}

// TestNodeMoves: a node moves while it runs, back and forth. No node loses it, or is lost to it, and messages pass afterwards.
func TestNodeMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		c := start(t, &net, "c", nodeIdentity(t), a)
		all := []*node{a, b, c}
		eventually(t, "all know each other", func() bool { return allSee(all) })
		first, second := b.transport.addr, netip.MustParseAddrPort("127.0.0.77:6783")
		for i, to := range []netip.AddrPort{second, first, second} {
			b.moveTo(&net, to)
			eventually(t, "the new address is known", func() bool {
				for _, n := range []*node{a, c} {
					if !n.sees(b, StateAlive) || !b.sees(n, StateAlive) {
						t.Errorf("move %d: %s lost %s", i, n.cfg.Name, b.cfg.Name)
					}
				}
				return allSee(all)
			})
			text := "after move " + to.String() + string(rune('0'+i))
			if err := b.Sender(ChannelIPAM).Broadcast([]byte(text)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a broadcast arrives", func() bool { return a.knows(text) && c.knows(text) })
			if err := a.Sender(ChannelIPAM).Unicast(b.cfg.Identity.ID, []byte(text)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a unicast arrives", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return slices.Contains(b.messages, a.cfg.Identity.ID.String()+": "+text)
			})
		}
		time.Sleep(2 * time.Minute) // the old address is dead by now
		if s := c.TargetStatus()[0]; s.Err != nil || !s.Moved.ID.IsZero() {
			t.Errorf("a target that has not moved: %+v", s)
		}
		for _, n := range all {
			if !allSee(all) || len(n.Members()) != 3 {
				t.Errorf("members of %s: %v", n.cfg.Name, n.Members())
			}
		}
		stopAll(all...)
	})
}

// TestNodesMoveTogether: two of three nodes move at once, and one that is dead by then is not kept as alive.
func TestNodesMoveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		c := start(t, &net, "c", nodeIdentity(t), a)
		d := start(t, &net, "d", nodeIdentity(t), a)
		eventually(t, "all know each other", func() bool { return allSee([]*node{a, b, c, d}) })
		net.setCut(d.transport.addr, true)
		a.moveTo(&net, netip.MustParseAddrPort("127.0.0.71:6783"))
		b.moveTo(&net, netip.MustParseAddrPort("127.0.0.72:6783"))
		eventually(t, "three know each other", func() bool { return allSee([]*node{a, b, c}) })
		eventually(t, "the target of c has moved", func() bool { return c.TargetStatus()[0].Moved.ID == a.cfg.Identity.ID })
		eventually(t, "the fourth is dead", func() bool {
			return a.sees(d, StateDead) && b.sees(d, StateDead) && c.sees(d, StateDead)
		})
		net.setCut(d.transport.addr, false)
		eventually(t, "the fourth is found again", func() bool { return allSee([]*node{a, b, c, d}) })
		stopAll(a, b, c, d)
	})
}

// TestNodeMovesToTarget: a node gets the address that its target had. The target, at another address, is found over a third node, and
// the own address as a target is no loop.
func TestNodeMovesToTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a) // a is a target
		c := start(t, &net, "c", nodeIdentity(t), a)
		all := []*node{a, b, c}
		eventually(t, "they know each other", func() bool { return allSee(all) })
		old := a.transport.addr
		a.moveTo(&net, netip.MustParseAddrPort("127.0.0.71:6783"))
		b.moveTo(&net, old) // b is now where its target was
		eventually(t, "they know each other again", func() bool { return allSee(all) })
		if err := b.TargetStatus()[0].Err; err != nil {
			t.Errorf("the own address as a target: %v", err)
		}
		stopAll(all...)
	})
}

// allSee reports whether all nodes know each other as alive, at their present addresses.
func allSee(nodes []*node) bool {
	for _, n := range nodes {
		for _, other := range nodes {
			if n != other && !n.seesAt(other) {
				return false
			}
		}
	}
	return true
}
