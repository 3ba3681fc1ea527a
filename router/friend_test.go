package router

import (
	"encoding/binary"
	"sync"
	"testing"

	"golang.org/x/crypto/curve25519"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/wire"
	"weft/tap/virtio"
)

// identity is a key for tests.
type identity struct {
	private, public [session.KeyLen]byte
	id              peer.ID
}

// identities are cached: finding one takes some hundred tries.
var identities sync.Map // of int to identity

// identityOf returns the nth identity of the tests; the first byte of its ID is n + 1, so that they are in order.
func identityOf(n int) identity {
	if known, ok := identities.Load(n); ok {
		return known.(identity)
	}
	var i identity
	for try := uint64(1); i.id[0] != byte(n+1); try++ {
		binary.BigEndian.PutUint64(i.private[:], uint64(n)<<32+try)
		public, err := curve25519.X25519(i.private[:], curve25519.Basepoint)
		if err != nil {
			panic(err)
		}
		i.public = [session.KeyLen]byte(public)
		i.id = peer.FromPublicKey(i.public)
	}
	identities.Store(n, i)
	return i
}

// peerOf returns the nth node of the tests as others know it.
func peerOf(n int) Peer {
	i := identityOf(n)
	return Peer{ID: i.id, Public: i.public, Addr: addrOf(n)}
}

// anyCipher is the offer of the tests' nodes.
var anyCipher = session.NewOffer(0, true)

// friend is a peer without an engine: it has a session with one node and seals what the test wants.
type friend struct {
	peer    Peer
	node    *session.Node
	session *session.Session
}

// befriend gives n, idle or running, a session with the kth node of the tests, which n must know as a peer. The secrets
// are those of n.
func befriend(t testing.TB, n *node, k int, secrets ...session.Secret) *friend {
	t.Helper()
	return befriendAs(t, n, identityOf(k), peerOf(k), secrets...)
}

// befriendAs is befriend for any identity.
func befriendAs(t testing.TB, n *node, i identity, as Peer, secrets ...session.Secret) *friend {
	t.Helper()
	other, err := session.NewNode(session.Config{
		Private: i.private, Cluster: cluster, Secrets: secrets, Offer: anyCipher, Trusts: *n.trust.Load(),
	})
	if err != nil {
		t.Fatal(err)
	}
	now := n.now()
	other.SetPeers([]session.Peer{{ID: n.peer.ID, Public: n.peer.Public, Addr: n.peer.Addr}}, now)
	f := &friend{peer: as, node: other}
	n.keys.locked(func(own *session.Node) {
		other.RequestSession(n.peer.ID, now)
		for range 2 {
			messages, changes := other.Drain()
			for _, c := range changes {
				f.session = c.Session
			}
			for _, m := range messages {
				if h, _, _ := wire.Parse(m.Datagram); h.Type != wire.TypeKeepalive {
					if err := own.Receive(m.Datagram, as.Addr, now); err != nil {
						t.Fatal(err)
					}
				}
			}
			messages, _ = own.Drain()
			for _, m := range messages {
				if err := other.Receive(m.Datagram, n.peer.Addr, now); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	s := n.keys.node.Lookup(indexAtPeer(f.session))
	s.Confirm()
	n.keys.locked(func(own *session.Node) {
		own.ConfirmSession(s, now)
		own.Drain()
	})
	by := newEncoder(n.Engine, n.conns[0])
	n.open(n.peers.Load().byID[as.ID], s, as.Addr, &by, now)
	return f
}

// indexAtPeer returns the index that s has at its other end.
func indexAtPeer(s *session.Session) uint32 {
	var b [wire.HeaderLen]byte
	s.PutHeader(b[:], wire.TypePlain, 0)
	h, _, err := wire.Parse(b[:])
	if err != nil {
		panic(err)
	}
	return h.Session
}

// counter returns one that f has not used yet.
func (f *friend) counter() uint64 {
	c, ok := f.session.Reserve(1)
	if !ok {
		panic("no counter left")
	}
	return c
}

// sealed returns a datagram of f's with any body.
func (f *friend) sealed(kind wire.Type, body []byte) []byte {
	return f.session.Seal(nil, kind, f.counter(), body)
}

// plain returns a datagram of f's that is not sealed, with any body.
func (f *friend) plain(body []byte) []byte {
	b := make([]byte, wire.HeaderLen, wire.HeaderLen+len(body))
	f.session.PutHeader(b, wire.TypePlain, f.counter())
	return append(b, body...)
}

// bodyOf returns what follows the header of the datagram that holds a plain frame.
func bodyOf(frame []byte) []byte { return append(make([]byte, wire.MetaLen), frame...) }

// allFeatures are what a device of a present kernel offers.
const allFeatures = virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6 | virtio.FeatureUSO
