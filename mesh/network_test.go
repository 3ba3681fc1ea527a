package mesh

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network connects the meshes of a test. Unlike the transports of memberlist.MockNetwork, which block without limit on one
// that was shut down, those of a network drop packets that are not received. A network can cut nodes off.
type network struct {
	mu    sync.Mutex
	nodes map[string]*transport // guarded by mu: by address
	cut   map[string]bool       // guarded by mu: by address
	shut  map[string]bool       // guarded by mu: by address, hosts that accept nothing
	side  map[string]int        // guarded by mu: by address; nodes of different sides do not reach each other

	recording bool       // guarded by mu
	packets   []recorded // guarded by mu: what was sent while recording
	opened    []*tapped  // guarded by mu: the streams that were opened while recording
}

// transport is one node's memberlist.Transport on a network.
type transport struct {
	net     *network
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.Transport = (*transport)(nil)

var errNoRoute = errors.New("test network: no route")

func (n *network) transport(t *testing.T) *transport {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes, n.cut = make(map[string]*transport), make(map[string]bool)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(len(n.nodes) + 1)}), 6783)
	tr := &transport{net: n, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 16)}
	n.nodes[addr.String()] = tr
	return tr
}

// setCut disconnects the node at addr from the network, or connects it again.
func (n *network) setCut(addr netip.AddrPort, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[addr.String()] = cut
}

// closeTo blocks packets and streams to the node at addr. The node can still send and dial.
func (n *network) closeTo(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shut == nil {
		n.shut = make(map[string]bool)
	}
	n.shut[addr.String()] = true
}

// divide puts the nodes at addrs on another side of the network than all others. Without any, all are on one side again.
func (n *network) divide(addrs ...netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.side = make(map[string]int)
	for _, addr := range addrs {
		n.side[addr.String()] = 1
	}
}

// alias makes the address old reach the transport of addr: a host that has two addresses and advertises one of them.
func (n *network) alias(old, addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[old.String()] = n.nodes[addr.String()]
	delete(n.cut, old.String())
}

// rename makes the host of addr reachable at another address instead.
func (n *network) rename(addr, next netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[next.String()] = n.nodes[addr.String()]
	delete(n.nodes, addr.String())
}

func (t *transport) to(addr string) (*transport, error) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	peer, ok := t.net.nodes[addr]
	if !ok || t.net.cut[addr] || t.net.cut[t.addr.String()] || t.net.shut[addr] || t.net.side[addr] != t.net.side[t.addr.String()] {
		return nil, errNoRoute
	}
	return peer, nil
}

func (t *transport) FinalAdvertiseAddr(addr string, port int) (net.IP, int, error) {
	return net.ParseIP(addr), port, nil
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	t.net.recordPacket(addr, b)
	peer, _ := t.to(addr)
	if peer == nil {
		return now, nil // lost
	}
	from := net.UDPAddrFromAddrPort(t.addr)
	select {
	case peer.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: now}:
	default: // lost
	}
	return now, nil
}

func (t *transport) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	peer, err := t.to(addr)
	if err != nil {
		return nil, err
	}
	near, far := t.net.tap(addr)
	select {
	case peer.streams <- farEnd{far, net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.addr.Addr(), 40000))}:
		return near, nil
	default:
		return nil, errNoRoute
	}
}

// farEnd is the far end of a stream, with the address of its near end.
type farEnd struct {
	net.Conn
	from net.Addr
}

func (s farEnd) RemoteAddr() net.Addr { return s.from }

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) Shutdown() error {
	t.net.setCut(t.addr, true)
	for {
		select {
		case c := <-t.streams:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// recorded is a packet that was sent to an address.
type recorded struct {
	to string
	b  []byte
}

func (n *network) recordPacket(to string, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.recording {
		n.packets = append(n.packets, recorded{to, append([]byte(nil), b...)})
	}
}

// tapped is a stream, with what both ends have written to it.
type tapped struct {
	to string

	mu           sync.Mutex
	dialer, peer []byte // guarded by mu
}

// tap returns the two ends of a new stream to an address, and records what they write.
func (n *network) tap(to string) (near, far net.Conn) {
	near, far = net.Pipe()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.recording {
		return near, far
	}
	s := &tapped{to: to}
	n.opened = append(n.opened, s)
	return tappedConn{near, s, &s.dialer}, tappedConn{far, s, &s.peer}
}

// tappedConn is one end of a tapped stream.
type tappedConn struct {
	net.Conn
	s  *tapped
	to *[]byte
}

func (c tappedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	*c.to = append(*c.to, b[:n]...)
	return n, err
}

// record begins to record all that is sent.
func (n *network) record() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recording = true
}

// recordings ends the recording, and returns the packets and both directions of each stream.
func (n *network) recordings() (packets, streams [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recording = false
	for _, p := range n.packets {
		packets = append(packets, p.b)
	}
	for _, s := range n.opened {
		s.mu.Lock()
		streams = append(streams, s.dialer, s.peer)
		s.mu.Unlock()
	}
	return packets, streams
}

// attacker is where recorded and forged bytes are sent from: a host that is no node.
var attacker = netip.MustParseAddrPort("203.0.113.66:4444")

// inject sends a packet to a node from the address of the attacker.
func (t *transport) inject(b []byte) {
	t.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(attacker), Timestamp: time.Now()}
}

// dialAs opens a stream to a node from the address of the attacker.
func (t *transport) dialAs() net.Conn {
	near, far := net.Pipe()
	t.streams <- farEnd{far, net.TCPAddrFromAddrPort(attacker)}
	return near
}
