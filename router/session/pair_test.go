package session

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/curve25519"

	"weft/internal/peer"
)

// epoch is the time at which the tests begin.
var epoch = time.Unix(1_700_000_000, 0)

// reader is a source of random bytes, which are the same in every run.
type reader struct{ *rand.ChaCha8 }

func newReader(seed uint64) reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return reader{rand.NewChaCha8(key)}
}

// keyOf returns the nth private key of the tests, and the peer that has it.
func keyOf(t testing.TB, n int) (private [KeyLen]byte, p Peer) {
	t.Helper()
	private[8], private[9] = byte(n+1), byte((n+1)>>8)
	public, err := curve25519.X25519(private[:], curve25519.Basepoint)
	if err != nil {
		t.Fatal(err)
	}
	p.Public = [KeyLen]byte(public)
	p.ID = peer.FromPublicKey(p.Public)
	p.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}), 6784)
	return private, p
}

// secretOf returns the nth secret of the tests.
func secretOf(n int) Secret { return Secret{Key: [KeyLen]byte{byte(n)}, Fingerprint: uint32(n)} }

// newNodes returns nodes that are peers of each other, and their list of peers.
func newNodes(t testing.TB, configs ...Config) (nodes []*Node, peers []Peer) {
	t.Helper()
	for i, cfg := range configs {
		private, p := keyOf(t, i)
		cfg.Private, cfg.Cluster, cfg.Random = private, "test", newReader(uint64(i+1))
		if cfg.Offer == 0 {
			cfg.Offer = NewOffer(0, true)
		}
		n, err := NewNode(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nodes, peers = append(nodes, n), append(peers, p)
	}
	for _, n := range nodes {
		n.SetPeers(peers, epoch)
	}
	return nodes, peers
}

// exchange delivers messages between two nodes until there are none, and returns the sessions that both have then.
func exchange(t testing.TB, nodes []*Node, peers []Peer, now time.Time) (sessions [2]*Session) {
	t.Helper()
	for quiet := 0; quiet < 2; {
		quiet = 0
		for i, n := range nodes {
			messages, _ := n.Drain()
			if len(messages) == 0 {
				quiet++
			}
			for _, m := range messages {
				deliver(t, nodes[1-i], m.Datagram, peers[i].Addr, now)
			}
		}
	}
	for i, n := range nodes {
		sessions[i] = n.Info(peers[1-i].ID).Session
	}
	return sessions
}

// deliver passes a handshake message or a sealed datagram to a node, as the datapath does.
func deliver(t testing.TB, n *Node, datagram []byte, from netip.AddrPort, now time.Time) {
	t.Helper()
	if err := receive(n, datagram, from, now); err != nil {
		t.Fatalf("type %d: %v", datagram[0]&15, err)
	}
}

// connect returns the two ends of a session between two nodes with the configuration cfg; the first one is the
// initiator.
func connect(t testing.TB, cfg Config) (a, b *Session) {
	t.Helper()
	nodes, peers := newNodes(t, cfg, cfg)
	nodes[0].RequestSession(peers[1].ID, epoch)
	s := exchange(t, nodes, peers, epoch)
	if s[0] == nil || s[1] == nil {
		t.Fatal("no session")
	}
	return s[0], s[1]
}
