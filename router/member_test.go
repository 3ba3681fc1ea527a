package router

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
	"weft/router/wire"
)

// member is a node with a key and the secrets of the network, but code of its own: it makes sessions as the protocol
// wants it, and sends in them what a test likes. It must be made in a bubble of synctest.
type member struct {
	t    *testing.T
	peer Peer
	conn *simnet.Conn
	// onDatagram is called with each sealed datagram that opens; nil: it is ignored. It may call the other methods.
	onDatagram func(from peer.ID, kind wire.Type, body []byte)

	mu       sync.Mutex
	node     *session.Node                // guarded by mu
	sessions map[peer.ID]*session.Session // guarded by mu
	peers    map[peer.ID]Peer             // guarded by mu
}

// newMember runs the kth node of the tests as a member that knows the others, until the test ends.
func newMember(t *testing.T, network *simnet.Network, k int, secrets []session.Secret, others ...Peer) *member {
	t.Helper()
	node, err := session.NewNode(session.Config{
		Private: identityOf(k).private, Cluster: cluster, Secrets: secrets, Offer: anyCipher, Trusted: session.TrustAll(),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, peer: peerOf(k), node: node, sessions: map[peer.ID]*session.Session{}, peers: map[peer.ID]Peer{}}
	if m.conn, err = network.Listen(m.peer.Addr); err != nil {
		t.Fatal(err)
	}
	var list []session.Peer
	for _, p := range others {
		m.peers[p.ID] = p
		list = append(list, session.Peer{ID: p.ID, Public: p.Public, Addr: p.Addr})
	}
	node.SetPeers(list, time.Now())
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(m.receive)
	group.Go(func() { m.advance(stop) })
	t.Cleanup(func() { close(stop); m.conn.Close(); group.Wait() })
	return m
}

// receive handles what arrives until the socket is closed.
func (m *member) receive() {
	batch := []underlay.Datagram{{Buf: make([]byte, 1<<16)}}
	for {
		if _, err := underlaytest.Read(m.conn, batch); err != nil {
			return
		}
		m.handle(batch[0])
	}
}

func (m *member) handle(d underlay.Datagram) {
	h, _, err := wire.Parse(d.Buf)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.Type.IsHandshake() {
		_ = m.node.Receive(d.Buf, d.Addr, time.Now())
		m.drain()
		return
	}
	s := m.node.Lookup(h.Session)
	if s == nil {
		return
	}
	if h.Type == wire.TypePlain {
		return
	}
	body, _, err := s.Open(h, d.Buf)
	if err != nil {
		return
	}
	if s.Confirm() {
		m.node.UpdateEndpoint(s.Peer(), d.Addr, time.Now())
		m.node.ConfirmSession(s, time.Now())
		m.drain()
	}
	if m.onDatagram != nil {
		body := bytes.Clone(body)
		m.mu.Unlock()
		m.onDatagram(s.Peer(), h.Type, body)
		m.mu.Lock()
	}
}

// drain sends the messages of the Node and notes its sessions. mu is held.
func (m *member) drain() {
	messages, changes := m.node.Drain()
	for _, c := range changes {
		m.sessions[c.Peer] = c.Session
	}
	for _, message := range messages {
		m.write(message.To, message.Datagram)
	}
}

// advance does what is due, every 100 ms, until stop is closed.
func (m *member) advance(stop chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			m.mu.Lock()
			m.node.Advance(time.Now())
			m.drain()
			m.mu.Unlock()
		}
	}
}

// connect makes a session with a peer.
func (m *member) connect(to peer.ID) {
	m.t.Helper()
	for range 100 {
		m.mu.Lock()
		known := m.sessions[to] != nil
		m.node.RequestSession(to, time.Now())
		m.drain()
		m.mu.Unlock()
		if known {
			return
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	m.t.Fatalf("no session with %s", to)
}

// send sends a sealed datagram with any body to a peer, if there is a session.
func (m *member) send(to peer.ID, kind wire.Type, body []byte) {
	m.mu.Lock()
	s, at := m.sessions[to], m.peers[to].Addr
	m.mu.Unlock()
	if s == nil {
		return
	}
	counter, ok := s.Reserve(1)
	if !ok {
		m.t.Error("no counter left")
		return
	}
	s.Use()
	m.write(at, s.Seal(nil, kind, counter, bytes.Clone(body)))
}

// relay sends a datagram to a peer in a Relay with any header.
func (m *member) relay(to peer.ID, r wire.Relay, datagram []byte) {
	body := make([]byte, wire.RelayLen+len(datagram))
	r.Put(body)
	copy(body[wire.RelayLen:], datagram)
	m.send(to, wire.TypeRelay, body)
}

// write sends a datagram. An error means that the test ends.
func (m *member) write(to netip.AddrPort, datagram []byte) {
	_, _ = m.conn.WriteBatch([]underlay.Datagram{{Addr: to, Buf: datagram}})
}
