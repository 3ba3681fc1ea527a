package direct_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/direct"
)

// patience is the timeout of all waits.
const patience = 20 * time.Second

// carried returns two nodes that route to each other.
func carried(t *testing.T) (*network, [2]*direct.Direct) {
	t.Helper()
	n := newNetwork(t, false)
	var carriers [2]*direct.Direct
	for i := range carriers {
		c, ok := n.Open(t, i).(*direct.Direct)
		if !ok {
			t.Fatal("another carrier")
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		carriers[i] = c
	}
	for i, c := range carriers {
		if got, err := c.SetPeers(t.Context(), []carrier.Peer{n.Peer(1 - i)}); err != nil || len(got) != 1 {
			t.Fatalf("SetPeers returned %v, %v", got, err)
		}
		if err := c.Carry(n.Peer(1-i).ID, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	return n, carriers
}

// arrives sends packets of which the last alone must arrive, or all.
func (n *network) arrives(t *testing.T, want string) {
	t.Helper()
	n.Broadcast(t, 0, "end")
	var got []string
	for len(got) == 0 || got[len(got)-1] != "end" {
		got = append(got, n.Next(t, 1))
	}
	if strings.Join(got, " ") != want {
		t.Errorf("%q arrived, want %q", got, want)
	}
}

// TestStaysOnLink: packets that must not leave a link, and those from or to addresses of other nodes, are not routed.
func TestStaysOnLink(t *testing.T) {
	n, _ := carried(t)
	for _, ttl := range []uint8{1, 2, 255} {
		n.send(t, 0, ttl, "on the link")
	}
	from, to := n.Nodes[0], n.Nodes[1]
	for _, pair := range [][2]string{{"10.40.0.7", to.IP}, {from.IP, "10.40.0.7"}} {
		if err := n.Pods[0].Send(datagram(t, from.PodMAC, to.PodMAC, pair[0], pair[1], 64, "of another node")); err != nil {
			t.Fatal(err)
		}
	}
	n.send(t, 0, 3, "lowest")
	n.send(t, 0, 254, "highest")
	n.arrives(t, "lowest highest end")
}

// TestSources: packets from addresses of the overlay are accepted from the underlay only if they belong to a peer.
func TestSources(t *testing.T) {
	n, carriers := carried(t)
	from, to := n.Nodes[0], n.Nodes[1]
	carriertest.IP(t, from.Space, "route add "+to.IP+"/32 via "+to.Addr.String())
	carriertest.IP(t, from.Space, "addr add 10.40.0.7/32 dev lo") // of no peer
	send := func(src string) {
		t.Helper()
		labtest.Run(t, from.Space, "sh", "-c", "ping -c1 -W1 -I "+src+" "+to.IP+" || true")
	}
	dropped := func() uint64 {
		t.Helper()
		drops, err := carriers[1].FilterDrops(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return drops["unknown"]
	}
	send("10.40.0.7")
	if got := dropped(); got != 0 {
		t.Errorf("%d packets were dropped before the carrier can know all peers", got)
	}
	if err := carriers[1].Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(from.Addr.String())
	if got := dropped(); got != 0 {
		t.Errorf("%d packets from the underlay were dropped", got)
	}
	send("10.40.0.7")
	if got := dropped(); got != 1 {
		t.Errorf("%d packets were dropped, want that from an address of no peer", got)
	}
	if _, err := carriers[1].SetPeers(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	n.Broadcast(t, 0, "of a former peer")
	labtest.Until(t, patience, func() error {
		if got := dropped(); got != 2 {
			return fmt.Errorf("%d packets were dropped, want 2", got)
		}
		return nil
	})
	if _, err := carriers[1].SetPeers(t.Context(), []carrier.Peer{n.Peer(0)}); err != nil {
		t.Fatal(err)
	}
	n.arrives(t, "end")
}

// TestForeignAddresses: a peer with probes from an address outside of its share, or of another one, is not reached.
func TestForeignAddresses(t *testing.T) {
	n := newNetwork(t, false)
	self, other := n.Nodes[0].ID, n.Peer(1)
	c := n.Open(t, 0)
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	third := carrier.Peer{ID: peer.ID{9}, Addr: other.Addr.Next()}
	honest := n.nodes[other.ID]
	for what, tt := range map[string]struct {
		node direct.Node
		want int
	}{
		"honest":          {honest, 1},
		"foreign":         {direct.Node{Probes: honest.Probes, Share: []netip.Prefix{netip.MustParsePrefix("10.40.0.0/16")}}, 0},
		"of this node":    {direct.Node{Probes: n.nodes[self].Probes, Share: n.nodes[self].Share}, 0},
		"without a share": {direct.Node{Probes: honest.Probes}, 0},
		"none":            {direct.Node{Share: honest.Share}, 0},
	} {
		n.nodes[other.ID] = tt.node
		got, err := c.SetPeers(t.Context(), []carrier.Peer{other})
		if err != nil || len(got) != tt.want {
			t.Errorf("%s: reached %v, %v, want %d", what, got, err, tt.want)
		}
	}
	n.nodes[other.ID], n.nodes[third.ID] = honest, honest
	if got, err := c.SetPeers(t.Context(), []carrier.Peer{third, other}); err != nil || len(got) != 1 || got[0] != other {
		t.Errorf("two peers with the same addresses: reached %v, %v, want the first", got, err)
	}
	// A peer on another link.
	delete(n.nodes, third.ID)
	carriertest.IP(t, n.Nodes[0].Space, "route add "+other.Addr.String()+"/32 via "+third.Addr.String())
	if got, err := c.SetPeers(t.Context(), []carrier.Peer{other}); err != nil || len(got) != 0 {
		t.Errorf("behind a router: reached %v, %v", got, err)
	}
}

// TestShareMoves: packets from a part of the ring that has just become this node's go by the other carrier for some time; those to a part
// that has become a peer's are routed.
func TestShareMoves(t *testing.T) {
	n, carriers := carried(t)
	has := func(name, what string, want bool) {
		t.Helper()
		out := labtest.Run(t, n.Nodes[0].Space, "nft", "list", "table", "bridge", "weft-"+name)
		if got := strings.Contains(out, what); got != want {
			t.Errorf("%q is in the table: %v, want %v:\n%s", what, got, want, out)
		}
	}
	for i, prefix := range []string{"10.40.0.0/24", "10.41.0.0/24"} {
		id := n.Nodes[i].ID
		node := n.nodes[id]
		node.Share = append(slices.Clone(node.Share), netip.MustParsePrefix(prefix))
		n.nodes[id] = node
	}
	if err := carriers[0].Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(name, "10.40.0.0/24", false)
	has(name, `10.41.0.0/24 : "to-`, true)
	if err := carriers[0].Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(name, "10.40.0.0/24", true)
	n.arrives(t, "end")
	// Parts of a share that are given away, or divided, leave the rest as it was.
	for i, prefixes := range [][]string{{"10.41.0.0/25"}, {"10.41.0.0/26", "10.41.0.64/26"}, {"10.41.0.64/26"}, {"10.41.0.0/16"}} {
		for j, base := range []string{"10.40", "10.41"} {
			id := n.Nodes[j].ID
			node := n.nodes[id]
			node.Share = slices.Clone(node.Share[:2])
			for _, p := range prefixes {
				node.Share = append(node.Share, netip.MustParsePrefix(strings.Replace(p, "10.41", base, 1)))
			}
			n.nodes[id] = node
		}
		if err := carriers[0].Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		has(name, `: "to-`, true)
		has(name, "10.41.0.0/24", false)
		has(name, "10.40.0.64/26", i >= 2)
		has(name, "10.40.0.0/16", false) // not for long enough
	}
	n.arrives(t, "end")
	// A peer that takes part no more is none of SetPeers, and the controller asks again.
	delete(n.nodes, n.Nodes[1].ID)
	if err := carriers[0].Ensure(t.Context()); !errors.Is(err, carrier.ErrPeers) {
		t.Errorf("Ensure returned %v", err)
	}
}
