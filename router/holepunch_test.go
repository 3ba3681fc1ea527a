package router

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/wire"
	"weft/tap/taptest"
)

// TestHolePunchRequests: a hole punch is accepted only from a relay between two nodes that can only dial out, of an address that
// a relay can see, once in two seconds for a peer.
func TestHolePunchRequests(t *testing.T) {
	seen := netip.MustParseAddrPort("198.51.100.7:4001")
	behind := peerOf(1)
	behind.DialOut, behind.Via = true, peerOf(2).ID
	direct := behind
	direct.Via = peer.ID{}
	reached := behind
	reached.DialOut = false
	for _, tt := range []struct {
		name    string
		want    drop.Reason
		about   Peer
		dialOut bool
		from    int
		addr    netip.AddrPort
	}{
		{"from the relay in use", 0, behind, true, 2, seen},
		{"from the relay that the peer uses", 0, behind, true, 3, seen},
		{"from another member", drop.Unexpected, behind, true, 4, seen},
		{"for a node that others reach", drop.Unexpected, behind, false, 2, seen},
		{"of a peer that others reach", drop.Unexpected, reached, true, 2, seen},
		{"of a peer that is reached directly", drop.Unexpected, direct, true, 2, seen},
		{"of an unknown peer", drop.Unexpected, peerOf(9), true, 2, seen},
		{"at this node", drop.Metadata, behind, true, 2, addrOf(0)},
		{"at another peer", drop.Metadata, behind, true, 2, addrOf(3)},
		{"loopback", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("127.0.0.1:53")},
		{"loopback, IPv6", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("[::1]:53")},
		{"multicast", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("224.0.0.251:5353")},
		{"broadcast", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("255.255.255.255:67")},
		{"unspecified", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("0.0.0.0:53")},
		{"link-local", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("169.254.169.254:80")},
		{"port 0", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("198.51.100.7:0")},
		{"a relayed endpoint", drop.Metadata, behind, true, 2, netip.MustParseAddrPort("[100::1]:1")},
	} {
		n := newNode(t, simnet.New(1), 0)
		others := []Peer{peerOf(2), peerOf(3), peerOf(4)}
		if tt.about.ID != peerOf(9).ID {
			others = append(others, tt.about)
		}
		n.SetPeers(others)
		n.SetReachability(tt.dialOut, addrOf(0).Addr())
		if v := n.peers.Load().byID[tt.about.ID]; v != nil {
			v.noteRelay(peerOf(3).ID)
		}
		from := n.peers.Load().byID[peerOf(tt.from).ID]
		if got := n.handleEngineMessage(holePunchMessage(tt.about.ID, tt.addr), from); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if tt.want == 0 {
			if got := n.handleEngineMessage(holePunchMessage(tt.about.ID, tt.addr), from); got != drop.Busy {
				t.Errorf("%s, again at once: %v, want %v", tt.name, got, drop.Busy)
			}
		}
	}
}

// TestFloodOfHolePunches: of 5,000 hole punches by a relay in a second, for known and unknown peers and for any address, few have
// an effect: no state for an unknown peer, and one peer is probed at one address at a time, twice a second and once more when
// a hole punch starts.
func TestFloodOfHolePunches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		n := newNodeOf(t, network, 0, taptest.Config{MTU: 1422}, secretOf(1))
		runNodes(t, []*node{n})
		var sockets []*simnet.Conn
		for i := range 50 {
			c, err := network.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 53))
			if err != nil {
				t.Fatal(err)
			}
			sockets = append(sockets, c)
		}
		local, err := network.Listen(netip.MustParseAddrPort("127.0.0.1:53"))
		if err != nil {
			t.Fatal(err)
		}
		relay, behind := peerOf(1), peerOf(2)
		n.SetReachability(true, addrOf(0).Addr())
		n.SetPeers([]Peer{relay, behind})
		r := connectRemote(t, n, 1, secretOf(1))
		connectRemote(t, n, 2, secretOf(1))
		behind.DialOut, behind.Via = true, relay.ID
		n.SetPeers([]Peer{relay, behind})
		from := n.peers.Load().byID[relay.ID]
		const requests, seconds = 5000, 10
		for i := range requests {
			id, addr := behind.ID, sockets[i/100].LocalAddr()
			switch i % 4 {
			case 1:
				binary.BigEndian.PutUint64(id[:], uint64(i)|1<<60)
			case 2:
				addr = local.LocalAddr()
			}
			n.handleEngineMessage(holePunchMessage(id, addr), from)
			time.Sleep(seconds * time.Second / requests)
		}
		probes, hit := 0, 0
		for _, c := range sockets {
			got := r.read(t, c)
			for _, d := range got {
				if d.Type != wire.TypeProbe || d.size != 34 {
					t.Errorf("a datagram of type %d, %d bytes", d.Type, d.size)
				}
			}
			if probes += len(got); len(got) > 0 {
				hit++
			}
		}
		if most := 2*seconds + seconds/2 + 2; probes == 0 || probes > most || hit < 3 || hit > seconds/2+1 {
			t.Errorf("%d probes to %d addresses in %d s, want at most %d, and another address each 2 s", probes, hit, seconds, most)
		}
		if got := r.read(t, local); len(got) != 0 {
			t.Errorf("%d datagrams to this host itself", len(got))
		}
		if len(n.peers.Load().byID) != 2 {
			t.Errorf("%d peers", len(n.peers.Load().byID))
		}
	})
}
