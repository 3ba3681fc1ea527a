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

// identities are cached, since finding one takes some hundred tries.
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

// remote is a peer without an engine: it has a session with one node, and seals the datagrams of a test.
type remote struct {
	peer    Peer
	node    *session.Node
	session *session.Session
}

// connectRemote makes a session between n, idle or running, and the kth node of the tests, which must be a peer of n.
// The secrets are those of n.
func connectRemote(t testing.TB, n *node, k int, secrets ...session.Secret) *remote {
	t.Helper()
	return connectRemoteAs(t, n, identityOf(k), peerOf(k), secrets...)
}

// connectRemoteAs is connectRemote for any identity.
func connectRemoteAs(t testing.TB, n *node, i identity, as Peer, secrets ...session.Secret) *remote {
	t.Helper()
	other, err := session.NewNode(session.Config{
		Private: i.private, Cluster: cluster, Secrets: secrets, Offer: anyCipher, Trusted: *n.trusted.Load(),
	})
	if err != nil {
		t.Fatal(err)
	}
	now := n.now()
	other.SetPeers([]session.Peer{{ID: n.peer.ID, Public: n.peer.Public, Addr: n.peer.Addr}}, now)
	r := &remote{peer: as, node: other}
	n.handshakes.locked(func(own *session.Node) {
		other.RequestSession(n.peer.ID, now)
		for range 2 {
			messages, changes := other.Drain()
			for _, c := range changes {
				r.session = c.Session
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
	s := n.handshakes.node.Lookup(indexAtPeer(r.session))
	s.Confirm()
	n.handshakes.locked(func(own *session.Node) {
		own.ConfirmSession(s, now)
		own.Drain()
	})
	enc := newEncoder(n.Engine, n.conns[0])
	n.installSession(n.peers.Load().byID[as.ID], s, as.Addr, &enc, now)
	return r
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

// counter returns a counter that r has not used yet.
func (r *remote) counter() uint64 {
	c, ok := r.session.Reserve(1)
	if !ok {
		panic("no counter left")
	}
	return c
}

// sealed returns a sealed datagram of r with any body.
func (r *remote) sealed(kind wire.Type, body []byte) []byte {
	return r.session.Seal(nil, kind, r.counter(), body)
}

// plain returns a datagram of r that is not sealed, with any body.
func (r *remote) plain(body []byte) []byte {
	b := make([]byte, wire.HeaderLen, wire.HeaderLen+len(body))
	r.session.PutHeader(b, wire.TypePlain, r.counter())
	return append(b, body...)
}

// bodyOf returns the body of the datagram that holds a plain frame.
func bodyOf(frame []byte) []byte { return append(make([]byte, wire.MetaLen), frame...) }

// allFeatures are the features of a device of a recent kernel.
const allFeatures = virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6 | virtio.FeatureUSO
