package router

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/endpoint"
	"weft/router/wire"
	"weft/tap/taptest"
)

// everywhere contains all addresses.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// TestRelayedEndpointIsNeverTrusted: with a secret, no list of subnets contains the address that stands for a path over
// relays, at none of the places where trust is decided.
func TestRelayedEndpointIsNeverTrusted(t *testing.T) {
	n := newNodeWith(t, simnet.New(1), 0, taptest.Config{MTU: 1422}, Config{Secrets: modes["sealed"], Trusted: everywhere})
	relayed := endpoint.Relayed(peer.ID{1, 2, 3}).Addr()
	for _, prefixes := range [][]netip.Prefix{everywhere, {endpoint.RelayPrefix}, {netip.PrefixFrom(relayed, 128)}} {
		n.SetTrusted(prefixes)
		if n.trusts(relayed) || Trusted(prefixes).Contains(relayed) {
			t.Errorf("%v contains %s", prefixes, relayed)
		}
	}
	n.SetTrusted(everywhere)
	for _, addr := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "100:0:0:1::1"} {
		if !n.trusts(netip.MustParseAddr(addr)) {
			t.Errorf("%s is not trusted", addr)
		}
	}
}

// TestRelayReadsNothing: two nodes that share a secret and trust every address send frames unsealed over their direct link,
// and sealed end to end over a relay. The relay sees no frame in what it forwards, and what it sends itself in the name of
// one of them is dropped.
func TestRelayReadsNothing(t *testing.T) {
	mark := []byte("a frame for the two ends")
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1)
		network.SetDefault(simnet.Link{Latency: time.Millisecond})
		relay := peerOf(2)
		var nodes []*node
		for k := range 2 {
			nodes = append(nodes, newNodeWith(t, network, k, taptest.Config{MTU: 1422},
				Config{Secrets: modes["sealed"], Trusted: everywhere}))
		}
		runNodes(t, nodes)
		exchange := func(from int, count int) (arrived int) {
			for i := range count {
				for k, n := range nodes {
					f := numbered(mac(11-k), mac(10+k), from+i)
					copy(f[30:], mark)
					n.dev.Inject(f)
				}
				time.Sleep(20 * time.Millisecond)
			}
			return len(collect(t, nodes[0])) + len(collect(t, nodes[1]))
		}
		exchange(0, 50)
		if s := nodes[0].Stats().Peers[0]; !s.Plain {
			t.Fatalf("%+v: the direct session is not plain, so the test shows nothing", s)
		}

		m := newMember(t, network, 2, modes["sealed"], nodes[0].peer, nodes[1].peer)
		var readable, plain, carried atomic.Int64
		m.onDatagram = func(_ peer.ID, kind wire.Type, body []byte) {
			if kind != wire.TypeRelay {
				return
			}
			r, inner, err := wire.ParseRelay(body)
			if err != nil {
				t.Error(err)
				return
			}
			carried.Add(1)
			if bytes.Contains(inner, mark) {
				readable.Add(1)
			}
			if h, _, err := wire.Parse(inner); err == nil && h.Type == wire.TypePlain {
				plain.Add(1)
			}
			r.Hops--
			m.relay(r.Destination, r, inner)
		}
		for k, n := range nodes {
			behind := nodes[1-k].peer
			behind.Via = relay.ID
			n.SetPeers([]Peer{relay, behind})
			m.connect(n.peer.ID)
		}
		exchange(100, 50) // until the session was renewed at the relayed endpoint
		time.Sleep(5 * time.Second)
		before := carried.Load()
		if n := exchange(200, 100); n < 200 || carried.Load() < before+200 {
			t.Errorf("%d of 200 frames arrived, %d datagrams were relayed", n, carried.Load()-before)
		}
		if readable.Load() != 0 || plain.Load() != 0 {
			t.Errorf("of %d relayed datagrams the relay can read %d; %d are plain", carried.Load(), readable.Load(), plain.Load())
		}

		// The relay makes Plain datagrams for the session of the two: it cannot know a counter, but it is refused before.
		s := nodes[0].peers.Load().byID[nodes[1].peer.ID].egress.Load().session
		forged := make([]byte, wire.HeaderLen)
		wire.Header{Type: wire.TypePlain, Session: s.Index(), Counter: 1}.Put(forged)
		forged = append(forged, bodyOf(frame(ether.Broadcast, mac(9), 'f'))...)
		m.relay(nodes[0].peer.ID, wire.Relay{Hops: 1, Source: nodes[1].peer.ID, Destination: nodes[0].peer.ID}, forged)
		time.Sleep(10 * time.Millisecond)
		if n := nodes[0].Stats().Drops[drop.NotSealed]; n != 1 {
			t.Errorf("drops %v, want one not_sealed", nodes[0].Stats().Drops)
		}
	})
}
