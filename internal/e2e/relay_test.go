package e2e

import (
	"fmt"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// waitLink waits until a node reports the given link (direct, relay or none) for a live peer, and returns the peer.
func waitLink(t *testing.T, n *cluster.Node, name string, link api.Link) api.Peer {
	t.Helper()
	var found api.Peer
	labtest.Until(t, patience, func() error {
		for _, p := range query[[]api.Peer](t, n, "peers") {
			if p.Name != name {
				continue
			}
			if found = p; p.Link == link && p.State == api.PeerAlive {
				return nil
			}
			return fmt.Errorf("%s reaches %s (%s) by link %s, want %s", n.Label(), name, p.State, p.Link, link)
		}
		return fmt.Errorf("%s does not know %s", n.Label(), name)
	})
	return found
}

// TestPartialMesh: the link between two of three nodes is cut, in both directions or in one, with and without a secret.
// Their pods reach each other through the third node, and directly again within 15 seconds after the link returns.
func TestPartialMesh(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		oneWay bool
		start  func(*testing.T, []*cluster.Node)
	}{
		{"plain, both directions", false, func(t *testing.T, nodes []*cluster.Node) { start(t, nodes) }},
		{"sealed, one direction", true, func(t *testing.T, nodes []*cluster.Node) { startSealed(t, nodes, newSecret(t)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			nodes := newNodes(t, "a", "b", "c")
			a, b, c := nodes[0], nodes[1], nodes[2]
			tt.start(t, nodes)
			podA, podC := attach(t, a, "p"), attach(t, c, "p")
			podA.reaches(t, podC.addr)
			ping := podA.pinging(t, podC.addr)
			ping.waitReplies(t, 10)
			cut := a.Cut
			if tt.oneWay {
				cut = a.CutTo
			}
			if err := cut(ctx, c.Host); err != nil {
				t.Fatal(err)
			}
			for _, at := range []struct{ from, to *cluster.Node }{{a, c}, {c, a}} {
				p := waitLink(t, at.from, at.to.Label(), api.LinkRelay)
				if want := query[api.Status](t, b, "status").ID; p.Via != want {
					t.Errorf("%s reaches %s over %s, want %s", at.from.Label(), at.to.Label(), p.Via, want)
				}
			}
			podA.reaches(t, podC.addr)
			ping.waitReplies(t, 20)
			if err := transfer(ctx, podA, podC, 4<<20); err != nil {
				t.Error(err)
			}
			if err := a.Heal(ctx, c.Host); err != nil {
				t.Fatal(err)
			}
			labtest.Until(t, 15*time.Second, func() error {
				for _, at := range []struct{ from, to *cluster.Node }{{a, c}, {c, a}} {
					for _, p := range query[[]api.Peer](t, at.from, "peers") {
						if p.Name == at.to.Label() && p.Link != api.LinkDirect {
							return fmt.Errorf("%s reaches %s by %s", at.from.Label(), p.Name, p.Link)
						}
					}
				}
				return nil
			})
			ping.waitReplies(t, 20)
			sent, lost := ping.stop(t)
			t.Logf("%d of %d pings lost, one every 50 ms", lost, sent)
		})
	}
}

// TestNATed: two nodes behind separate NATs join. All pods reach each other, and the two nodes lease addresses, although no
// other node can dial them.
func TestNATed(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	nodes := newNodes(t, "a", "b")
	secret := newSecret(t)
	startSealed(t, nodes, secret)
	a := nodes[0]
	for _, name := range []string{"c", "d"} {
		h, err := a.Lab().AddHostBehindNAT(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		n := nodeOn(t, h)
		writeSecret(t, n, secret)
		up(t, n, "--secret-file", secretFile(n), "--init-peers", "2", a.Addr().String())
		nodes = append(nodes, n)
	}
	waitReady(t, nodes)
	var pods []*pod
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
	}
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	for _, n := range nodes[:2] {
		for _, name := range []string{"c", "d"} {
			waitLink(t, n, name, api.LinkDirect)
		}
	}
	t.Logf("the peers of c: %+v", query[[]api.Peer](t, nodes[2], "peers"))
	// All nodes stay alive over the next probes.
	ping := pods[1].pinging(t, pods[2].addr)
	ping.waitReplies(t, 400)
	for _, n := range nodes {
		for _, other := range nodes {
			waitState(t, n, other.Label(), api.PeerAlive)
		}
	}
	if _, lost := ping.stop(t); lost > 40 {
		t.Errorf("%d pings lost", lost)
	}
}
