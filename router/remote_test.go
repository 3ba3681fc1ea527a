package router

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"golang.org/x/crypto/curve25519"

	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/underlay"
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
	n.moveEndpoint(n.peers.Load().byID[as.ID], as.Addr)
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

// read returns the datagrams that have arrived at c: their headers and, where the session of r opens them, their bodies.
func (r *remote) read(t testing.TB, c *simnet.Conn) (got []received) {
	t.Helper()
	batch := []underlay.Datagram{{Buf: make([]byte, 4096)}}
	for {
		n, _ := c.Poll(batch)
		if n == 0 {
			return got
		}
		h, rest, err := wire.Parse(batch[0].Buf)
		if err != nil {
			t.Fatal(err)
		}
		d := received{Header: h, size: len(batch[0].Buf), body: bytes.Clone(rest)}
		if !h.Type.IsHandshake() && h.Type != wire.TypePlain && h.Type != wire.TypeDialBack {
			if body, _, err := r.session.Open(h, batch[0].Buf); err == nil {
				d.body = bytes.Clone(body)
			}
		}
		got = append(got, d)
	}
}

// received is a datagram that has arrived at a test's socket.
type received struct {
	wire.Header
	size int // of the datagram in bytes
	body []byte
}

// answer sends the answers to the probes among got to the node at addrOf(0), from c, and returns how many there were.
func (r *remote) answer(t testing.TB, c *simnet.Conn, got []received) (probes int) {
	t.Helper()
	for _, d := range got {
		if d.Type != wire.TypeProbe {
			continue
		}
		p, err := wire.ParseProbe(d.body, d.size)
		if err != nil {
			t.Fatal(err)
		}
		probes++
		body := make([]byte, wire.ProbeLen)
		p.Put(body)
		r.send(t, c, r.sealed(wire.TypeProbeReply, body))
	}
	return probes
}

// send sends a datagram from c to the node at addrOf(0).
func (r *remote) send(t testing.TB, c *simnet.Conn, datagram []byte) {
	t.Helper()
	if _, err := c.WriteBatch([]underlay.Datagram{{Addr: addrOf(0), Buf: datagram}}); err != nil {
		t.Fatal(err)
	}
}

// count returns the number of datagrams of a type.
func count(got []received, kind wire.Type) (n int) {
	for _, d := range got {
		if d.Type == kind {
			n++
		}
	}
	return n
}
