package router

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/neighbor"
	"weft/tap/taptest"
)

// arpOf returns an ARP request of mac(src) at one address for another.
func arpOf(src int, sender, target netip.Addr) []byte {
	m := neighbor.Message{Kind: neighbor.Request, Target: sender, Sender: target, MAC: mac(src)}
	f := neighbor.Answer(m, mac(src)) // with the roles exchanged it is almost the request
	copy(f, ether.Broadcast[:])
	f[ether.HeaderLen+7] = 1
	return f
}

// ownerByNumber assigns 10.32.N.0/24 to the Nth node.
type ownerByNumber struct{}

// OwnerOf implements AddressOwners.
func (ownerByNumber) OwnerOf(a netip.Addr) (peer.ID, bool) {
	if owner := int(a.As4()[2]); owner < 3 {
		return identityOf(owner).id, true
	}
	return peer.ID{}, false
}

// TestNeighbors: a query for an address goes to the one peer that assigns it, and is answered here once its holder was
// heard; announcements go to all peers.
func TestNeighbors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		address := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 32, byte(n), 5}) }
		var nodes []*node
		for n := range 3 {
			nodes = append(nodes, newNodeWith(t, network, n, taptest.Config{MTU: 1438}, Config{
				Owners: ownerByNumber{},
			}))
		}
		runNodes(t, nodes)
		got := func(n int) (all []neighbor.Message) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			for {
				f, ok := nodes[n].dev.TryNext()
				if !ok {
					return all
				}
				if m, ok := neighbor.Parse(f.Data); ok {
					all = append(all, m)
				}
			}
		}
		nodes[0].dev.Inject(arpOf(1, address(0), address(1)))
		if a, b := got(1), got(2); len(a) != 1 || len(b) != 0 {
			t.Fatalf("a query for the second node's address: it received %v, the third %v", a, b)
		}
		answer := neighbor.Answer(neighbor.Message{Kind: neighbor.Request, Target: address(1), Sender: address(0), MAC: mac(1)}, mac(2))
		nodes[1].dev.Inject(answer)
		if a := got(0); len(a) != 1 || a[0].MAC != mac(2) {
			t.Fatalf("the answer: %v", a)
		}
		nodes[0].dev.Inject(arpOf(3, netip.MustParseAddr("10.32.0.6"), address(1)))
		if a, b := got(0), got(1); len(a) != 1 || a[0].MAC != mac(2) || a[0].Sender != address(1) || len(b) != 0 {
			t.Errorf("a second query: answered with %v, and the second node received %v", a, b)
		}
		nodes[0].SetKernel(identityOf(1).id, true)
		nodes[0].dev.Inject(arpOf(3, netip.MustParseAddr("10.32.0.6"), address(1)))
		if a, b := got(0), got(1); len(a) != 0 || len(b) != 0 {
			t.Errorf("a query that the kernel path carries: answered with %v, and the second node received %v", a, b)
		}
		nodes[0].SetKernel(identityOf(1).id, false)
		nodes[0].dev.Inject(arpOf(1, address(0), netip.MustParseAddr("10.32.0.9")))
		nodes[0].dev.Inject(arpOf(1, address(0), netip.MustParseAddr("192.0.9.1")))
		nodes[0].dev.Inject(arpOf(1, address(0), address(0)))
		if a, b := got(1), got(2); len(a) != 2 || len(b) != 2 {
			t.Errorf("an address of its own, one outside the overlay and an announcement: %v and %v, want the last two", a, b)
		}
		if s := nodes[0].Stats().Neighbors; s != (NeighborStats{Answered: 1, Directed: 2, Own: 1, Flooded: 2}) {
			t.Errorf("%+v", s)
		}
		// The address of the second node's part has moved to the third node: the second one does not answer.
		moved := netip.MustParseAddr("10.32.1.77")
		for i, want := range []int{0, 1, 0} {
			nodes[0].dev.Inject(arpOf(1, address(0), moved))
			if b, c := got(1), got(2); len(b) != 1 || len(c) != want {
				t.Errorf("question %d for an address that has moved: the second node received %v, the third %v, want %d", i+1, b, c, want)
			}
		}
		here := netip.MustParseAddr("10.32.0.77") // of its own part
		for i, want := range []int{0, 1} {
			nodes[0].dev.Inject(arpOf(1, address(0), here))
			if b, c := got(1), got(2); len(b) != want || len(c) != want {
				t.Errorf("question %d for an address of its own: %v and %v, want %d each", i+1, b, c, want)
			}
		}
		time.Sleep(time.Minute)
		nodes[0].dev.Inject(arpOf(1, address(0), address(1)))
		if b := got(1); len(b) != 1 {
			t.Errorf("a minute later: %v, want the query", b)
		}
	})
}

// movingOwner assigns all addresses to one node.
type movingOwner struct{ owner int }

// OwnerOf implements AddressOwners.
func (m *movingOwner) OwnerOf(netip.Addr) (peer.ID, bool) { return identityOf(m.owner).id, true }
