package scale

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

var errNoRoute = errors.New("scale: no node has this address")

// network connects the meshes of one process in memory, and counts the bytes that they send.
type network struct {
	bytes atomic.Uint64 // payload of packets and streams, without headers of IP, UDP and TCP

	mu    sync.RWMutex
	nodes map[string]*transport // guarded by mu; the key is the address
}

// transport is the memberlist.Transport of one node.
type transport struct {
	net     *network
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.Transport = (*transport)(nil)

// transport returns a new transport for the ith node.
func (n *network) transport(i int) *transport {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 6783)
	t := &transport{net: n, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = make(map[string]*transport)
	}
	n.nodes[addr.String()] = t
	return t
}

func (n *network) at(addr string) *transport {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.nodes[addr]
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	t.net.bytes.Add(uint64(len(b)))
	to := t.net.at(addr)
	if to == nil {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr), Timestamp: now}
	select {
	case to.packets <- p:
	default: // the receiver's buffer is full: the packet is lost, as with UDP
	}
	return now, nil
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := t.net.at(addr)
	if to == nil {
		return nil, errNoRoute
	}
	near, far := net.Pipe()
	select {
	case to.streams <- &counted{far, &t.net.bytes}:
		return &counted{near, &t.net.bytes}, nil
	case <-time.After(timeout):
		return nil, errNoRoute
	}
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) Shutdown() error {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	delete(t.net.nodes, t.addr.String())
	return nil
}

// counted is one end of a stream, and counts the bytes that are written to it.
type counted struct {
	net.Conn
	bytes *atomic.Uint64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(uint64(n))
	return n, err
}

// RemoteAddr returns a constant address, which memberlist needs for its log.
func (c *counted) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
