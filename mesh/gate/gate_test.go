package gate

import (
	"net"
	"net/netip"
	"testing"

	"weft/internal/peer"
)

// conn is a stream from an address, which records that it was closed.
type conn struct {
	net.Conn
	from   netip.AddrPort
	closed bool
}

func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

func (c *conn) Close() error {
	c.closed = true
	return nil
}

func from(addr string) *conn { return &conn{from: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)} }

// TestOneHostEndsItsOwnStreams: one host cannot take the places of others, in whatever way it writes its address.
func TestOneHostEndsItsOwnStreams(t *testing.T) {
	g := New()
	other := from("192.0.2.1")
	g.Enter(other)
	var own []*conn
	addr := netip.MustParseAddr("2001:db8::")
	for range 100 {
		addr = addr.Next() // of one /64
		c := from(addr.String())
		own = append(own, c)
		g.Enter(c)
	}
	if other.closed || len(g.unknown) != 1+UnknownPerHost {
		t.Errorf("the other host's stream is closed: %v; %d streams", other.closed, len(g.unknown))
	}
	for i, c := range own {
		if c.closed != (i < 100-UnknownPerHost) {
			t.Errorf("stream %d: closed %v", i, c.closed)
		}
	}
}

// TestFullGate: the oldest stream of the host with most ends when many hosts open streams.
func TestFullGate(t *testing.T) {
	g := New()
	var crowd []*conn
	for range 3 {
		c := from("192.0.2.1")
		crowd = append(crowd, c)
		g.Enter(c)
	}
	addr := netip.MustParseAddr("10.0.0.0")
	var single []*conn
	for range MaxUnknown {
		addr = addr.Next()
		c := from(addr.String())
		single = append(single, c)
		g.Enter(c)
	}
	if len(g.unknown) != MaxUnknown || !crowd[0].closed || !crowd[1].closed || !crowd[2].closed || single[0].closed {
		t.Errorf("%d streams; of the crowd %v %v %v", len(g.unknown), crowd[0].closed, crowd[1].closed, crowd[2].closed)
	}
}

// TestKnownNodes: a node has a bounded number of authenticated streams, and a closed one frees its place.
func TestKnownNodes(t *testing.T) {
	g := New()
	var all []*Stream
	for i := range KnownPerNode + 1 {
		s := g.Enter(from("192.0.2.1"))
		if got := s.Authenticate(peer.ID{1}); got != (i < KnownPerNode) {
			t.Fatalf("stream %d: %v", i, got)
		}
		all = append(all, s)
	}
	if s := g.Enter(from("192.0.2.1")); !s.Authenticate(peer.ID{2}) {
		t.Error("another node has no place")
	}
	for range 2 {
		if err := all[0].Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := g.Enter(from("192.0.2.1")); !s.Authenticate(peer.ID{1}) {
		t.Error("no place after one has ended")
	}
	g.Close()
	c := from("192.0.2.1")
	if g.Enter(c) != nil || !c.closed || len(g.unknown) != 0 || len(g.inside) != 0 || len(g.peers) != 0 {
		t.Errorf("after Close: %d, %d, %d", len(g.unknown), len(g.inside), len(g.peers))
	}
}

// TestMadeUpNodesOfOneHost: a holder of the secret that is many nodes cannot take all places of authenticated streams.
func TestMadeUpNodesOfOneHost(t *testing.T) {
	g := New()
	var own []*conn
	for i := range 2 * MaxKnown {
		c := from("192.0.2.66")
		own = append(own, c)
		g.Enter(c).Authenticate(peer.ID{2, byte(i >> 8), byte(i)})
	}
	if len(g.inside) != MaxKnown || own[0].closed {
		t.Fatalf("%d streams, the first one closed: %v", len(g.inside), own[0].closed)
	}
	for i := range byte(10) {
		c := from("192.0.2.1")
		if s := g.Enter(c); !s.Authenticate(peer.ID{1, i}) || c.closed || !own[i].closed {
			t.Errorf("stream %d of another host: closed %v", i, c.closed)
		}
	}
	if len(g.inside) != MaxKnown || len(g.peers) != MaxKnown {
		t.Errorf("%d streams of %d nodes", len(g.inside), len(g.peers))
	}
}
